"""References and strength, fitted to what a run was trained on and what it was not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from training.datasets.example import Example
from training.ranking.hubness import REFERENCES, fit_hubness, references

SHA = "a" * 64


def example(name: str, product: str | None, *, dataset: str = "shop", catalogue: bool = False) -> Example:
    return Example(Path(name), dataset, product, {}, catalogue=catalogue, source=None, split="train")


def unit(rows: list[list[float]]) -> NDArray[np.float32]:
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_references_are_photos_of_products_of_all_sets_and_products_alike() -> None:
    train = [example(f"{p}-{n}", f"P{p}") for p in range(40) for n in range(60)]
    train += [example(f"few-{n}", f"F{n % 5}", dataset="few") for n in range(300)]
    train += [example(f"c-{p}", f"P{p}", catalogue=True) for p in range(40)]
    train += [example(f"lone-{n}", None, dataset="lone") for n in range(50)]
    chosen = [train[row] for row in references(train, seed=1)]
    assert len(chosen) == len({each.path for each in chosen}) == REFERENCES
    assert Counter(each.dataset for each in chosen) == {"shop": REFERENCES // 2, "few": REFERENCES // 2}
    assert not any(each.catalogue for each in chosen)
    of_products = Counter(each.product for each in chosen if each.dataset == "shop")
    assert set(of_products.values()) == {6, 7}  # 256 of 40 products
    assert references(train, seed=1) == references(train, seed=1) != references(train, seed=2)


def shop(hub: float) -> tuple[list[Example], NDArray[np.float32], list[Example], NDArray[np.float32]]:
    """Two known products; the picture of `Hub` lies among all photos, as near as `hub` says."""
    train = [example("right.jpg", "Right", catalogue=True), example("hub.jpg", "Hub", catalogue=True)]
    vectors = [[1.0, 0, 0], [0, 1.0, 0]]
    train += [example(f"photo-{n}", "Hub") for n in range(9)]
    vectors += [[0, 1.0, 0]] * 9
    development = [example("asked.jpg", "Right"), example("other.jpg", "Hub")]
    return train, unit(vectors), development, unit([[1.0, hub, 0], [0.5, 1.0, 0]])


def test_the_largest_strength_that_known_products_bear() -> None:
    train, learnt, development, held_out = shop(hub=1.2)
    hubness, report = fit_hubness(train, learnt, development, held_out, embedder_sha256=SHA, cost=0.01)
    by_strength = report["recall@1 of known products by strength"]
    # The photo of `Hub` is lost when more than half of the difference of its cosines is taken off.
    assert by_strength == {"0.0": 0.5, "0.75": 0.5, "0.5": 0.5, "0.25": 1.0}
    assert (hubness.strength, hubness.embedder_sha256, report["references"]) == (0.75, SHA, 9)
    assert hubness.usual == pytest.approx(0.5)  # of 0 and 1
    strict, _ = fit_hubness(train, learnt, development[1:], held_out[1:], embedder_sha256=SHA, cost=0.0)
    assert strict.strength == 0.25


def test_a_strength_that_nobody_can_bear_is_refused() -> None:
    train, learnt, development, _ = shop(hub=1.2)
    close = unit([[0.99, 1.0, 0]])
    with pytest.raises(InvalidArgument, match=r"even strength 0\.25 costs"):
        fit_hubness(train, learnt, development[1:], close, embedder_sha256=SHA, cost=0.5)


@pytest.mark.parametrize("lacking", ["photos", "catalogue", "development"])
def test_what_is_lacking_is_said(lacking: str) -> None:
    train, learnt, development, held_out = shop(hub=1.2)
    if lacking == "development":
        development = [example("nobody-knows.jpg", None)] * 2
    kept = [
        row for row, e in enumerate(train) if lacking == "development" or e.catalogue == (lacking == "photos")
    ]
    with pytest.raises(InvalidArgument, match="needs 8 training photos of products, catalogue pictures"):
        fit_hubness(
            [train[row] for row in kept], learnt[kept], development, held_out, embedder_sha256=SHA, cost=0.0
        )
