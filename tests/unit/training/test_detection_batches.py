from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from magpie.vision.preprocess import Letterbox
from training.datasets.composites import CompositeSource, rendered_cutouts
from training.detection.batches import DetectionBatches
from training.detection.box_coding import corners
from training.detection.matching import iou_and_cover, match
from training.detection.pool import Pool
from training.detection.proposals import selective_search
from training.detection.recipe import Batch, DetectionRecipe, Model
from training.detection.teacher import teacher_anchors

SMALL = DetectionRecipe(batch=Batch(pictures=4, steps=3), model=Model(architecture="ssd", size=160))


@pytest.fixture(scope="module")
def pools():
    source = CompositeSource([], rendered_cutouts(6, size=96), [])
    images = [source.draw(np.random.default_rng(seed)) for seed in range(6)]
    return [Pool.build(half, Letterbox(160, 127)) for half in (images[:3], images[3:])]


def batches(pools, recipe=SMALL, **options):
    return DetectionBatches(pools, [1.0, 3.0], recipe, **options)


def test_a_batch_depends_on_seed_epoch_and_step_alone(pools):
    straight = list(batches(pools).epoch(2))
    resumed = list(batches(pools).epoch(2, first_step=1))
    assert len(straight) == 3
    assert len(resumed) == 2
    for first, again in zip(straight[1:], resumed, strict=True):
        assert torch.equal(first.pictures, again.pictures)
        for one, other in zip(first.targets, again.targets, strict=True):
            assert all(torch.equal(part, same) for part, same in zip(one, other, strict=True))
    other = next(batches(pools, replace(SMALL, seed=9)).epoch(2))
    assert not torch.equal(straight[0].pictures, other.pictures)


def test_anchors_that_must_fire_lie_on_their_box(pools):
    priors = corners(SMALL.model.build(1, pretrained=False).head.anchors)
    fired = 0
    for batch in batches(pools).epoch(0):
        assert batch.pictures.shape == (4, 3, 160, 160)
        for of_one in batch.targets:
            matched = match(priors, of_one.boxes, of_one.ignored)
            rows = (matched.target == 1).nonzero()[:, 0]
            fired += len(rows)
            overlap = iou_and_cover(priors, of_one.boxes)[0]
            # A box that no anchor fits well still has its best one, below the usual threshold.
            weak = [row for row in rows.tolist() if overlap[row, matched.box[row]] < 0.5]
            assert len(weak) <= len(of_one.boxes)
            assert set(matched.box[rows].tolist()) == set(range(len(of_one.boxes)))
    assert fired > 20


def test_proposals_are_of_the_picture_as_it_is_augmented(pools):
    seen = []

    def propose(pixels):
        seen.append(pixels)
        return selective_search(pixels)

    batch = next(batches(pools, propose=propose).epoch(0))
    for pixels, picture, of_one in zip(seen, batch.pictures, batch.targets, strict=True):
        assert np.array_equal(pixels, np.rint(picture.numpy() * 128 + 127).transpose(1, 2, 0))
        assert len(of_one.proposals) > 1
    assert all(len(of_one.proposals) == 0 for of_one in next(batches(pools).epoch(0)).targets)


def test_the_teachers_anchors_are_those_of_its_model():
    rows = teacher_anchors()
    assert rows.shape == (1917, 4)
    assert rows[0].tolist() == [np.float32(0.5 / 19)] * 2 + [np.float32(0.1)] * 2
    # The second shape of the first layer: scale 0.2, twice as wide as high.
    assert np.allclose(rows[1, 2:], [0.2 / math.sqrt(2), 0.2 * math.sqrt(2)])
    # The last: one cell, scale between 0.95 and 1.
    assert np.allclose(rows[-1], [0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95)])
