"""`magpie duplicates` through the whole system."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.conftest import LocalSystem, make_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, local_system: LocalSystem) -> list[str]:
    """Four products; one picture is also another's, and one is also another's smaller. Returns the four."""
    folder = tmp_path_factory.mktemp("duplicates")
    made = make_shop(folder, 4, first_seed=400)
    with Image.open(folder / f"{made.products[1]}.jpg") as picture:
        picture.resize((160, 160)).save(folder / "small.jpg", quality=70)
    with made.catalogue.open("a", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["twin", f"{made.products[0]}.jpg", "A twin", "", 1, "true"])
        rows.writerow(["small", "small.jpg", "A small one", "", 1, "true"])
    report = local_system.json("index", made.catalogue, "--customer", "twice")
    assert report["indexed"] == 6
    return made.products


def ids(groups: list[dict[str, list[dict[str, str]]]]) -> list[set[str]]:
    return [{product["product_id"] for product in group["products"]} for group in groups]


def test_the_report(local_system: LocalSystem, shop: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = local_system.json("duplicates", "--customer", "twice", "--html", page)
    assert (found["products"], found["pictures"], found["without_fingerprint"]) == (6, 5, 0)
    assert ids(found["exact"]) == [{shop[0], "twin"}]
    assert ids(found["re_encoded"]) == [{shop[1], "small"}]
    told = [{shop[0], "twin"}, {shop[1], "small"}]
    for group in found["same_item"]:
        for link in group["links"]:
            assert link["probability"] >= 0.9
            assert {link["one"]["product_id"], link["other"]["product_id"]} not in told
    html = page.read_text()
    assert html.count('<div class="picture"><img src="data:image/jpeg;base64,') >= 4
    assert "no picture" not in html
    assert "http" not in html


def test_one_section_as_a_table(local_system: LocalSystem, shop: list[str]) -> None:
    result = local_system.run("duplicates", "--customer", "twice", "--kind", "exact")
    assert result.returncode == 0, result.stderr
    assert "A twin" in result.stdout
    assert "Exact" in result.stdout
    assert "Re-encoded" not in result.stdout
    assert shop[1] not in result.stdout


def test_a_probability_that_nothing_reaches(local_system: LocalSystem, shop: list[str]) -> None:
    assert shop
    result = local_system.run("duplicates", "--customer", "twice", "--min-probability", "0.999999")
    assert (result.returncode, result.stdout) == (1, "")
    assert "error: INVALID_ARGUMENT: min_probability: is 0.999999" in result.stderr
