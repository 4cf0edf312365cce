"""The suspects as a page of pictures, the surest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets.boxed_photo import BoxedPhoto
from training.detection.completeness import Suspect
from training.detection.outlined import ERROR, TRUE, jpeg, outlined
from training.detection.pages import environment

SHOWN = 100  # pictures


@dataclass(frozen=True)
class SuspectPicture:
    """A photo with its suspects."""

    jpeg: bytes
    name: str
    suspects: Sequence[Suspect]


def render(
    data: str, photos: Sequence[BoxedPhoto], found: Sequence[Suspect], model: str, shown: int = SHOWN
) -> str:
    """HTML with all pictures inside; photos whose surest suspect is surest come first."""
    of_photo: dict[int, list[Suspect]] = {}
    for suspect in found:
        of_photo.setdefault(suspect.photo, []).append(suspect)
    pictures = [_picture(photos[row], of_one) for row, of_one in list(of_photo.items())[:shown]]
    return (
        environment()
        .get_template("completeness.html.j2")
        .render(
            data=data,
            model=model,
            photos=len(photos),
            boxes=sum(len(photo.boxes) for photo in photos),
            suspects=len(found),
            affected=len(of_photo),
            pictures=pictures,
            colours={"annotated": TRUE, "suspect": ERROR},
        )
    )


def write(path: Path, page: str) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _picture(photo: BoxedPhoto, of_one: Sequence[Suspect]) -> SuspectPicture:
    outlines = [
        *((box, TRUE, 2) for box in photo.boxes.tolist()),
        *((suspect.box, ERROR, 3) for suspect in of_one),
    ]
    return SuspectPicture(jpeg(outlined(photo.load(), outlines)), photo.name, of_one)
