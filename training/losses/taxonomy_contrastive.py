"""Contrastive loss over a taxonomy: what shares a finer label must lie nearer.

Supervised contrastive learning (Khosla et al. 2020, arXiv 2004.11362) at every level, as in Zhang et al.
2022 (arXiv 2204.13207): a pair that shares a product is positive at all levels, one that shares only a
department at one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def taxonomy_contrastive(
    embeddings: Tensor, levels: Tensor, weights: Sequence[float], temperature: float = 0.1
) -> Tensor:
    """Weighted mean over the levels.

    `embeddings` (N, D), unit norm; `levels` (L, N) integer labels, one row a level, negative where nobody
    knows; `weights` (L,). A level in which no anchor has a positive counts 0.
    """
    others = ~torch.eye(embeddings.shape[0], dtype=torch.bool, device=embeddings.device)
    logits = (embeddings @ embeddings.T / temperature).masked_fill(~others, -torch.inf)
    log_share = logits.log_softmax(dim=1).masked_fill(~others, 0.0)  # (N, N): log of the pair's share
    total = embeddings.new_zeros(())
    for labels, weight in zip(levels, weights, strict=True):
        positives = (labels[:, None] == labels[None, :]) & others & (labels >= 0)[:, None]
        counts = positives.sum(dim=1)
        anchors = counts > 0
        per_anchor = -(log_share * positives).sum(dim=1)[anchors] / counts[anchors]
        total = total + weight * per_anchor.sum() / max(1, len(per_anchor))
    return total / sum(weights)
