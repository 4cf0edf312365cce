"""Configs that a bundle brings: written, read, versioned, and refused when they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.ranking.bundled_configs import bundled_configs, path_of, write
from magpie.ranking.config import checksum, validate
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig

SPACES = ("identity", "category")


def config(**weights: float) -> RankingConfig:
    return RankingConfig(fusion=Fusion(weights=weights))


def test_what_is_written_is_read_with_its_version_and_checksum(tmp_path: Path) -> None:
    assert bundled_configs(tmp_path, SPACES, calibrated=False) == {}
    first = write(tmp_path, "shop", config(identity=1), SPACES, calibrated=False)
    write(tmp_path, "other-shop", config(category=1), SPACES, calibrated=False)
    assert (first.version, first.checksum) == (1, checksum(validate(config(identity=1), SPACES)))
    read = bundled_configs(tmp_path, SPACES, calibrated=False)
    assert set(read) == {"shop", "other-shop"}
    assert read["shop"] == first


def test_the_version_grows_only_if_the_rules_change(tmp_path: Path) -> None:
    for weight, version in ((1, 1), (1, 1), (2, 2), (1, 3)):
        put = write(tmp_path, "shop", config(identity=weight, category=1), SPACES, calibrated=False)
        assert put.version == version
    assert [path.name for path in (tmp_path / "customers" / "shop").iterdir()] == ["ranking.json"]


def test_a_config_that_the_bundle_cannot_serve_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such space"):
        write(tmp_path, "shop", config(colour=1), SPACES, calibrated=False)
    with pytest.raises(FailedPrecondition, match="no calibration"):
        write(tmp_path, "shop", RankingConfig(min_probability=0.5), SPACES, calibrated=False)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, "shop", RankingConfig(min_probability=0.5), SPACES, calibrated=True)
    with pytest.raises(FailedPrecondition, match=r"shop/ranking\.json.*no calibration"):
        bundled_configs(tmp_path, SPACES, calibrated=False)


@pytest.mark.parametrize("customer", ["", "..", "A", "a/b", "-a"])
def test_a_customer_is_a_name(tmp_path: Path, customer: str) -> None:
    with pytest.raises(InvalidArgument, match="customer"):
        path_of(tmp_path, customer)


def test_a_folder_that_is_no_customer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "shop", config(identity=1), SPACES, calibrated=False)
    (tmp_path / "customers" / "shop").rename(tmp_path / "customers" / "My Shop")
    with pytest.raises(FailedPrecondition, match="'My Shop' is no customer's name"):
        bundled_configs(tmp_path, SPACES, calibrated=False)


def test_a_file_changed_without_its_checksum_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "shop", config(identity=1), SPACES, calibrated=False)
    path = path_of(tmp_path, "shop")
    rules = json.loads(path.read_text())
    rules["group_variants"] = True
    path.write_text(json.dumps(rules))
    with pytest.raises(FailedPrecondition, match=r"shop/ranking\.json has checksum"):
        bundled_configs(tmp_path, SPACES, calibrated=False)


@pytest.mark.parametrize("text", ["", "{", '{"fusoin": {}}', '{"fusion": {"weights": {"colour": 1}}}'])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str) -> None:
    path = path_of(tmp_path, "shop")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(FailedPrecondition, match=r"customers/shop/ranking\.json"):
        bundled_configs(tmp_path, SPACES, calibrated=False)
