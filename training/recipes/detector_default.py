"""The default bundle's detector: thirty to forty minutes on one core."""

from __future__ import annotations

from training.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe()
