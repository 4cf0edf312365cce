"""The default bundle's detector: half an hour on one idle core."""

from __future__ import annotations

from training.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe()
