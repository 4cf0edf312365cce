"""`magpie train calibration` and `magpie train ranking` on a bundle of tiny models and drawn pictures."""

from __future__ import annotations

import colorsys
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.ranking.bundled_configs import bundled_configs
from magpie.ranking.calibration import Calibration
from magpie.tables.problems import BadFile
from magpie.vision.bundle import Bundle
from tests.unit.vision import tiny_models
from training.commands import calibration as calibration_command
from training.commands import ranking as ranking_command

PRODUCTS = 12
SPACES = {"identity": 8, "category": 4}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    boxes, scores = np.array([[0.2, 0.2, 0.8, 0.8]]), np.array([[0.9]])
    tiny_models.detector(folder, boxes, scores).save(folder / "detector.card.json")
    tiny_models.embedder(folder, SPACES).save(folder / "embedder.card.json")
    manifest = {"name": "tiny", "version": "1", "detector": "detector.card.json"}
    (folder / "bundle.json").write_text(json.dumps({**manifest, "embedder": "embedder.card.json"}))
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Products are colours; photos are of nearly the same one."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rng = np.random.default_rng(0)
    colours = [np.array(colorsys.hsv_to_rgb(n / PRODUCTS, 1, 1)) * 255 for n in range(PRODUCTS)]

    def draw(name: str, colour: np.ndarray) -> str:
        pixels = np.tile(np.clip(colour, 0, 255).astype(np.uint8), (32, 32, 1))
        Image.fromarray(pixels).save(folder / name)
        return name

    catalogue = [
        [f"p{n:02d}", draw(f"p{n}.png", colour), "warm" if n < 6 else "cold"]
        for n, colour in enumerate(colours)
    ]
    queries = [
        [draw(f"q{n}.png", colours[n % PRODUCTS] + rng.normal(0, 25, 3)), f"p{n % PRODUCTS:02d}", 2]
        for n in range(60)
    ]
    write(folder / "catalogue.csv", ["product_id", "image", "category"], catalogue)
    write(folder / "queries.csv", ["image", "product_id", "grade"], queries)
    return folder


def write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def calibrate(bundle: Path, shop: Path, *more: str) -> dict[str, Any]:
    arguments = ["--bundle", bundle, "--data", shop, "--queries", "queries.csv", "--gallery", "catalogue.csv"]
    return answer(calibration_command.command, *arguments, *more)


def fit(bundle: Path, shop: Path, *more: str, queries: str = "queries.csv") -> dict[str, Any]:
    arguments = ["--bundle", bundle, "--customer", "my-shop", "--catalogue", shop / "catalogue.csv"]
    return answer(ranking_command.command, *arguments, "--queries", shop / queries, *more)


