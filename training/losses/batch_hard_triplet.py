"""Batch-hard triplet loss with a soft margin: Hermans et al. 2017 (arXiv 1703.07737), equation 5."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def batch_hard_triplet(embeddings: Tensor, labels: Tensor, scale: float = 10.0) -> Tensor:
    """Pull each anchor's farthest positive nearer than its nearest negative.

    `embeddings` (N, D), unit norm; `labels` (N,) integers. Distances are Euclidean, in [0, 2]; `scale`
    sharpens the soft margin log(1 + exp(scale * (positive - negative))). The mean over the anchors that
    have both a positive and a negative in the batch; 0 if none has.
    """
    distances = (2 - 2 * embeddings @ embeddings.T).clamp(min=1e-6).sqrt()  # (N, N)
    same = labels[:, None] == labels[None, :]
    positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distances.masked_fill(~positives, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(same, torch.inf).amin(dim=1)
    anchors = positives.any(dim=1) & ~same.all(dim=1)
    gaps = farthest[anchors] - nearest[anchors]
    return F.softplus(scale * gaps).sum() / max(1, len(gaps))
