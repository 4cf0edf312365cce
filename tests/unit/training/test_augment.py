"""Augmentation hangs on its generator, and turned off it is serving's own resize."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from magpie.vision.preprocess import Letterbox
from training.datasets.augment import Augment

LETTERBOX = Letterbox(48, 127)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))
OFF = Augment(
    crop=0, shrinks=0, quarter_turns=0, rotates=0, flip=0, background=0, heap=0,
    light=0, white_balance=0, shadow=0, blur=0, motion=0, noise=0, covers=0, jpeg=0,
)  # fmt: skip
FRAME = ("crop", "shrinks", "rotates", "flip", "quarter_turns")
LENS = ("light", "white_balance", "shadow", "blur", "motion", "noise", "covers", "jpeg")


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_probability_is_off_in_off() -> None:
    probabilities = {f.name for f in fields(Augment) if isinstance(getattr(OFF, f.name), int | float)}
    assert {name for name in probabilities if getattr(OFF, name)} == {"rotation", "strength"}


def test_off_is_what_serving_does() -> None:
    square = OFF.frame(IMAGE, LETTERBOX, rng(1))
    assert np.array_equal(square, LETTERBOX(IMAGE))
    assert np.array_equal(OFF.photograph(square[None], rng(1))[0], square)


@pytest.mark.parametrize("name", FRAME)
def test_each_change_of_the_frame_changes_and_repeats(name: str) -> None:
    augment = replace(OFF, **{name: 1.0})
    first, again, *others = (augment.frame(IMAGE, LETTERBOX, rng(seed)) for seed in (1, 1, 2, 3, 4, 5))
    assert first.shape == (48, 48, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, LETTERBOX(IMAGE))
    assert (name == "flip") == all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("name", LENS)
def test_each_change_of_the_lens_changes_and_repeats(name: str) -> None:
    squares = np.stack([LETTERBOX(IMAGE)] * 3)
    augment = replace(OFF, **{name: 1.0})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (augment.photograph(squares, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, squares)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])  # each picture by itself


@pytest.mark.parametrize("name", ["background", "heap"])
def test_a_catalogue_picture_gets_another_ground_and_keeps_its_product(name: str) -> None:
    packshot = Image.new("RGB", (60, 60), "white")
    packshot.paste((200, 30, 30), (15, 15, 45, 45))
    augment = replace(OFF, **{name: 1.0})
    square = augment.frame(packshot, LETTERBOX, rng(3), catalogue=True)
    white = (square.min(axis=2) >= 240).mean()
    red = (square[..., 0] > 2.5 * square[..., 1]).mean()
    assert white < 0.3
    assert red > 0.08
    assert np.array_equal(square, augment.frame(packshot, LETTERBOX, rng(3), catalogue=True))
    assert np.array_equal(
        augment.frame(packshot, LETTERBOX, rng(3)), LETTERBOX(packshot)
    )  # photos keep theirs
