"""Fitting R-CNN (Girshick et al. 2014, arXiv 1311.2524): features once, then SVMs and regressions of them.

Positive for a class's SVM are its own boxes alone; negative are proposals that overlap none of them by 0.3.
Proposals between the two, and those in ignored regions, are left out. The SVM begins with a few negatives,
and takes in those that it gets wrong, until there are hardly any (hard-negative mining). Boxes are regressed
from proposals that overlap a truth by 0.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge  # type: ignore[import-untyped]
from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from training.detection.batches import Batch
from training.detection.box_coding import centred, encode
from training.detection.contract import Targets
from training.detection.matching import COVERED, iou_and_cover
from training.models.detectors.rcnn import NEVER, Rcnn, RcnnShape

Rows = NDArray[np.float32]

NEGATIVE_IOU = 0.3  # below it a proposal is a negative
NEAR_IOU = 0.6  # from it on a box can be regressed
NORM = 20.0  # mean length of features, for which the paper's `cost` and `ridge` are
FIRST = 2000  # negatives that an SVM begins with
HARD, EASY = -1.0, -1.2  # margin from which a negative is taken in, and below which one is dropped
POSITIVE_WEIGHT, INTERCEPT_SCALING = 2.0, 10.0  # as in the paper's code
SEEN_AT_ONCE = 64  # proposals


@dataclass(frozen=True)
class Described:
    """Proposals and truths of all pictures, R of them."""

    features: Rows  # (R, 1280)
    label: NDArray[np.int64]  # (R,): class of a truth, -1 for a proposal
    overlap: Rows  # (R, C): best IoU with a truth of each class; 1 where ignored, so that it is no negative
    near: NDArray[np.int64]  # (R,): class of a truth that is near enough to be regressed to, or -1
    offsets: Rows  # (R, 4): to that truth


def fit_rcnn(network: Rcnn, batches: Iterable[Batch], seed: int) -> dict[str, float]:
    """Fit all classes to pictures that carry proposals; how many examples there were. Takes no gradient.

    Features are kept in memory: 5 kB a proposal.
    """
    network.eval()
    described = _together(list(_described(network, batches)))
    length = float(np.linalg.norm(described.features, axis=1).mean())
    scale = np.float32(NORM / max(length, 1e-9))
    np.multiply(described.features, scale, out=described.features)
    hard = 0
    for place in tqdm(range(network.classes), desc="R-CNN: classes"):
        positives = described.features[described.label == place]
        negatives = described.features[(described.label < 0) & (described.overlap[:, place] < NEGATIVE_IOU)]
        if len(positives) and len(negatives):
            weight, bias, used = mined_svm(positives, negatives, network.shape, seed)
            hard += used
            _put(network.svms.weight[place], weight * scale)
            _put(network.svms.bias[place], bias)
        else:
            _put(network.svms.weight[place], 0.0)
            _put(network.svms.bias[place], NEVER)
        near = described.near == place
        if near.any():
            ridge = Ridge(alpha=network.shape.ridge).fit(described.features[near], described.offsets[near])
            _put(network.regressions.weight[4 * place : 4 * place + 4], ridge.coef_ * scale)
            _put(network.regressions.bias[4 * place : 4 * place + 4], ridge.intercept_)
    return {
        "proposals": float((described.label < 0).sum()),
        "truths": float((described.label >= 0).sum()),
        "negatives kept": float(hard),
    }


def mined_svm(
    positives: Rows, negatives: Rows, shape: RcnnShape, seed: int
) -> tuple[NDArray[np.float64], float, int]:
    """Weights, bias and number of negatives of one class's SVM. positives (P, D), negatives (R, D)."""
    kept = np.zeros(len(negatives), bool)
    first = np.random.default_rng(seed).permutation(len(negatives))[:FIRST]
    kept[first] = True
    weight, bias = np.zeros(positives.shape[1]), 0.0
    for _ in range(shape.rounds):
        rows = np.concatenate([positives, negatives[kept]])
        machine = LinearSVC(
            C=shape.cost,
            loss="hinge",
            class_weight={1: POSITIVE_WEIGHT},
            intercept_scaling=INTERCEPT_SCALING,
            random_state=seed,
            max_iter=5000,
        ).fit(rows, np.arange(len(rows)) < len(positives))
        weight, bias = machine.coef_[0], float(machine.intercept_[0])
        margins = negatives @ weight.astype(np.float32) + bias
        missed = (margins > HARD) & ~kept
        if not missed.any():
            break
        kept = kept & (margins >= EASY) | missed
    return weight, bias, int(kept.sum())


def _described(network: Rcnn, batches: Iterable[Batch]) -> Iterator[Described]:
    for batch in batches:
        for picture, of_one in zip(batch.pictures, batch.targets, strict=True):
            boxes = torch.cat([of_one.boxes, of_one.proposals])
            yield _judged(boxes, _features(network, picture[None], boxes), of_one, network.classes)


@torch.no_grad()
def _features(network: Rcnn, picture: Tensor, boxes: Tensor) -> Rows:
    """(1, 3, S, S) and boxes (R, 4) -> (R, 1280)."""
    parts = [network.describe(picture, rows[None]) for rows in torch.split(boxes, SEEN_AT_ONCE)]
    described: Rows = torch.cat(parts).cpu().numpy()
    return described


def _judged(boxes: Tensor, features: Rows, of_one: Targets, classes: int) -> Described:
    truths = len(of_one.boxes)
    label = torch.full((len(boxes),), -1)
    label[:truths] = of_one.labels
    overlap = torch.zeros(len(boxes), classes)
    near, offsets = torch.full((len(boxes),), -1), torch.zeros(len(boxes), 4)
    if truths:
        ious = iou_and_cover(boxes, of_one.boxes)[0].cpu()
        for place in range(classes):
            of_class = of_one.labels.cpu() == place
            if of_class.any():
                overlap[:, place] = ious[:, of_class].max(dim=1).values
        best, which = ious.max(dim=1)
        close = best >= NEAR_IOU
        near[close] = of_one.labels.cpu()[which[close]]
        offsets[close] = encode(of_one.boxes[which[close]], centred(boxes[close])).cpu()
    if len(of_one.ignored):
        covered = iou_and_cover(boxes, of_one.ignored)[1].max(dim=1).values.cpu() >= COVERED
        overlap[covered & (label < 0)] = 1.0
    return Described(features, label.numpy(), overlap.numpy(), near.numpy(), offsets.numpy())


def _together(parts: list[Described]) -> Described:
    return Described(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("features", "label", "overlap", "near", "offsets")
        )
    )


@torch.no_grad()
def _put(where: Tensor, values: object) -> None:
    where.copy_(torch.as_tensor(values))
