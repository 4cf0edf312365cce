from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import torch

from magpie.vision.preprocess import Letterbox
from training.datasets.composites import CompositeSource, rendered_cutouts
from training.detection.anchors import anchors
from training.detection.batches import DetectorBatches
from training.detection.box_coding import corners
from training.detection.matching import iou_and_cover
from training.detection.pool import Pool
from training.detection.task import DetectorTask
from training.detection.teacher import teacher_anchors
from training.models.detector import Detector
from training.recipes.detector_default import RECIPE

SMALL = replace(RECIPE, steps=3, batch_size=4)


def drawn_pools():
    source = CompositeSource([], rendered_cutouts(6, size=96), [])
    images = [source.draw(np.random.default_rng(seed)) for seed in range(6)]
    pool = Pool.build(images, Letterbox(320, 127))
    return dict.fromkeys(asdict(SMALL.shares), pool)


def test_a_batch_depends_on_seed_epoch_and_step_alone():
    pools = drawn_pools()
    straight = list(DetectorBatches(pools, SMALL).epoch(2))
    resumed = list(DetectorBatches(pools, SMALL).epoch(2, first_step=1))
    assert len(straight) == 3
    assert len(resumed) == 2
    for first, again in zip(straight[1:], resumed, strict=True):
        assert torch.equal(first.pictures, again.pictures)
        assert torch.equal(first.targets, again.targets)
        assert torch.equal(first.boxes, again.boxes)
    other = next(DetectorBatches(pools, replace(SMALL, seed=9)).epoch(2))
    assert not torch.equal(straight[0].pictures, other.pictures)


def test_anchors_that_must_fire_lie_on_their_box():
    priors = corners(torch.from_numpy(anchors()))
    fired = 0
    for batch in DetectorBatches(drawn_pools(), SMALL).epoch(0):
        assert batch.pictures.shape == (4, 3, 320, 320)
        for targets, boxes in zip(batch.targets, batch.boxes, strict=True):
            rows = (targets == 1).nonzero()[:, 0]
            fired += len(rows)
            overlaps = [float(iou_and_cover(priors[r : r + 1], boxes[r : r + 1])[0]) for r in rows]
            # A box that no anchor fits well still has its best one, below the usual threshold.
            assert all(overlap > 0.05 for overlap in overlaps)
            assert sum(overlap >= 0.5 for overlap in overlaps) >= len(overlaps) - 5
    assert fired > 20


def test_a_few_steps_on_one_batch_lower_both_losses():
    torch.manual_seed(0)
    batch = next(DetectorBatches(drawn_pools(), replace(SMALL, batch_size=2)).epoch(0))
    task = DetectorTask(Detector(frozen_stages=4), box_weight=1.0).train()
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(15):
        terms = task(batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        history.append({name: term.item() for name, term in terms.items()})
    assert history[-1]["score"] < 0.6 * history[0]["score"]
    assert history[-1]["box"] < 0.8 * history[0]["box"]


def test_the_teachers_anchors_are_those_of_its_model():
    rows = teacher_anchors()
    assert rows.shape == (1917, 4)
    assert rows[0].tolist() == [np.float32(0.5 / 19)] * 2 + [np.float32(0.1)] * 2
    # The second shape of the first layer: scale 0.2, twice as wide as high.
    assert np.allclose(rows[1, 2:], [0.2 / math.sqrt(2), 0.2 * math.sqrt(2)])
    # The last: one cell, scale between 0.95 and 1.
    assert np.allclose(rows[-1], [0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95)])