def answer(command: Any, *arguments: Any) -> dict[str, Any]:
    result = CliRunner().invoke(
        command, [*map(str, arguments), "--threads", "1", "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_a_calibration_is_put_into_the_bundle(bundle: Path, shop: Path, tmp_path: Path) -> None:
    told = calibrate(bundle, shop, "--plot", str(tmp_path / "plot.svg"), "-k", "6")
    loaded = Bundle.load(bundle)
    assert loaded.calibration == "calibration.json"
    calibration = Calibration.load(bundle, loaded.calibration, loaded.embedder_card.sha256)
    assert set(calibration.spaces) == set(SPACES)
    assert (told["photos"], told["products"], told["hits_a_photo"]) == (60, PRODUCTS, 6)
    assert calibration.spaces["identity"].everywhere.pairs == 360
    assert set(calibration.spaces["identity"].categories) <= {"warm", "cold"}
    low, high = calibration.probability("identity", np.array([0.5, 1.0]), "warm")
    assert low < high
    assert "60 photos of queries.csv, 12 products of catalogue.csv" in calibration.fitted_on
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_a_calibration_can_be_checked_without_a_change(bundle: Path, shop: Path) -> None:
    missing = CliRunner().invoke(
        calibration_command.command,
        [
            *("--bundle", str(bundle), "--data", str(shop), "--queries", "queries.csv"),
            *("--gallery", "catalogue.csv", "--check"),
        ],
    )
    assert isinstance(missing.exception, FailedPrecondition)
    assert "no calibration to check" in str(missing.exception)
    calibrate(bundle, shop)
    before = (bundle / "calibration.json").read_bytes()
    told = calibrate(bundle, shop, "--check")
    assert told["bundle"] == Bundle.load(bundle).id
    assert told["photos"] == 60
    assert 0 <= told["held_out"]["identity"]["ece_after"] <= 1
    assert (bundle / "calibration.json").read_bytes() == before


def test_a_ranking_is_put_into_the_bundle_with_a_cut_off_by_probability(bundle: Path, shop: Path) -> None:
    calibrate(bundle, shop)
    told = fit(bundle, shop, "--precision", "0.6")
    (config,) = bundled_configs(bundle, SPACES, calibrated=True).values()
    assert told["version"] == config.version == 1
    assert told["checksum"] == config.checksum
    assert told["weights"] == dict(config.fusion.weights)
    assert told["cut_off"]["field"] == "min_probability"
    assert told["cut_off"]["value"] == config.min_probability
    assert told["cut_off"]["precision"] >= 0.6
    report = json.loads((bundle / "customers" / "my-shop" / "ranking.report.json").read_text())
    assert report == told
    again = fit(bundle, shop, "--precision", "0.6")
    assert again["version"] == 1  # the same rules
    assert fit(bundle, shop, "--precision", "0.3")["version"] == 2


def test_without_a_calibration_the_cut_off_is_a_score(bundle: Path, shop: Path) -> None:
    told = fit(bundle, shop, "--precision", "0.6", "--whole-images")
    assert told["cut_off"]["field"] == "min_score"
    assert bundled_configs(bundle, SPACES, calibrated=False)["my-shop"].min_score == told["cut_off"]["value"]


def test_it_tells_a_person(bundle: Path, shop: Path) -> None:
    calibrated = CliRunner().invoke(
        calibration_command.command,
        [
            "--bundle",
            str(bundle),
            "--data",
            str(shop),
            "--queries",
            "queries.csv",
            "--gallery",
            "catalogue.csv",
        ],
        catch_exceptions=False,
    )
    assert "identity" in calibrated.stdout
    assert "calibration.json" in calibrated.stderr
    fitted = CliRunner().invoke(
        ranking_command.command,
        [
            *("--bundle", str(bundle), "--customer", "my-shop", "--precision", "0.999999"),
            *("--catalogue", str(shop / "catalogue.csv"), "--queries", str(shop / "queries.csv")),
        ],
        catch_exceptions=False,
    )
    assert "default weights" in fitted.stdout
    assert "ranking.json, version 1" in fitted.stderr.replace("\n", "")


def broken_picture(shop: Path) -> None:
    (shop / "p3.png").write_bytes(b"no picture")
    (shop / "p5.png").write_bytes(b"")


def unknown_product(shop: Path) -> None:
    with (shop / "queries.csv").open("a") as file:
        file.write("q1.png,p99,1\n")


def few_queries(shop: Path) -> None:
    lines = (shop / "queries.csv").read_text().splitlines()
    (shop / "queries.csv").write_text("\n".join(lines[:21]) + "\n")


def nameless(shop: Path) -> None:
    with (shop / "catalogue.csv").open("a") as file:
        file.write(",q1.png,warm\n")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (broken_picture, BadFile, r"(?s)2 problems.*p3\.png: .*no picture.*p5\.png: .*empty"),
        (unknown_product, BadFile, "line 62: product `p99` is not in the catalogue"),
        (few_queries, InvalidArgument, "20 graded photos of 12 products are too few.*at least 30"),
        (nameless, BadFile, r"q1\.png has no product_id"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    bundle: Path, shop: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(shop)
    with pytest.raises(error, match=message):
        fit(bundle, shop)
    assert not (bundle / "customers").exists()


def test_a_bad_name_and_a_bundle_that_does_not_fit_are_refused(bundle: Path, shop: Path) -> None:
    with pytest.raises(InvalidArgument, match="customer"):
        fit(bundle, shop, "--customer", "My Shop")
    calibrate(bundle, shop)
    other = json.loads((bundle / "calibration.json").read_text())
    (bundle / "calibration.json").write_text(json.dumps({**other, "embedder_sha256": "0" * 64}))
    with pytest.raises(FailedPrecondition, match="was fitted to an embedder"):
        fit(bundle, shop)
    calibrate(bundle, shop)  # mends it
    fit(bundle, shop)


def test_a_calibration_on_other_products_is_refused(bundle: Path, shop: Path) -> None:
    rows = list(csv.reader((shop / "queries.csv").open()))
    write(shop / "queries.csv", rows[0], [[row[0], f"other-{row[1]}", row[2]] for row in rows[1:]])
    with pytest.raises(
        InvalidArgument, match="none of their products is in the gallery, not even 'other-p00'"
    ):
        calibrate(bundle, shop)
    assert Bundle.load(bundle).calibration is None
