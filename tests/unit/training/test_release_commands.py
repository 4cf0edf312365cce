"""`magpie compare` and `magpie release` on tiny bundles and pictures of plain colours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from magpie.errors import FailedPrecondition, InvalidArgument, MagpieError, NotFound
from magpie.vision.bundle import Bundle
from tests.unit.training import tiny_release
from tests.unit.training.tiny_release import SEES_ALL, SEES_RED_AND_LIGHT
from training.commands.compare import command as compare
from training.commands.release import command as release
from training.release.record import verify_release


class Place:
    """Data, a suite, bundle `good` in place and candidates beside it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.suite = self.data / "suite.toml"
        self.good = folder / "good"
        self.worse = folder / "worse"
        self.current = folder / "bundles" / "default"

    @classmethod
    def make(cls, folder: Path) -> Place:
        place = cls(folder)
        tiny_release.shop(place.data)
        tiny_release.bundle(place.current, "1", SEES_ALL)
        tiny_release.bundle(place.good, "2", SEES_ALL)
        tiny_release.bundle(place.worse, "2", SEES_RED_AND_LIGHT)
        return place

    def options(self) -> list[str]:
        return ["--data", str(self.data), "--suite", str(self.suite)]

    def release(self, candidate: Path, *more: str) -> Result:
        arguments = [str(candidate), "--current", str(self.current), *self.options(), *more]
        return CliRunner().invoke(release, arguments)

    def compare(self, a: object, b: object, *more: str) -> Result:
        return CliRunner().invoke(compare, [str(a), str(b), *self.options(), *more])

    def shrink(self, products: int = 8) -> None:
        """Fewer pictures, where the ImageNet backbone looks at them."""
        for name in ("catalogue.csv", "queries.csv"):
            path = self.data / "shop" / name
            path.write_text("".join(path.read_text().splitlines(keepends=True)[: products + 1]))

    def version(self) -> str:
        return Bundle.load(self.current).version


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    Place.make(folder)
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Place:
    return Place(Path(shutil.copytree(original, tmp_path / "place")))


def refused(result: Result, kind: type[MagpieError], *words: str) -> str:
    assert isinstance(result.exception, kind), result.output
    message = str(result.exception)
    for word in words:
        assert word in message
    return message


