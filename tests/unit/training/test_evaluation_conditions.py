"""What conditions do to a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets.example import Example
from training.evaluation.conditions import CONDITIONS, OCCLUDED, Condition, under

BY_NAME = {condition.name: condition for condition in CONDITIONS}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(30, 256, (12, 16, 3), np.uint8))
    return coarse.resize((160, 120), Image.Resampling.NEAREST)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: c.name)
def test_the_same_picture_always_comes_out_the_same_and_changed(
    condition: Condition, picture: Image.Image
) -> None:
    before = np.asarray(picture).copy()
    once, again = condition.apply(picture), condition.apply(picture.copy())
    np.testing.assert_array_equal(np.asarray(once), np.asarray(again))
    np.testing.assert_array_equal(np.asarray(picture), before)
    assert once.mode == "RGB"
    assert not np.array_equal(np.asarray(once), before)
    turned = condition.name in ("rotation 90", "rotation 270")
    assert once.size == ((120, 160) if turned else (160, 120))
    assert condition.strength


def test_rotations_are_quarter_turns(picture: Image.Image) -> None:
    pixels = np.asarray(picture)
    for turns in (1, 2, 3):
        turned = np.asarray(BY_NAME[f"rotation {90 * turns}"].apply(picture))
        np.testing.assert_array_equal(turned, np.rot90(pixels, turns))


def test_blur_takes_detail_and_keeps_light(picture: Image.Image) -> None:
    before, after = np.asarray(picture, float), np.asarray(BY_NAME["blur"].apply(picture), float)
    assert np.abs(np.diff(after, axis=1)).max() < 0.7 * np.abs(np.diff(before, axis=1)).max()
    assert after.mean() == pytest.approx(before.mean(), abs=1)


def test_darkness_keeps_the_order_of_light(picture: Image.Image) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2))
    dark = np.asarray(BY_NAME["darkness"].apply(ramp))[0, :, 0].astype(int)
    assert (np.diff(dark) >= 0).all()
    assert dark[128] == 36
    assert dark[255] == 102


def test_jpeg_leaves_the_picture_recognisable(picture: Image.Image) -> None:
    off = np.abs(np.asarray(BY_NAME["jpeg"].apply(picture), float) - np.asarray(picture, float))
    assert 2 < off.mean() < 40


def test_occlusion_covers_its_share_in_one_rectangle(picture: Image.Image) -> None:
    white = Image.new("RGB", (200, 100), "white")
    covered = (np.asarray(BY_NAME["occlusion"].apply(white)) == 127).all(axis=2)
    assert covered.mean() == pytest.approx(OCCLUDED, abs=0.01)
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    assert covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_an_example_suffers_when_it_is_loaded(tmp_path: Path, picture: Image.Image) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    example = Example(path, "set", "x", {"category": "c"}, source="s")
    turned = under(BY_NAME["rotation 180"], example)
    assert (turned.path, turned.product, turned.labels, turned.source) == (path, "x", {"category": "c"}, "s")
    np.testing.assert_array_equal(np.asarray(turned.load()), np.asarray(picture)[::-1, ::-1])
    assert under(None, example) is example
