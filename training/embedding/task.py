"""What the embedder is asked to learn, a loss for each space, and what it is asked to keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import (  # type: ignore[import-untyped]
    NormalizedSoftmaxLoss,
    ProxyAnchorLoss,
)
from torch import Tensor, nn

from training.device import Device
from training.embedding.batches import UNKNOWN, Batch, EmbeddingBatches
from training.losses.batch_hard_triplet import batch_hard_triplet
from training.losses.catalogue_contrast import CatalogueContrast
from training.losses.feature_distillation import feature_distillation, geometry_distillation
from training.losses.taxonomy_contrastive import taxonomy_contrastive
from training.models.embedder import Embedder


class EmbeddingTask(nn.Module):
    """Loss terms of a batch, weighted.

    identity: batch-hard triplet over siamese views, with a contrast of photos and the whole catalogue, a
    normalised softmax over the products (Zhai and Wu 2019, arXiv 1811.12649) or Proxy-Anchor (Kim et al.
    2020, arXiv 2003.13911); category: a normalised softmax for each label column, over the pictures that have
    the label; similar: contrast over the taxonomy.
    All stay near `teacher` (M, 1280), the ImageNet features of every example: the features themselves, and
    the cosines of pairs in the spaces that must know what no label says (learning without forgetting).

    With `losses.hold_catalogue` no label moves a catalogue picture: photos must learn to come to where it is.
    Else the few catalogue pictures of a training set are learnt by heart, and those of new products, which
    are not, lose the photos of these to the nearest that is.
    """

    teacher: Tensor
    teacher_mean: Tensor

    def __init__(
        self, embedder: Embedder, batches: EmbeddingBatches, teacher: Tensor, device: Device
    ) -> None:
        super().__init__()
        self.embedder, self.recipe, self.device = embedder, batches.recipe, device
        losses, spaces = self.recipe.losses, self.recipe.model.spaces
        products = len(batches.vocabulary.products)
        self.register_buffer("teacher", teacher, persistent=False)
        self.register_buffer("teacher_mean", teacher.mean(dim=0), persistent=False)
        with torch.no_grad():
            start = embedder.project(teacher)
        self.contrast: CatalogueContrast | None = None
        if products and losses.contrast:
            shown = np.where(batches.is_catalogue, batches.product, UNKNOWN)
            keys = _class_means(start["identity"], torch.from_numpy(shown), products)
            self.contrast = CatalogueContrast(keys.detach(), losses.temperature)
        self.softmax: Any = None  # of a library without types
        self.proxy_anchor: Any = None
        if products and losses.softmax:
            self.softmax = NormalizedSoftmaxLoss(products, spaces["identity"], temperature=losses.temperature)
            means = _class_means(start["identity"], torch.from_numpy(batches.product), products)
            self.softmax.W.data.copy_(means.T)
        if products and losses.proxy_anchor:
            self.proxy_anchor = ProxyAnchorLoss(
                products, spaces["identity"], margin=losses.proxy_margin, alpha=losses.proxy_alpha
            )
            means = _class_means(start["identity"], torch.from_numpy(batches.product), products)
            self.proxy_anchor.proxies.data.copy_(means)
        # Class directions of every label column, (values, dimension).
        self.directions = nn.ParameterDict(
            {
                column: _class_means(
                    start["category"],
                    torch.from_numpy(batches.labels[column]),
                    len(batches.vocabulary.labels[column]),
                )
                for column in self.recipe.domains
                if batches.vocabulary.labels[column]
            }
        )
        self.level_weights = self.recipe.level_weights[::-1]  # product first, then fine to coarse

    def proxies(self) -> Iterator[nn.Parameter]:
        """What the losses learn beside the network."""
        inside = {id(p) for p in self.embedder.parameters()}
        yield from (p for p in self.parameters() if id(p) not in inside)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.device.autocast():
            features = features_of(self.embedder, batch.pictures)
        features = features.float()
        spaces = self.embedder.project(features)
        losses = self.recipe.losses
        terms = self._kept(features, spaces, batch)
        if losses.hold_catalogue:
            held = batch.catalogue[:, None]
            spaces = {space: torch.where(held, v.detach(), v) for space, v in spaces.items()}
        known = batch.product != UNKNOWN
        if losses.triplet:
            terms["triplet"] = losses.triplet * batch_hard_triplet(
                spaces["identity"], batch.item, losses.triplet_scale
            )
        if self.contrast is not None:
            loss = self.contrast(spaces["identity"], batch.item, batch.catalogue)
            terms["contrast"] = losses.contrast * loss
        if self.softmax is not None and known.any():
            loss = self.softmax(spaces["identity"][known], batch.product[known])
            terms["softmax"] = losses.softmax * loss
        if self.proxy_anchor is not None and known.any():
            loss = self.proxy_anchor(spaces["identity"][known], batch.product[known])
            terms["proxy_anchor"] = losses.proxy_anchor * loss
        if losses.category and self.directions:
            terms["category"] = losses.category * self._category(spaces["category"], batch)
        if losses.similar:
            levels = [batch.item, *(batch.labels[c] for c in reversed(self.recipe.taxonomy))]
            terms["similar"] = losses.similar * taxonomy_contrastive(
                spaces["similar"], torch.stack(levels), self.level_weights
            )
        return terms

    def _category(self, vectors: Tensor, batch: Batch) -> Tensor:
        """Mean over the label columns that occur in the batch."""
        losses = self.recipe.losses
        parts = []
        for column, directions in self.directions.items():
            labels = batch.labels[column]
            has = labels != UNKNOWN
            if has.any():
                logits = vectors[has] @ F.normalize(directions, dim=1).T / losses.temperature
                parts.append(F.cross_entropy(logits, labels[has], label_smoothing=losses.smoothing))
        return torch.stack(parts).mean() if parts else vectors.new_zeros(())

    def _kept(self, features: Tensor, spaces: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Twins are left out: the teacher knows their pictures in other colours only."""
        losses, own = self.recipe.losses, batch.as_taken
        features, teacher = features[own], self.teacher[batch.rows[own]]
        terms = {}
        if losses.distillation:
            terms["distillation"] = losses.distillation * feature_distillation(features, teacher)
        if losses.geometry:
            centred = teacher - self.teacher_mean
            kept = [geometry_distillation(spaces[space][own], centred) for space in ("identity", "similar")]
            terms["geometry"] = losses.geometry * torch.stack(kept).sum()
        return terms


def features_of(embedder: Embedder, pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1280). Channels last is the faster layout for depthwise convolutions on CPUs."""
    features: Tensor = embedder.features(pictures.contiguous(memory_format=torch.channels_last))
    return features


@torch.no_grad()
def _class_means(vectors: Tensor, labels: Tensor, classes: int) -> nn.Parameter:
    """The mean direction of each class's examples. (M, D), (M,) -> (classes, D), unit norm."""
    has = labels != UNKNOWN
    sums = vectors.new_zeros(classes, vectors.shape[1]).index_add_(
        0, labels[has].to(vectors.device), vectors[has]
    )
    return nn.Parameter(F.normalize(sums, dim=1))