def test_compare_tells_which_queries_changed_sides(place: Place, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = place.compare(place.current, place.worse, "--json", "--html", str(page))
    assert result.exit_code == 0, result.exception
    answer = json.loads(result.stdout)
    assert "`unprotected` is left out" in result.stderr
    (shop,) = answer["sets"]
    recall = shop["metrics"][0]
    assert (recall["metric"], recall["queries"], recall["verdict"]) == ("recall@1", 40, "worse")
    assert recall["mean_a"] == 1.0
    lost = {flip["query"] for flip in shop["flips"]}
    assert len(lost) == round(40 * (1 - recall["mean_b"]))
    assert all((place.data / query).is_file() for query in lost)
    assert sum(change["only_a"] for change in shop["categories"]) == len(lost)
    html = page.read_text()
    assert html.count("data:image/jpeg") == min(len(lost), 48)
    assert "http" not in html.replace("http-equiv", "")
    assert "Lost: only A has these right" in html


def test_compare_on_a_terminal(place: Place) -> None:
    result = place.compare(place.current, place.good)
    assert result.exit_code == 0, result.exception
    assert "not shown" in result.stdout
    assert "better" not in result.stdout
    place.shrink()
    result = place.compare("imagenet", place.current, "--metric", "recall@5", "--set", "shop")
    assert result.exit_code == 0, result.exception
    assert "recall@5" in result.stdout
    assert "ndcg@10" not in result.stdout
    refused(place.compare(place.current, place.good, "--set", "shp"), InvalidArgument, "no set `shp`", "shop")
    refused(place.compare(place.current, "nowhere"), FailedPrecondition, "nowhere")


def test_a_good_bundle_takes_the_place(place: Place) -> None:
    result = place.release(place.good)
    assert result.exit_code == 0, result.exception
    record = verify_release(place.current)
    assert (record.bundle, record.against, record.allowed_worse) == ("tiny@2", "tiny@1", None)
    assert record.earlier == ("tiny@1",)
    figures = record.comparison["sets"][0]["metrics"][0]
    assert (figures["metric"], figures["mean_a"], figures["mean_b"]) == ("recall@1", 1.0, 1.0)
    assert verify_release(place.good) == record
    # And back, and again, and never the same id twice.
    undo = CliRunner().invoke(release, ["--rollback", "--current", str(place.current), "--json"])
    assert json.loads(undo.stdout) == {"current": "tiny@1", "previous": "tiny@2"}
    refused(place.release(place.good), FailedPrecondition, "tiny@2 was in place", "--version 3")
    assert place.release(place.good, "--version", "3").exit_code == 0
    assert verify_release(place.current).earlier == ("tiny@2", "tiny@1")


def test_a_worse_bundle_is_refused_and_nothing_changes(place: Place) -> None:
    before = {path: path.read_bytes() for path in place.worse.iterdir()}
    result = place.release(place.worse, "--json")
    message = refused(result, FailedPrecondition, "shop: recall@1 1.000 ->", "significantly worse")
    assert "--allow-worse" in message
    answer = json.loads(result.stdout)
    assert answer["released"] is False
    assert len(answer["losses"]) == 2
    assert place.version() == "1"
    assert {path: path.read_bytes() for path in place.worse.iterdir()} == before
    assert sorted(path.name for path in place.current.parent.iterdir()) == ["default"]


def test_a_worse_bundle_passes_with_a_reason_that_is_recorded(place: Place) -> None:
    refused(place.release(place.worse, "--allow-worse", "fine"), InvalidArgument, "--allow-worse")
    result = place.release(place.worse, "--allow-worse", "half the size, for old phones")
    assert result.exit_code == 0, result.exception
    allowed = verify_release(place.current).allowed_worse
    assert allowed is not None
    assert allowed["reason"] == "half the size, for old phones"
    assert "significantly worse" in allowed["losses"][0]


def test_a_dry_run_writes_nothing(place: Place) -> None:
    result = place.release(place.good, "--dry-run", "--version", "7")
    assert result.exit_code == 0, result.exception
    assert "tiny@7 would be released" in result.stderr
    assert not (place.good / "release.json").exists()
    assert Bundle.load(place.good).version == "2"
    assert place.version() == "1"


def drop_data(place: Place) -> None:
    shutil.rmtree(place.data / "shop")


def same_version(place: Place) -> None:
    shutil.copy(place.current / "bundle.json", place.good / "bundle.json")


def spoil_model(place: Place) -> None:
    (place.good / "embedder.onnx").write_bytes(b"")


def customer_in_place(place: Place) -> None:
    (place.current / "customers" / "acme").mkdir(parents=True)
    (place.current / "customers" / "acme" / "ranking.json").write_text("{}")


def take_away(place: Place) -> None:
    shutil.rmtree(place.current)
    place.shrink()


@pytest.mark.parametrize(
    ("spoil", "kind", "words", "way_out"),
    [
        (same_version, FailedPrecondition, ["tiny@1 is in place", "--version 2"], ["--version", "2"]),
        (
            customer_in_place,
            FailedPrecondition,
            ["acme", "--drop-customer acme"],
            ["--drop-customer", "acme"],
        ),
        (take_away, NotFound, ["--first", "ImageNet"], ["--first"]),
        (spoil_model, FailedPrecondition, ["is not whole", "embedder.onnx has SHA-256"], None),
        (drop_data, FailedPrecondition, ["there is no", "--skip-set shop"], None),
    ],
)
def test_refusals_name_the_way_out(
    place: Place,
    spoil: Callable[[Place], None],
    kind: type[MagpieError],
    words: list[str],
    way_out: list[str] | None,
) -> None:
    spoil(place)
    refused(place.release(place.good), kind, *words)
    if way_out:
        result = place.release(place.good, *way_out)
        assert result.exit_code == 0, result.exception
        verify_release(place.current)


def test_sets_that_are_not_here_are_skipped_by_name_only(place: Place) -> None:
    more = '\n[[set]]\nname = "far"\nqueries = { data = "far/catalogue.csv" }\n'
    place.suite.write_text(place.suite.read_text() + more)
    refused(place.release(place.good), FailedPrecondition, "`far` is left out", "--skip-set far")
    refused(place.release(place.good, "--skip-set", "fr"), InvalidArgument, "did you mean `far`")
    both = place.release(place.good, "--skip-set", "far", "--skip-set", "shop")
    refused(both, InvalidArgument, "no protected set is left")
    assert place.release(place.good, "--skip-set", "far").exit_code == 0
    assert verify_release(place.current).skipped_sets == ("far",)


def test_a_detector_that_did_not_change_is_not_measured(place: Place) -> None:
    more = '\n[[boxes]]\nname = "nowhere"\nboxes = { data = "nowhere" }\n'
    place.suite.write_text(place.suite.read_text() + more)
    result = place.release(place.good, "--dry-run")
    assert result.exit_code == 0, result.exception
    tiny_release.put_detector(place.good, np.array([[0.1, 0.1, 0.5, 0.5]]), np.array([[0.7]]))
    refused(place.release(place.good, "--dry-run"), FailedPrecondition, "nowhere", "not on this machine")


def test_a_killed_release_is_cleared_up_by_the_next(place: Place) -> None:
    place.current.rename(place.current.with_name("default.previous"))  # killed between the two renames
    refused(place.release(place.good, "--dry-run"), FailedPrecondition, "--recover")
    result = CliRunner().invoke(release, ["--recover", "--current", str(place.current)])
    assert "is back as" in result.stderr
    assert place.version() == "1"
    place.current.rename(place.current.with_name("default.previous"))
    assert place.release(place.good).exit_code == 0
    assert place.version() == "2"


@pytest.mark.parametrize("arguments", [[], ["--rollback", "--recover"], [".", "--rollback"]])
def test_one_thing_at_a_time(arguments: list[str]) -> None:
    assert CliRunner().invoke(release, arguments).exit_code == 2
