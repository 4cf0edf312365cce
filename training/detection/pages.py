"""Templates of the detectors' pages, which hold all their pictures."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import jinja2
from markupsafe import Markup


def environment() -> jinja2.Environment:
    """With the filters `figure` (three digits), `jpeg` (bytes as a URI) and `colour` (RGB)."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["figure"] = lambda value: "" if math.isnan(value) else f"{value:.3f}"
    made.filters["jpeg"] = _uri
    made.filters["colour"] = lambda rgb: "#{:02x}{:02x}{:02x}".format(*rgb)
    return made


def _uri(jpeg: bytes) -> Markup:
    return Markup(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}")  # noqa: S704 - our own bytes
