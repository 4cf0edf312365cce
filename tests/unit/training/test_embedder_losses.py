"""Each loss against the loops of its definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.losses.batch_hard_triplet import batch_hard_triplet
from training.losses.catalogue_contrast import KEPT, CatalogueContrast, _with_mixtures
from training.losses.feature_distillation import feature_distillation, geometry_distillation
from training.losses.taxonomy_contrastive import taxonomy_contrastive

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def unit_vectors(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64), dim=1)


@given(labels=LABELS, seed=st.integers(0, 1000), scale=st.floats(1, 20))
def test_batch_hard_triplet_equals_the_loop(labels: list[int], seed: int, scale: float) -> None:
    vectors = unit_vectors(len(labels), seed)
    losses = []
    for a, label in enumerate(labels):
        positives = [math.dist(vectors[a], vectors[p]) for p, q in enumerate(labels) if q == label and p != a]
        negatives = [math.dist(vectors[a], vectors[n]) for n, q in enumerate(labels) if q != label]
        if positives and negatives:
            losses.append(math.log1p(math.exp(scale * (max(positives) - min(negatives)))))
    expected = sum(losses) / len(losses) if losses else 0.0
    assert batch_hard_triplet(vectors, torch.tensor(labels), scale).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_batch_hard_triplet_of_equal_vectors_has_a_finite_gradient() -> None:
    vectors = F.normalize(torch.ones(4, 8), dim=1).requires_grad_()
    batch_hard_triplet(vectors, torch.tensor([0, 0, 1, 1])).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


@given(labels=LABELS, seed=st.integers(0, 1000))
def test_taxonomy_contrastive_equals_the_loop(labels: list[int], seed: int) -> None:
    vectors = unit_vectors(len(labels), seed)
    levels = [labels, [label // 2 for label in labels], [0] * len(labels)]
    weights, temperature = (1.0, 0.5, 0.25), 0.2
    cosines = (vectors @ vectors.T / temperature).tolist()
    expected = 0.0
    for level, weight in zip(levels, weights, strict=True):
        per_anchor = []
        for a, label in enumerate(level):
            others = [i for i in range(len(level)) if i != a]
            positives = [i for i in others if level[i] == label]
            if positives:
                total = math.log(sum(math.exp(cosines[a][i]) for i in others))
                per_anchor.append(sum(total - cosines[a][p] for p in positives) / len(positives))
        expected += weight * (sum(per_anchor) / len(per_anchor) if per_anchor else 0.0)
    loss = taxonomy_contrastive(vectors, torch.tensor(levels), weights, temperature)
    assert loss.item() == pytest.approx(expected / sum(weights), abs=1e-6)


def test_taxonomy_contrastive_pulls_the_same_product_nearest() -> None:
    """Vectors that are free to move end ordered: same product, same category, same department, the rest."""
    levels = torch.tensor([[0, 0, 1, 2, 3], [0, 0, 0, 1, 2], [0, 0, 0, 0, 1]])
    vectors = unit_vectors(5, seed=3).requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        taxonomy_contrastive(F.normalize(vectors, dim=1), levels, (1.0, 0.6, 0.3)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    cosines = F.normalize(vectors.detach(), dim=1)[0] @ F.normalize(vectors.detach(), dim=1).T
    product, category, department, rest = cosines[1:].tolist()
    assert product > category > department > rest


def test_what_nobody_knows_is_no_positive() -> None:
    vectors = unit_vectors(4, seed=2)
    known = taxonomy_contrastive(vectors, torch.tensor([[0, 0, 1, 2]]), (1.0,))
    unknown = taxonomy_contrastive(vectors, torch.tensor([[0, 0, -1, -1]]), (1.0,))
    assert unknown.item() == pytest.approx(known.item())


def test_distillation_is_zero_at_the_teacher_and_grows_away_from_it() -> None:
    teacher = unit_vectors(6, seed=1)
    near, far = teacher + 0.1 * unit_vectors(6, seed=2), unit_vectors(6, seed=3)
    for loss in (feature_distillation, geometry_distillation):
        assert loss(3 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-12)  # length does not count
        assert 0 < loss(near, teacher).item() < loss(far, teacher).item()


def test_geometry_distillation_takes_no_note_of_a_rotation() -> None:
    teacher = unit_vectors(6, seed=1)
    rotation = torch.linalg.qr(unit_vectors(8, seed=5)).Q
    assert geometry_distillation(teacher @ rotation, teacher).item() == pytest.approx(0.0, abs=1e-12)


@given(
    items=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_catalogue_contrast_equals_the_loop(items: list[tuple[int, bool]], seed: int) -> None:
    """Products 0 to 3, of which 3 has no picture yet; 4 to 6 are twins, known in this batch alone."""
    items = [
        (item, shown) for n, (item, shown) in enumerate(items) if item < 4 or (item, shown) not in items[:n]
    ]
    vectors = unit_vectors(len(items), seed)
    keys = unit_vectors(4, seed + 100)
    keys[3] = 0
    loss = CatalogueContrast(keys, 0.1).eval()
    candidates = [(item, keys[item]) for item in range(3)]
    candidates += [(item, vectors[row]) for row, (item, shown) in enumerate(items) if shown and item >= 4]
    terms = []
    for row, (item, shown) in enumerate(items):
        right = [vector for name, vector in candidates if name == item]
        if not shown and right:
            total = sum(math.exp(float(vectors[row] @ vector) / 0.1) for _, vector in candidates)
            terms.append(-math.log(math.exp(float(vectors[row] @ right[0]) / 0.1) / total))
    expected = sum(terms) / len(terms) if terms else 0.0
    found = loss(vectors, torch.tensor([i for i, _ in items]), torch.tensor([s for _, s in items]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_catalogue_contrast_remembers_catalogue_pictures_while_training() -> None:
    keys, vectors = unit_vectors(3, 1), unit_vectors(5, 2)
    keys[2] = 0  # has no picture
    items, shown = torch.tensor([0, 0, 1, 2, 7]), torch.tensor([True, True, False, True, True])
    loss = CatalogueContrast(keys, 0.1)
    loss.eval()(vectors, items, shown)
    assert torch.equal(loss.keys, keys)
    loss.train()(vectors, items, shown)
    seen = F.normalize(vectors[0] + vectors[1], dim=0)
    assert torch.allclose(loss.keys[0], F.normalize(KEPT * keys[0] + (1 - KEPT) * seen, dim=0))
    assert torch.equal(loss.keys[1], keys[1])
    assert torch.allclose(loss.keys[2], vectors[3])


def test_mixtures_find_the_mixture_of_their_pictures() -> None:
    """A, B and C are photographed exactly as in the catalogue: so mixtures equal their candidates, too."""
    keys = torch.eye(8, dtype=torch.float64)[:5]
    rows = torch.tensor([0, 0, 1, 2])
    photos, answer, candidates = _with_mixtures(keys[rows], rows, keys)
    assert (len(photos), len(candidates)) == (8, 8)
    assert torch.equal(photos[:4], keys[rows])
    assert torch.equal(answer[:4], rows)
    assert torch.allclose(photos, candidates[answer])
    shares = candidates[5:] ** 2
    assert ((shares > 0).sum(dim=1) == 2).all()  # each of two products
    assert (shares[:, 3:] == 0).all()  # of those that are shown
    assert torch.allclose(candidates.norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_one_product_alone_is_not_mixed() -> None:
    keys, rows = unit_vectors(3, 1), torch.tensor([1, 1])
    photos, answer, candidates = _with_mixtures(unit_vectors(2, 2), rows, keys)
    assert (len(photos), answer.tolist(), len(candidates)) == (2, [1, 1], 3)


def test_catalogue_contrast_without_an_answer_is_zero_with_a_finite_gradient() -> None:
    vectors = unit_vectors(2, 3).requires_grad_()
    loss = CatalogueContrast(torch.zeros(1, 8, dtype=torch.float64), 0.1)
    found = loss(vectors, torch.tensor([0, 5]), torch.tensor([False, False]))
    found.backward()
    assert found.item() == 0
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
