"""Contrast of photos with the whole catalogue: a photo must lie nearest to its own product's picture.

InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) over a memory of catalogue vectors, which change slowly
enough to be kept from earlier steps (Wang et al. 2020, arXiv 1912.06798). Training is asked what search is
asked: no class direction stands between a photo and the picture that it should find.

Beside the photos stand mixtures of two products' photos, which must find the same mixture of the pictures, as
products that nobody had to photograph (Proxy Synthesis, Gu et al. 2021, arXiv 2103.15454).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEPT = 0.6  # of a remembered vector, when its picture is seen again, augmented otherwise
MIXED = (0.3, 0.7)  # the share of one product in a mixture


class CatalogueContrast(nn.Module):
    """Remembers a vector of each product, `keys` (P, D): unit norm, or zeros without a catalogue picture."""

    keys: Tensor

    def __init__(self, keys: Tensor, temperature: float) -> None:
        super().__init__()
        self.register_buffer("keys", keys.clone())
        self.temperature = temperature

    def forward(self, vectors: Tensor, items: Tensor, catalogue: Tensor) -> Tensor:
        """Mean cross-entropy of the photos whose item has a catalogue picture, in training also of mixtures.

        0 if there is none.

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
        of_candidate = torch.cat([has, items[passing]])
        right = items[~catalogue][:, None] == of_candidate[None, :]  # (photos, candidates), one True at most
        photos, answer = vectors[~catalogue][right.any(dim=1)], right.nonzero()[:, 1]
        if self.training:
            photos, answer, candidates = _with_mixtures(photos, answer, candidates)
        logits = photos @ candidates.T / self.temperature
        return F.cross_entropy(logits, answer, reduction="sum") / max(1, len(photos))

    def _remember(self, vectors: Tensor, products: Tensor) -> None:
        seen, row = torch.unique(products, return_inverse=True)
        mean = F.normalize(vectors.new_zeros(len(seen), vectors.shape[1]).index_add_(0, row, vectors), dim=1)
        self.keys[seen] = F.normalize(KEPT * self.keys[seen] + (1 - KEPT) * mean, dim=1)


def _with_mixtures(photos: Tensor, answer: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Photos (A, D) that show the rows `answer` (A,) of `candidates` (C, D): as many more of either, mixed.

    Each of the U products that are shown is mixed with another one of them.
    """
    shown, product = torch.unique(answer, return_inverse=True)  # (U,), (A,)
    if len(shown) < 2:
        return photos, answer, candidates
    order = torch.randperm(len(shown), device=photos.device)
    other = torch.empty_like(order).index_copy_(0, order, order.roll(1))  # (U,)
    with_photo = (product[None, :] == other[product][:, None]).float().multinomial(1)[:, 0]  # (A,)
    share = torch.empty((), device=photos.device).uniform_(*MIXED)
    pictures = candidates[shown]
    return (
        torch.cat([photos, F.normalize(share * photos + (1 - share) * photos[with_photo], dim=1)]),
        torch.cat([answer, len(candidates) + product]),
        torch.cat([candidates, F.normalize(share * pictures + (1 - share) * pictures[other], dim=1)]),
    )
