"""The rendered training set: drawn from a seed, with look-alikes that identity has to tell apart."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from magpie.errors import InvalidArgument
from magpie.synthesis.products import SHOP_FAMILIES, TRAINING_FAMILIES
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.rendered import COLUMNS, RenderedProduct, RenderedSet, main, pictures_in, write

PRODUCTS, PHOTOS = 4, 2
SMALL = RenderedSet(seed=3, photos=PHOTOS, size=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with a tiny rendered one."""
    folder = tmp_path_factory.mktemp("data")
    assert write(folder / "rendered", SMALL, PRODUCTS) == folder / "rendered" / "products.csv"
    return folder


def pictures(folder: Path) -> dict[str, bytes]:
    """Relative path -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_the_table_names_every_picture_and_nothing_is_left_half_written(root: Path) -> None:
    with (root / "rendered" / "products.csv").open(newline="") as file:
        table = csv.DictReader(file)
        assert tuple(table.fieldnames or ()) == COLUMNS
        rows = list(table)
    assert {row["image"] for row in rows} == set(pictures(root / "rendered"))
    assert Counter(row["kind"] for row in rows) == {"catalogue": PRODUCTS, "photo": PRODUCTS * PHOTOS}
    assert {row["split"] for row in rows} == {"train"}
    assert not list(root.rglob("*.part"))
    for row in rows:
        with Image.open(root / "rendered" / row["image"]) as picture:
            assert max(picture.size) == SMALL.size
            assert row["kind"] == "photo" or picture.size == (SMALL.size, SMALL.size)


def test_its_card_reads_it(root: Path) -> None:
    examples = examples_of(DataEntry("rendered", splits=("train",)), root)
    assert len(examples) == PRODUCTS * (1 + PHOTOS)
    assert len({example.product for example in examples}) == PRODUCTS
    for example in examples:
        assert example.dataset == "rendered"
        assert example.labels["department"] == "Rendered"
        assert example.labels["category"] in TRAINING_FAMILIES
        assert example.load(64).mode == "RGB"
    catalogue = [example for example in examples if example.catalogue]
    assert len(catalogue) == PRODUCTS
    assert all("catalogue" in example.path.parts for example in catalogue)


def test_a_product_depends_on_the_seed_and_its_number_only(root: Path, tmp_path: Path) -> None:
    larger = replace(SMALL, photos=PHOTOS + 1)
    write(tmp_path / "larger", larger, PRODUCTS + 2, jobs=2)
    found, expected = pictures(tmp_path / "larger"), pictures(root / "rendered")
    assert len(found) == (PRODUCTS + 2) * (PHOTOS + 2)
    assert {name: found[name] for name in expected} == expected
    write(tmp_path / "other", replace(SMALL, seed=4), PRODUCTS)
    other = pictures(tmp_path / "other")
    assert other.keys() == expected.keys()
    assert not set(other.values()) & set(expected.values())


def test_a_second_run_draws_only_what_is_absent(root: Path, tmp_path: Path) -> None:
    write(tmp_path, SMALL, PRODUCTS)
    kept, lost = sorted(tmp_path.rglob("*.jpg"))[:2]
    kept.write_bytes(b"kept")
    lost.unlink()
    write(tmp_path, SMALL, PRODUCTS)
    assert kept.read_bytes() == b"kept"
    assert lost.read_bytes() == (root / "rendered" / lost.relative_to(tmp_path)).read_bytes()


def test_sets_drawn_with_other_settings_do_not_mix(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pictures(root / "rendered")
    for other in (replace(SMALL, seed=9), replace(SMALL, size=48)):
        with pytest.raises(InvalidArgument, match="other settings"):
            write(root / "rendered", other, PRODUCTS)
    assert pictures(root / "rendered") == before
    with pytest.raises(SystemExit):
        main(["--out", str(root / "rendered"), "--seed", "9"])
    assert "drawn-with.json" in capsys.readouterr().err
    with pytest.raises(InvalidArgument, match="has no pictures"):
        pictures_in(tmp_path)


def test_no_family_of_the_sample_shop_is_drawn() -> None:
    products = [RenderedProduct(number) for number in range(2000)]
    assert {product.family for product in products} == set(TRAINING_FAMILIES)
    assert not {product.family for product in products} & set(SHOP_FAMILIES)
    assert len({product.product_id for product in products}) == len(products)


def test_half_of_the_products_have_look_alikes_in_every_family() -> None:
    products = [RenderedProduct(number) for number in range(800)]
    colours = Counter(product.design for product in products)  # products of a design
    assert Counter(colours.values()) == {3: 80, 2: 80, 1: 400}
    assert sum(colours[product.design] > 1 for product in products) == len(products) / 2
    for count in (1, 2, 3):
        assert {p.family for p in products if colours[p.design] == count} == set(TRAINING_FAMILIES)
    # Ids of look-alikes differ in their last letter only, and only theirs have one.
    for product in products:
        assert product.product_id[-1].isalpha() == (colours[product.design] > 1)


def test_look_alikes_have_one_shape_and_other_colours() -> None:
    first, second = RenderedProduct(0), RenderedProduct(1)
    assert (first.design, first.colour) == (0, 0)
    assert (second.design, second.colour) == (0, 1)
    one, other = SMALL.cutout(first), SMALL.cutout(second)
    assert ImageChops.difference(one.getchannel("A"), other.getchannel("A")).getbbox() is None
    apart = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16))[..., :3].max(axis=2)
    assert (apart > 40).mean() > 0.25  # of 255


def test_every_other_photo_lies_on_a_part_of_a_real_one(tmp_path: Path) -> None:
    # Grounds of pure blue: no drawn ground is like that.
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (120, 160), (0, 0, 255)).save(tmp_path / name)
    drawn = replace(SMALL, grounds=pictures_in(tmp_path))
    for number in range(4):
        product = RenderedProduct(number)
        cutout = drawn.cutout(product)
        for index in range(4):
            pixels = np.asarray(drawn.photo(cutout, product, index), np.int16)
            border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
            blue = (border[:, 2] - border[:, :2].max(axis=1) > 100).mean()
            assert (blue > 0.4) == ((number + index) % 2 == 0)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InvalidArgument, match=r"(a\.jpg|b\.png).*cannot be read"):
        drawn.photo(cutout, RenderedProduct(0), 0)
