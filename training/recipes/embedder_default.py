"""The default bundle's embedder: forty minutes on one core."""

from __future__ import annotations

from training.embedding.recipe import EmbedderRecipe

RECIPE = EmbedderRecipe()
