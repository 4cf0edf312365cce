"""What a query finds, against the naive loop; what is left out, what is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.errors import InvalidArgument
from magpie.ranking.hubness import Hubness
from magpie.vision.model_card import InputSpec
from training.datasets.catalogue_of_cards import DataEntry
from training.datasets.example import Example
from training.embedding.retrieval import Run
from training.evaluation import ranking
from training.evaluation.ranking import queries_of, rank
from training.evaluation.suite import EvaluationSet
from training.evaluation.vector_cache import VectorCache

ANY = DataEntry("any")


def examples(products: list[str], sources: list[str | None] | None = None, at: str = "a") -> list[Example]:
    return [
        Example(Path(f"{at}{row}.jpg"), "set", product, {"category": product[0]}, source=source)
        for row, (product, source) in enumerate(zip(products, sources or [None] * len(products), strict=True))
    ]


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.normal(size=(count, 6))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [10**6, 45])  # all queries at once; one at a time
def test_hits_and_places_are_those_of_the_naive_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK", block)
    rng = np.random.default_rng(0)
    asked, gallery = (
        examples([f"{'xyz'[i % 3]}{i % 5}" for i in range(20)]),
        examples([f"{'xyz'[i % 3]}{i % 5}" for i in range(40)], at="g"),
    )
    a, g = unit(rng, 20), unit(rng, 40)
    entry = EvaluationSet("s", ANY, ANY, related="category")
    found = rank(entry, queries_of(asked, "product"), a, gallery, g)
    for row, example in enumerate(asked):
        order = sorted(range(40), key=lambda column: -float(a[row] @ g[column]))
        assert found.hits[row].tolist() == order[:10]
        place = next(i for i, column in enumerate(order, 1) if gallery[column].product == example.product)
        assert found.place[row] == place
        assert gallery[found.best_right[row]].product == example.product
        assert found.metrics["mrr"][row] == pytest.approx(1 / place)
        grades = [
            3 if gallery[c].product == example.product else int(gallery[c].product[0] == example.product[0])
            for c in order
        ]
        gains = [(2**grade - 1) / np.log2(i + 2) for i, grade in enumerate(grades)]
        best = [(2**grade - 1) / np.log2(i + 2) for i, grade in enumerate(sorted(grades, reverse=True))]
        assert found.metrics["ndcg@10"][row] == pytest.approx(sum(gains[:10]) / sum(best[:10]))


@pytest.mark.parametrize("block", [10**6, 45])
def test_a_penalty_is_taken_off_the_cosines(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK", block)
    rng = np.random.default_rng(3)
    asked, gallery = (
        examples([f"x{i % 5}" for i in range(20)]),
        examples([f"x{i % 5}" for i in range(40)], at="g"),
    )
    a, g, penalty = unit(rng, 20), unit(rng, 40), rng.uniform(-0.5, 0.5, 40)
    found = rank(EvaluationSet("s", ANY, ANY), queries_of(asked, "product"), a, gallery, g, penalty)
    for row in range(20):
        counted = [float(a[row] @ g[column]) - penalty[column] for column in range(40)]
        order = sorted(range(40), key=lambda column: -counted[column])
        assert found.hits[row].tolist() == order[:10]
        assert found.scores[row] == pytest.approx([counted[column] for column in order[:10]], abs=1e-6)


def test_vectors_of_a_bundle_pay_in_identity_alone() -> None:
    vectors = unit(np.random.default_rng(4), 9)
    hubness = Hubness("a" * 64, unit(np.random.default_rng(5), 12), 3, 0.5, 0.1)
    run: Run = lambda tensor: {}  # noqa: E731 - never run
    spec = InputSpec("image", 32, 127.0, 128.0, 127)
    cache = VectorCache(run, spec, hubness=hubness)
    assert cache.penalty("identity", vectors) == pytest.approx(hubness.penalty(vectors))
    assert not cache.penalty("category", vectors).any()
    assert not VectorCache(run, spec).penalty("identity", vectors).any()


def test_a_picture_never_finds_itself_nor_its_source_where_the_set_says_so() -> None:
    pictures = examples(["x", "x", "x", "y"], ["ann", "ann", "bob", "bob"])
    vectors = np.eye(4, 6, dtype=np.float32) + 0.1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = queries_of(pictures, "product")
    for leave_out, excluded in (
        ("picture", [{0}, {1}, {2}, {3}]),
        ("source", [{0, 1}, {0, 1}, {2, 3}]),
    ):
        found = rank(EvaluationSet("s", ANY, leave_out=leave_out), asked, vectors, pictures, vectors)
        for row, hits in enumerate(found.hits):
            kept = {int(hit) for hit in hits if hit >= 0}
            assert kept == {0, 1, 2, 3} - excluded[row]
        assert found.without_answer == 1  # nothing else is `y`
        assert [query.example.product for query in found.queries] == ["x", "x", "x"]


def test_pictures_of_unknown_source_are_nobodys() -> None:
    pictures = examples(["x", "x"], [None, None])
    vectors = np.ones((2, 4), np.float32) / 2
    found = rank(
        EvaluationSet("s", ANY, leave_out="source"),
        queries_of(pictures, "product"),
        vectors,
        pictures,
        vectors,
    )
    assert found.metrics["recall@1"].tolist() == [1.0, 1.0]


def test_a_photo_of_two_products_has_both_right() -> None:
    photo = [Example(Path("q.jpg"), "set", product) for product in ("x", "y")]
    gallery = examples(["y", "x", "z"], at="g")
    (query,) = queries_of(photo, "product")
    assert set(query.right) == {"x", "y"}
    vectors = np.eye(3, dtype=np.float32)
    found = rank(EvaluationSet("s", ANY, ANY), [query], vectors[:1], gallery, vectors)
    assert found.metrics["map@r"].tolist() == [1.0]


def test_a_set_without_any_answer_is_refused_by_name() -> None:
    asked, gallery = queries_of(examples(["x"]), "product"), examples(["y"], at="g")
    vectors = np.ones((1, 1), np.float32)
    with pytest.raises(InvalidArgument, match="the-set"):
        rank(EvaluationSet("the-set", ANY, ANY), asked, vectors, gallery, vectors)
