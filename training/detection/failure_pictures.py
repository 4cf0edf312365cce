"""A detector's errors as pictures: the photo with what is there, what was found, and the error itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from training.detection.evaluate import SetResult
from training.detection.failures import MEANING, Failure, Kind
from training.detection.outlined import ERROR, FOUND, TRUE, Outline, jpeg, outlined

SHOWN = 24  # of a kind, on a page


@dataclass(frozen=True)
class FailurePicture:
    """One error, drawn, and what is to be said of it."""

    jpeg: bytes
    words: str
    photo: int  # row of the photo in its set


@dataclass(frozen=True)
class KindOfFailure:
    """The worst of one kind, and how many there are."""

    kind: Kind
    meaning: str
    total: int
    pictures: Sequence[FailurePicture]


def failure_pictures(result: SetResult, shown: int = SHOWN) -> list[KindOfFailure]:
    """Every kind that occurs, each with at most `shown` pictures, the worst first."""
    kinds = []
    for kind, meaning in MEANING.items():
        of_kind = [failure for failure in result.failures if failure.kind == kind]
        if of_kind:
            pictures = [_picture(failure, result) for failure in of_kind[:shown]]
            kinds.append(KindOfFailure(kind, meaning, len(of_kind), pictures))
    return kinds


def drawn(failure: Failure, result: SetResult) -> Image.Image:
    """What is there in TRUE, what was found in FOUND, the error in ERROR and thicker. RGB."""
    photo = result.shown[failure.photo]
    outlines: list[Outline] = [
        *((box, TRUE, 2) for box in photo.truth.tolist()),
        *((box, FOUND, 1) for box in photo.found.tolist()),
        (failure.box, ERROR, 3),
    ]
    return outlined(result.set.images[failure.photo].image, outlines)


def _picture(failure: Failure, result: SetResult) -> FailurePicture:
    return FailurePicture(jpeg(drawn(failure, result)), _words(failure, result), failure.photo)


def _words(failure: Failure, result: SetResult) -> str:
    name = result.set.taxonomy[failure.label]
    if failure.kind == "missed":
        return f"{name}, {failure.badness:.1%} of the photo"
    if failure.kind == "confused" and failure.truth is not None:
        there = result.shown[failure.photo].truth_labels[failure.truth]
        return f"{name} {failure.badness:.2f}, is {result.set.taxonomy[there]}"
    return f"{name} {failure.badness:.2f}"
