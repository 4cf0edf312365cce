"""`magpie evaluate-model` from end to end: a real bundle, a small shop, the page and what lies beside it."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from magpie.errors import MagpieError
from magpie.vision.bundle import Bundle
from training.commands.evaluate_model import command
from training.datasets.catalogue_of_cards import DataEntry
from training.datasets.example import Example
from training.embedding.retrieval import recall_at_1
from training.embedding.runs import onnx_run
from training.evaluation.conditions import CONDITIONS
from training.evaluation.evaluation import LEFT_OUT, map_classes, with_unseen
from training.evaluation.measure import measure_set, read_set
from training.evaluation.suite import EvaluationSet, Suite
from training.evaluation.vector_cache import VectorCache
from training.release.protected_sets import DEFAULT_SUITE

BUNDLE = Path("bundles/default")
SHOP = ["--catalogue", "shop/catalogue.csv", "--queries", "shop/queries.csv"]
SUITE = """
[[set]]
name = "shop"
queries = { data = "shop/catalogue.csv", photos = "shop/queries.csv", kind = "photo" }
gallery = { data = "shop/catalogue.csv", kind = "catalogue" }
related = "category"
unseen = ["p0", "p1"]
conditions = true
source_probe = true

[[set]]
name = "elsewhere"
queries = { data = "elsewhere/catalogue.csv" }
make = "make it so"
"""


def drawn(path: Path, product: int, seed: int) -> str:
    """A shape of the product's own, at a place and on a ground that change."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (96, 96), tuple(int(v) for v in rng.integers(180, 256, 3)))
    pen, own = ImageDraw.Draw(picture), np.random.default_rng(1000 + product)
    x, y = rng.integers(5, 30, 2)
    colour = tuple(int(v) for v in own.integers(0, 200, 3))
    pen.regular_polygon((int(x) + 30, int(y) + 30, 28), int(own.integers(3, 8)), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path.name


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight products in two categories: a catalogue picture and two photos of each, by two people."""
    root = tmp_path_factory.mktemp("data")
    catalogue, queries = ["image,product_id,category"], ["image,product_id,source"]
    for product in range(8):
        name = drawn(root / "shop" / f"c{product}.png", product, product)
        catalogue.append(f"{name},p{product},{'round' if product < 4 else 'flat'}")
        for shot, source in enumerate(("ann", "bob")):
            name = drawn(root / "shop" / f"q{product}-{shot}.png", product, 100 + 10 * product + shot)
            queries.append(f"{name},p{product},{source}")
    (root / "shop" / "catalogue.csv").write_text("\n".join(catalogue) + "\n")
    (root / "shop" / "queries.csv").write_text("\n".join(queries) + "\n")
    (root / "suite.toml").write_text(SUITE)
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def reported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Result]:
    out = tmp_path_factory.mktemp("report")
    result = run(
        BUNDLE, "--suite", data / "suite.toml", "--data", data, "--out", out, "--against", BUNDLE, "--json"
    )
    return out, json.loads(result.stdout), result


def test_the_figures_are_those_of_the_naive_loop(
    reported: tuple[Path, dict[str, Any], Result], data: Path
) -> None:
    out, content, _ = reported
    assert json.loads((out / "report.json").read_text()) == content
    (shop,) = content["sets"]
    bundle = Bundle.load(BUNDLE)
    cache = VectorCache(onnx_run(BUNDLE / bundle.embedder_card.file), bundle.embedder_card.input)
    entry = Suite.load(data / "suite.toml").set[0]
    queries, gallery = read_set(entry, data)
    asked = [query.example for query in queries]
    of_queries, of_gallery = cache.vectors(asked), cache.vectors(gallery)
    for space, found in shop["spaces"].items():
        wanted = recall_at_1(
            of_queries[space], of_gallery[space], [e.product for e in asked], [e.product for e in gallery]
        )
        assert found["recall@1"]["value"] == pytest.approx(wanted)
    assert shop["queries"] == 16
    for metric, figure in shop["spaces"]["identity"].items():
        assert shop["metrics"][metric].items() >= figure.items()  # the set's own space
    recall = shop["metrics"]["recall@1"]
    assert recall["low"] <= recall["value"] <= recall["high"]
    assert recall["difference"] == 0.0  # against itself


def test_groups_and_conditions_are_there(reported: tuple[Path, dict[str, Any], Result]) -> None:
    (shop,) = reported[1]["sets"]
    assert {group["name"]: group["queries"] for group in shop["seen"]} == {"seen": 12, "unseen": 4}
    assert {group["name"]: group["queries"] for group in shop["categories"]} == {"round": 8, "flat": 8}
    parts = [group["queries"] * group["metrics"]["mrr"]["value"] for group in shop["categories"]]
    assert sum(parts) / 16 == pytest.approx(shop["metrics"]["mrr"]["value"])
    assert [row["name"] for row in shop["conditions"]] == [condition.name for condition in CONDITIONS]
    for row in shop["conditions"]:
        drop = shop["metrics"]["mrr"]["value"] - row["metrics"]["mrr"]["value"]
        assert row["drop"]["mrr"]["value"] == pytest.approx(drop)
    assert set(shop["probes"]) == {"identity", "category", "similar", "imagenet"}
    assert set(reported[1]["maps"]) == {"identity", "category", "similar"}
    assert reported[1]["maps"]["identity"]["pictures"] == 24


def test_the_page_tells_all_and_asks_for_nothing(reported: tuple[Path, dict[str, Any], Result]) -> None:
    out, content, result = reported
    page = (out / "report.html").read_text()
    assert not re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?(?!data:|#)[^"'\s)]+""", page)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert "<script" not in page
    said = ("gain 2^grade - 1", "recall@10", "unseen", "rotation 180", "occlusion", "Maps")
    assert [words for words in (Bundle.load(BUNDLE).id, *said) if words not in page] == []
    for line in content["models"][0]["training_data"]:
        assert line.split(" (")[0] in page
    assert "elsewhere" in page
    assert "make it so" in result.stderr
    assert page.count("data:image/png") == 3
    (shop,) = content["sets"]
    wrong = sum(case["place"] > 1 for case in shop["worst"])
    assert len(shop["worst"]) == wrong
    assert page.count("data:image/jpeg") == sum(len(case["found"]) + 2 for case in shop["worst"])


