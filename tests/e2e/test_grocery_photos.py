"""Real phone photos of groceries against the catalogue's pictures, through the whole system."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import LocalSystem

# With one catalogue picture a product. Frozen ImageNet features reach about .28.
RECALL_AT_1_FLOOR = 0.60
EVERY = 3  # of the 296 photos


@pytest.fixture(scope="module")
def grocery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the catalogue of the split `gallery`, and queries of the split `val`."""
    if "MAGPIE_DATA" not in os.environ:
        pytest.skip("set MAGPIE_DATA to the folder of development photos")
    data = Path(os.environ["MAGPIE_DATA"]).resolve() / "grocery-store"
    folder = tmp_path_factory.mktemp("grocery")
    with (data / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    products = [
        (row["product_id"], data / row["file"], row["product"], row["category"])
        for row in of(rows, "gallery")
    ]
    write(folder / "catalogue.csv", ("product_id", "image", "title", "category"), products)
    photos = [(data / row["file"], row["product_id"]) for row in of(rows, "val")]
    write(folder / "queries.csv", ("image", "product_id"), photos[::EVERY])
    return folder


def of(rows: list[dict[str, str]], split: str) -> Iterator[dict[str, str]]:
    return (row for row in rows if row["split"] == split)


def write(path: Path, header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.mark.data
@pytest.mark.slow
def test_photos_find_their_products(local_system: LocalSystem, grocery: Path) -> None:
    report = local_system.json("index", grocery / "catalogue.csv", "--customer", "grocery")
    assert report["indexed"] + report["unchanged"] == 81
    assert report["failed"] == []
    found = local_system.json("evaluate", grocery / "queries.csv", "--customer", "grocery")
    whole = local_system.json("evaluate", grocery / "queries.csv", "--customer", "grocery", "--whole-image")
    assert found["recall@1"] >= RECALL_AT_1_FLOOR
    # The detector does not make it worse, but for the noise of a hundred photos.
    assert found["recall@1"] >= whole["recall@1"] - 0.05
