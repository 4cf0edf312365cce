"""The sample shop: made by code here, so that the test needs no download."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image, ImageDraw

from local.sample_shop import rendered
from local.sample_shop.shop import write
from local.sample_shop.stamps import category_of, is_photograph, range_of, title_of
from local.sample_shop.ware import Ware


@pytest.fixture(scope="module")
def wares() -> list[Ware]:
    return rendered.wares(seed=3, size=96)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rendered_wares_are_distinct_and_come_in_variants(wares: list[Ware]) -> None:
    assert 60 <= len(wares) <= 120
    assert len({ware.product_id for ware in wares}) == len(wares)
    groups = [ware.group for ware in wares if ware.group]
    assert groups
    assert all(groups.count(group) > 1 for group in groups)
    pictures = {ware.cutout.tobytes() for ware in wares}
    assert len(pictures) == len(wares)


def test_the_same_seed_writes_the_same_shop(wares: list[Ware], tmp_path: Path) -> None:
    for out in ("a", "b"):
        write(wares[:6], tmp_path / out, seed=5, photos=2, tables=1)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 + 6 + 2 + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_queries_name_products_of_the_catalogue_and_files_that_exist(
    wares: list[Ware], tmp_path: Path
) -> None:
    shop = write(wares[:8], tmp_path, seed=1, photos=4, tables=1)
    catalogue = rows(shop.catalogue)
    assert [row["product_id"] for row in catalogue] == [ware.product_id for ware in wares[:8]]
    assert all(float(row["price"]) > 0 and int(row["stock"]) >= 0 and row["brand"] for row in catalogue)
    queries = rows(shop.queries)
    assert len(queries) == shop.photos == 4
    assert {row["product_id"] for row in queries} <= {row["product_id"] for row in catalogue}
    for row in [*catalogue, *queries]:
        assert Image.open(tmp_path / row["image"]).size[0] >= 500


def test_drawings_are_told_from_photographs() -> None:
    drawing = Image.new("RGBA", (120, 120))
    ImageDraw.Draw(drawing).ellipse(
        (10, 10, 110, 110), fill=(250, 200, 0, 255), outline=(0, 0, 0, 255), width=4
    )
    assert not is_photograph(drawing)
    shades = np.random.default_rng(0).integers(0, 256, (120, 120, 4), np.uint8)
    shades[..., 3] = 255
    assert is_photograph(Image.fromarray(shades))
    shades[..., 3] = 0  # nothing of it can be seen
    assert not is_photograph(Image.fromarray(shades))


def test_stamps_have_a_category_by_folder_and_no_other_is_sold() -> None:
    assert category_of(PurePosixPath("household/dishes/utensils/nutcracker.png")) == "Dishes"
    assert category_of(PurePosixPath("household/key.png")) == "Household"
    assert category_of(PurePosixPath("animals/birds/magpie.png")) is None


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("A pair of pliers.\nde.utf8=Eine Zange.\n", "Pliers"),
        ("An electric guitar.\n", "Electric guitar"),
        ("Dumper. It carries its load in the front.\n", "Dumper"),
        ("Eat your broccoli!\n", "Some stamp"),
        (None, "Some stamp"),
    ],
)
def test_titles_read_like_names(text: str | None, title: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "some_stamp2.txt").write_text(text)
    assert title_of(tmp_path / "some_stamp2.png") == title


def test_stamps_of_one_range_are_variants() -> None:
    assert range_of(Path("tools/wrench_adjustable.png")) == range_of(Path("tools/wrench.png")) == "wrench"