def test_bad_cases_are_what_hard_negatives_read(
    reported: tuple[Path, dict[str, Any], Result], data: Path
) -> None:
    out, content, _ = reported
    with (out / "bad_cases" / "shop.csv").open() as file:
        rows = list(csv.DictReader(file))
    recall = content["sets"][0]["metrics"]["recall@1"]["value"]
    assert len(rows) == round(16 * (1 - recall))
    for row in rows:
        picture = (out / "bad_cases" / row["image"]).resolve()
        assert picture.parent == (data / "shop").resolve()
        assert row["product_id"] == f"catalogue/p{picture.name[1]}"
        assert row["wrong_product_id"].startswith("catalogue/p")
        assert row["wrong_product_id"] != row["product_id"]


def test_a_new_run_is_placed_in_the_old_map(
    reported: tuple[Path, dict[str, Any], Result], data: Path, tmp_path: Path
) -> None:
    old = reported[0]
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE.replace("conditions = true\nsource_probe = true", ""))
    result = run(BUNDLE, "--suite", suite, "--data", data, "--out", tmp_path / "new", "--map", old, "--json")
    for drawn_map in json.loads(result.stdout)["maps"].values():
        assert drawn_map["placed_in_old"]
        assert sum(row["pictures"] for row in drawn_map["movements"]) == 24
        assert all(row["neighbours_kept"] > 0.99 for row in drawn_map["movements"])
    assert "the earlier run" not in result.stderr
    assert "neighbours kept" in (tmp_path / "new" / "report.html").read_text()


def test_a_shop_of_ones_own_needs_no_suite(data: Path, tmp_path: Path) -> None:
    shop = data / "shop"
    result = run(
        BUNDLE,
        "--catalogue",
        shop / "catalogue.csv",
        "--queries",
        shop / "queries.csv",
        "--quick",
        "--out",
        tmp_path,
    )
    assert "shop" in result.stdout
    assert not (tmp_path / "maps.npz").exists()
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["sets"][0]["queries"] == 16
    assert content["sets"][0]["conditions"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (SHOP[2:], "belong together"),
        ([], "--data"),
        (["--suite", "suite.toml", *SHOP], "either"),
        (["--data", ".", "--map", "shop"], "maps.npz"),
        (["--data", "shop"], "none of the suite's sets"),
        (["--data", ".", "--suite", "suite.toml", "--against", "nothing"], "nothing"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], said: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = BUNDLE.resolve()
    monkeypatch.chdir(data)
    monkeypatch.delenv("MAGPIE_DATA", raising=False)
    try:
        result = run(bundle, "--quick", "--out", tmp_path, *arguments)
    except MagpieError as error:
        assert said in str(error)
    else:
        assert result.exit_code == 2
        assert said in result.stderr


def test_a_picture_is_embedded_once_a_condition(data: Path) -> None:
    bundle = Bundle.load(BUNDLE)
    model, seen = onnx_run(BUNDLE / bundle.embedder_card.file), []

    def counting(tensor: np.ndarray) -> Any:
        seen.append(len(tensor))
        return model(tensor)

    cache = VectorCache(counting, bundle.embedder_card.input)
    entry = Suite.load(data / "suite.toml").set[0]
    spec = bundle.embedder_card.input
    for space in ("identity", "category", "identity"):
        measure_set(counting, spec, entry, data, space=space, cache=cache)
    assert sum(seen) == 24
    measure_set(counting, spec, entry, data, condition=CONDITIONS[0], cache=cache)
    assert sum(seen) == 40


def test_unseen_products_are_those_of_the_card_unless_the_set_names_some() -> None:
    card = replace(Bundle.load(BUNDLE).embedder_card, metrics={LEFT_OUT: ["p3"]})
    named, silent = EvaluationSet("a", DataEntry("y"), unseen=("p1",)), EvaluationSet("b", DataEntry("y"))
    assert [entry.unseen for entry in with_unseen([named, silent], card)] == [("p1",), ("p3",)]
    nothing = with_unseen([silent], replace(card, metrics={}))
    assert nothing == [silent]


def test_a_map_is_coloured_by_category_and_by_department_where_there_are_many() -> None:
    def labels(kind: int) -> dict[str, str]:
        return {"category": f"kind {kind}", "department": "all"}

    few = {f"a{i}": Example(Path(f"a{i}"), "few", labels=labels(i % 3)) for i in range(30)}
    many = {f"b{i}": Example(Path(f"b{i}"), "many", labels=labels(i)) for i in range(30)}
    bare = {"c": Example(Path("c"), "bare")}
    classes = map_classes({**few, **many, **bare})
    assert {classes[name] for name in few} == {"kind 0", "kind 1", "kind 2"}
    assert {classes[name] for name in many} == {"all"}
    assert classes["c"] == "bare"


def test_the_default_suite_reads() -> None:
    names = [entry.name for entry in Suite.load(DEFAULT_SUITE).set]
    assert names[0] == "groceries"
    assert "sample-shop" in names
    with pytest.raises(ValueError, match="leave_out"):
        EvaluationSet("x", DataEntry("y"), leave_out="nobody")
