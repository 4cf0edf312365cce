"""Contrast of photos with the whole catalogue: a photo must lie nearest to its own product's picture.

InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) over a memory of catalogue vectors, which change slowly
enough to be kept from earlier steps (Wang et al. 2020, arXiv 1912.06798). Training is asked what search is
asked: no class direction stands between a photo and the picture that it should find.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEPT = 0.6  # of a remembered vector, when its picture is seen again, augmented otherwise


class CatalogueContrast(nn.Module):
    """Remembers a vector of each product, `keys` (P, D): unit norm, or zeros without a catalogue picture."""

    keys: Tensor

    def __init__(self, keys: Tensor, temperature: float) -> None:
        super().__init__()
        self.register_buffer("keys", keys.clone())
        self.temperature = temperature

    def forward(self, vectors: Tensor, items: Tensor, catalogue: Tensor) -> Tensor:
        """Mean cross-entropy of the photos whose item has a catalogue picture; 0 if there is none.

        `vectors` (N, D), unit norm; `items` (N,): products below P, others (such as a twin in other colours)
        above, whose catalogue pictures count in this batch alone; `catalogue` bool (N,): False for photos.
        """
        products = len(self.keys)
        known = catalogue & (items < products)
        passing = catalogue & (items >= products)
        if self.training:
            self._remember(vectors[known].detach(), items[known])
        has = self.keys.any(dim=1).nonzero().flatten()
        candidates = torch.cat([self.keys[has], vectors[passing]])
        right = (
            items[~catalogue][:, None] == torch.cat([has, items[passing]])[None, :]
        )  # (photos, candidates)
        has_answer = right.any(dim=1)
        photos = vectors[~catalogue][has_answer]
        log_share = (photos @ candidates.T / self.temperature).log_softmax(dim=1)
        return -log_share[right[has_answer]].sum() / max(1, len(photos))

    def _remember(self, vectors: Tensor, products: Tensor) -> None:
        seen, row = torch.unique(products, return_inverse=True)
        mean = F.normalize(vectors.new_zeros(len(seen), vectors.shape[1]).index_add_(0, row, vectors), dim=1)
        self.keys[seen] = F.normalize(KEPT * self.keys[seen] + (1 - KEPT) * mean, dim=1)
