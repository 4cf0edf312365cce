"""Options of the commands that measure detectors on photos with boxes."""

from __future__ import annotations

import math
from pathlib import Path

import click

boxes_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="MAGPIE_DATA",
    show_envvar=True,
    help="Folder of the data sets that --test names.",
)
test_option = click.option(
    "--test",
    "tests",
    multiple=True,
    metavar="PATH[:SPLIT,...]",
    help="Photos with boxes in --data: a folder or file of COCO, or a folder of VOC. May be repeated.",
)
not_products_option = click.option(
    "--not-products", is_flag=True, help="People, animals, vehicles and furniture may be found or not."
)
ignore_option = click.option(
    "--ignore", "ignored", multiple=True, metavar="CATEGORY", help="May be found or not; may be repeated."
)
class_agnostic_option = click.option(
    "--class-agnostic", is_flag=True, help="Judge places alone, all classes taken as one."
)
teacher_option = click.option(
    "--teacher",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="ONNX",
    help="A labelling detector to stand beside; all are then judged class-agnostic.",
)


def number(value: float) -> str:
    """Three digits, and a dash where nothing of the kind is there."""
    return "-" if math.isnan(value) else f"{value:.3f}"
