"""A detector's errors as pictures: the photo with what is there, what was found, and the error itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from training.detection.evaluate import SetResult
from training.detection.failures import MEANING, Failure, Kind

LONGER_SIDE = 288  # px
SHOWN = 24  # of a kind, on a page
# Okabe and Ito's colours, told apart by the colour-blind.
TRUE, FOUND, ERROR = (0, 158, 115), (86, 180, 233), (213, 94, 0)


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
    image = result.set.images[failure.photo].image.convert("RGB")
    scale = LONGER_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(image)

    def rectangle(box: Sequence[float], colour: tuple[int, int, int], width: int) -> None:
        corners = (np.array(box) * np.array(size * 2)).round().astype(int)
        x0, y0 = np.clip(corners[:2], 0, np.array(size) - 1)
        x1, y1 = np.clip(corners[2:] - 1, (x0, y0), np.array(size) - 1)
        # A dark line beside keeps the box visible on a ground of its own colour.
        pen.rectangle((int(x0) - 1, int(y0) - 1, int(x1) + 1, int(y1) + 1), outline=(20, 20, 20))
        pen.rectangle((int(x0), int(y0), int(x1), int(y1)), outline=colour, width=width)

    photo = result.shown[failure.photo]
    for box in photo.truth:
        rectangle(box, TRUE, 2)
    for box in photo.found:
        rectangle(box, FOUND, 1)
    rectangle(failure.box, ERROR, 3)
    return image


def _picture(failure: Failure, result: SetResult) -> FailurePicture:
    buffer = io.BytesIO()
    drawn(failure, result).save(buffer, "JPEG", quality=80)
    return FailurePicture(buffer.getvalue(), _words(failure, result), failure.photo)


def _words(failure: Failure, result: SetResult) -> str:
    name = result.set.taxonomy[failure.label]
    if failure.kind == "missed":
        return f"{name}, {failure.badness:.1%} of the photo"
    if failure.kind == "confused" and failure.truth is not None:
        there = result.shown[failure.photo].truth_labels[failure.truth]
        return f"{name} {failure.badness:.2f}, is {result.set.taxonomy[there]}"
    return f"{name} {failure.badness:.2f}"
