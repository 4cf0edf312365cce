"""The default bundle's detector: forty minutes on one core."""

from __future__ import annotations

from training.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe()
