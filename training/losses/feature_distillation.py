"""Keep a fine-tuned backbone near the one it came from, so that it still sees what its training set lacks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance of features of the same pictures. (N, D), (N, D) -> scalar in [0, 2]."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def geometry_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs in the batch. (N, D), (N, E) -> scalar.

    Relational distillation (Park et al. 2019, arXiv 1904.05068), for spaces of unlike dimension.
    """
    student, teacher = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    return F.mse_loss(student @ student.T, teacher @ teacher.T)
