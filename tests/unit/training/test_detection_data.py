from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from magpie.synthesis.products import render
from magpie.vision.preprocess import Letterbox
from training.datasets.composites import CompositeSource, photographed_cutouts, rendered_cutouts
from training.detection.augment import Augment, mosaic
from training.detection.labelled_image import LabelledImage
from training.detection.pool import Pool, Scene

NONE = np.zeros((0, 4), np.float32)


def marked(x0=40, y0=60, x1=100, y1=140, size=160):
    """A grey square with one red rectangle, and the rectangle's box."""
    pixels = np.full((size, size, 3), 90, np.uint8)
    pixels[y0:y1, x0:x1] = (230, 20, 20)
    return pixels, np.array([(x0, y0, x1, y1)], np.float32) / size


def red_extent(pixels):
    red = pixels[..., 0].astype(int) - pixels[..., 1] > 60
    ys, xs = np.nonzero(red)
    size = pixels.shape[0]
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32) / size


def scene(pixels, boxes, ignored=NONE):
    return Scene(pixels, boxes, np.arange(len(boxes)), ignored)


@pytest.mark.parametrize("seed", range(20))
def test_augmented_boxes_follow_the_pixels(seed):
    pixels, boxes = marked()
    augment = Augment(turn=0.8, squeeze=0.3, contrast=0.1)
    changed = augment(np.random.default_rng(seed), scene(pixels, boxes), 192)
    assert changed.pixels.shape == (192, 192, 3)
    assert len(changed.boxes) + len(changed.ignored) == 1  # large and central: never wholly out of the frame
    found = np.concatenate([changed.boxes, changed.ignored])[0]
    assert found == pytest.approx(red_extent(changed.pixels), abs=0.02)


def test_quarter_turns_carry_boxes_along():
    pixels, boxes = marked()
    for seed in range(8):
        changed = Augment(window=(1, 1), turn=1.0, mirror=0, light=0, colour=0, contrast=0)(
            np.random.default_rng(seed), scene(pixels, boxes), 160
        )
        assert changed.boxes[0] == pytest.approx(red_extent(changed.pixels), abs=0.01)
        assert not np.allclose(changed.boxes, boxes, atol=0.01)


def test_a_box_mostly_cut_off_is_no_longer_to_be_found():
    pixels, boxes = marked(0, 0, 20, 20)
    kinds = set()
    for seed in range(60):
        changed = Augment(window=(0.6, 0.6))(np.random.default_rng(seed), scene(pixels, boxes), 160)
        kinds.add((len(changed.boxes), len(changed.ignored)))
    assert kinds == {(1, 0), (0, 1), (0, 0)}


def test_a_mosaic_has_each_picture_in_its_quarter_with_its_label():
    colours = [(230, 20, 20), (20, 230, 20), (20, 20, 230), (230, 230, 20)]
    scenes = []
    for label, colour in enumerate(colours):
        pixels = np.full((120, 120, 3), 90, np.uint8)
        pixels[10:110, 10:110] = colour
        box = np.array([(10, 10, 110, 110)], np.float32) / 120
        scenes.append(Scene(pixels, box, np.array([label]), NONE))
    for seed in range(10):
        made = mosaic(np.random.default_rng(seed), scenes, 200)
        assert made.pixels.shape == (200, 200, 3)
        for box, label in zip(made.boxes, made.labels, strict=True):
            x, y = ((box[:2] + box[2:]) / 2 * 200).astype(int)
            assert np.abs(made.pixels[y, x].astype(int) - colours[label]).max() < 3
            assert (x > 100) == (label % 2 == 1) or abs(int(x) - 100) < 60
        assert len(made.boxes) + len(made.ignored) == 4


def test_the_pool_letterboxes_pictures_and_boxes_alike_and_comes_back_from_disk(tmp_path):
    wide = np.full((80, 160, 3), 90, np.uint8)
    wide[20:60, 40:120] = (230, 20, 20)
    box = np.array([(0.25, 0.25, 0.75, 0.75)], np.float32)
    images = [
        LabelledImage(Image.fromarray(wide), box, NONE, np.array([4])),
        LabelledImage.of_products(Image.fromarray(wide), NONE, box),
    ]
    assert Pool.load(tmp_path) is None
    Pool.build(images, Letterbox(96, 127)).save(tmp_path)
    pool = Pool.load(tmp_path)
    assert pool is not None
    assert pool.boxes[0][0] == pytest.approx(red_extent(pool.pixels[0]), abs=0.015)
    assert [len(rows) for rows in pool.boxes] == [1, 0]
    assert [rows.tolist() for rows in pool.labels] == [[4], []]
    assert [len(rows) for rows in pool.ignored] == [0, 1]


def test_composites_are_of_the_given_products_and_depend_on_the_generator_alone(tmp_path):
    sheet = Image.new("RGB", (128, 128), "white")
    product = render("jar", 3, 128)
    sheet.paste(product, (0, 0), product)
    sheet.save(tmp_path / "white.png")
    Image.new("RGB", (64, 64), (90, 120, 60)).save(tmp_path / "green.png")
    cutouts = photographed_cutouts([tmp_path / "white.png", tmp_path / "green.png"])
    assert len(cutouts) == 1  # the other has no white ground
    source = CompositeSource(cutouts, rendered_cutouts(4, size=96), [tmp_path / "green.png"])
    for seed in range(6):
        first, again = (source.draw(np.random.default_rng(seed)) for _ in range(2))
        assert first.image.tobytes() == again.image.tobytes()
        assert 1 <= len(first.boxes) + len(first.ignored) <= 5
        assert (first.boxes[:, 2:] > first.boxes[:, :2]).all()
