"""A space's map as a picture: a dot a picture, coloured by its class."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.evaluation.evaluation import SpaceMap
from training.evaluation.vector_map import VectorMap, radius

# Told apart by those who see colours differently (Okabe and Ito 2008); beyond eight the marker changes.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
MARKERS = ("o", "^", "s")
OTHER = "other"
INK = "#333333"
CLASSES = len(COLOURS) * len(MARKERS)


def map_png(space: SpaceMap) -> bytes:
    """PNG. Placed in an old map, the old one stands at the left and arrows show where classes went."""
    styles = _styles(space.classes)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10}):
        panels = 1 if space.old is None else 2
        figure = Figure(figsize=(6.6 * panels, 5.6), dpi=110, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = np.atleast_1d(figure.subplots(1, panels, sharex=True, sharey=True))
        if space.old is not None:
            _dots(axes[0], space.old, space.classes, styles)
            axes[0].set_title("the earlier run", color=INK)
            axes[1].set_title("this run, placed in it", color=INK)
            _arrows(axes[1], space)
        _dots(axes[-1], space.drawn, space.classes, styles)
        handles, names = axes[-1].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside lower center", ncols=4 * panels, frameon=False, markerscale=2
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def _styles(classes: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Class -> colour, marker; the largest classes first, the smallest share a grey."""
    counts = Counter(classes.values())
    largest = sorted(counts, key=lambda name: (-counts[name], name))
    if len(largest) > CLASSES:
        largest = largest[: CLASSES - 1]
    return {name: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS)]) for i, name in enumerate(largest)}


def _dots(
    axes: Axes, drawn: VectorMap, classes: Mapping[str, str], styles: Mapping[str, tuple[str, str]]
) -> None:
    named = [classes.get(name, OTHER) for name in drawn.names]
    shown = np.array([name if name in styles else OTHER for name in named])
    for name, (colour, marker) in {**styles, OTHER: ("#999999", "x")}.items():
        rows = shown == name
        if rows.any():
            x, y = drawn.xy[rows].T
            width = 0.8 if marker == "x" else 0.25
            axes.scatter(
                x, y, s=14, c=colour, marker=marker, alpha=0.8, linewidths=width,
                edgecolors=None if marker == "x" else "white", label=name,
            )  # fmt: skip
    axes.set(xticks=[], yticks=[], aspect="equal")
    for side in axes.spines.values():
        side.set_color("#cccccc")


def _arrows(axes: Axes, space: SpaceMap) -> None:
    """From where a class's centre was to where it is, where that is further than t-SNE moves by itself."""
    assert space.old is not None
    scale = radius(space.old.xy)
    for movement in space.moved:
        start, end = np.array(movement.centre_from), np.array(movement.centre_to)
        if np.linalg.norm(end - start) / scale > max(2 * movement.by_itself, 0.1):
            axes.annotate(
                "", xy=tuple(end), xytext=tuple(start), zorder=5,
                arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.6, "mutation_scale": 20},
            )  # fmt: skip
