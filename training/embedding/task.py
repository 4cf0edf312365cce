"""What the embedder is asked to learn, a loss for each space, and what it is asked to keep."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NormalizedSoftmaxLoss  # type: ignore[import-untyped]
from torch import Tensor, nn

from training.embedding.batches import UNKNOWN, Batch, EmbedderBatches
from training.embedding.recipe import EmbedderRecipe
from training.losses.batch_hard_triplet import batch_hard_triplet
from training.losses.feature_distillation import feature_distillation, geometry_distillation
from training.losses.taxonomy_contrastive import taxonomy_contrastive
from training.models.embedder import SPACES, Embedder


class EmbedderTask(nn.Module):
    """Loss terms of a batch, weighted.

    identity: normalised softmax over the products (Zhai and Wu 2019, arXiv 1811.12649) and batch-hard
    triplet; category: normalised softmax over the categories of all data sets; similar: contrast over the
    taxonomy. All stay near `teacher` (M, 1280), the ImageNet features of every example: the features
    themselves, and the cosines of pairs in the spaces that must know what no label says.
    """

    teacher: Tensor
    teacher_mean: Tensor

    def __init__(
        self,
        embedder: Embedder,
        batches: EmbedderBatches,
        teacher: Tensor,
        recipe: EmbedderRecipe,
    ) -> None:
        super().__init__()
        self.embedder, self.recipe = embedder, recipe
        taxonomy = batches.taxonomy
        self.products = NormalizedSoftmaxLoss(
            len(taxonomy.products), SPACES["identity"], temperature=recipe.temperature
        )
        self.categories = NormalizedSoftmaxLoss(
            len(taxonomy.categories), SPACES["category"], temperature=recipe.temperature
        )
        self.register_buffer("teacher", teacher, persistent=False)
        self.register_buffer("teacher_mean", teacher.mean(dim=0), persistent=False)
        with torch.no_grad():
            spaces = embedder.project(teacher)
        _start_at_class_means(self.products, spaces["identity"], torch.from_numpy(batches.product))
        _start_at_class_means(self.categories, spaces["category"], torch.from_numpy(batches.category))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        features = features_of(self.embedder, batch.pictures)
        spaces = self.embedder.project(features)
        known = batch.product != UNKNOWN
        teacher = self.teacher[batch.rows]
        centred = teacher - self.teacher_mean
        levels = torch.stack([batch.item, batch.category, batch.department])
        recipe = self.recipe
        geometry = geometry_distillation(spaces["identity"], centred)
        geometry = geometry + geometry_distillation(spaces["similar"], centred)
        return {
            "identity": self.products(spaces["identity"][known], batch.product[known]),
            "triplet": recipe.triplet * batch_hard_triplet(spaces["identity"], batch.item),
            "category": recipe.category * self.categories(spaces["category"], batch.category),
            "similar": recipe.similar * taxonomy_contrastive(spaces["similar"], levels, recipe.level_weights),
            "distillation": recipe.distillation * feature_distillation(features, teacher),
            "geometry": recipe.geometry * geometry,
        }


def features_of(embedder: Embedder, pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1280). Channels last is the faster layout for depthwise convolutions on CPUs."""
    features: Tensor = embedder.features(pictures.contiguous(memory_format=torch.channels_last))
    return features


@torch.no_grad()
def _start_at_class_means(proxies: NormalizedSoftmaxLoss, vectors: Tensor, labels: Tensor) -> None:
    """Set each class's proxy to the mean direction of its examples. (M, D), (M,) integers from 0."""
    for label in range(proxies.W.shape[1]):
        proxies.W[:, label] = F.normalize(vectors[labels == label].mean(dim=0), dim=0)
