"""Which products are confused: by the loop of the definition, from a file, and in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.tables.problems import BadFile
from training.embedding.hard_negatives import BAD_CASE, Rivals, read_bad_cases

PRODUCTS = ("shop/Fuji", "shop/Gala", "shop/Leek", "store/Leek")


def clusters(centres: np.ndarray, each: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = np.repeat(centres, each, axis=0) + rng.normal(
        0, spread, (len(centres) * each, centres.shape[1])
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32), np.repeat(np.arange(len(centres)), each)


def test_mining_equals_the_loop() -> None:
    vectors, products = clusters(np.random.default_rng(1).normal(size=(5, 8)), each=6, spread=0.9)
    products[-1] = -1  # of no known product
    rivals = Rivals(5)
    confused = rivals.mine(vectors, products, keep=2)
    expected, wrong = np.zeros((5, 5)), 0
    known = [row for row in range(len(vectors)) if products[row] >= 0]
    for a in known:
        own = max(float(vectors[a] @ vectors[b]) for b in known if b != a and products[b] == products[a])
        best = {
            p: max(float(vectors[a] @ vectors[b]) for b in known if products[b] == p)
            for p in range(5)
            if p != products[a]
        }
        wrong += max(best.values()) > own
        for p in sorted(best, key=lambda p: -best[p])[:2]:
            expected[products[a], p] += 1 / (1 + np.exp(-10 * (best[p] - own)))
    np.testing.assert_allclose(rivals.state_dict()["mined"], expected, rtol=1e-4)
    assert confused == pytest.approx(wrong / len(known))


def test_products_that_lie_together_are_drawn_together() -> None:
    centres = np.eye(6)
    centres[1] = centres[0] + 0.05 * centres[5]  # 0 and 1 are hard to tell apart
    vectors, products = clusters(centres, each=8, spread=0.05)
    rivals = Rivals(6)
    assert not rivals.known
    rivals.mine(vectors, products, keep=1)
    assert rivals.known
    mined = rivals.state_dict()["mined"]
    assert np.unravel_index(mined.argmax(), mined.shape) in {(0, 1), (1, 0)}
    rng = np.random.default_rng(0)
    assert all(set(rivals.draw(rng, [0], 2)) == {0, 1} for _ in range(20))
    assert rivals.draw(rng, [0, 1], 2) == [0, 1]


def test_told_cases_outlive_a_mining_and_a_checkpoint() -> None:
    vectors, products = clusters(np.eye(4), each=3, spread=0.01)
    rivals = Rivals(4)
    rivals.tell([(2, 3)])
    rivals.mine(vectors, products, keep=2)
    again = Rivals(4)
    again.load_state_dict(rivals.state_dict())
    assert again.state_dict()["told"][2, 3] == again.state_dict()["told"][3, 2] == BAD_CASE
    draws = [again.draw(np.random.default_rng(seed), [2], 2) for seed in range(30)]
    assert draws == [rivals.draw(np.random.default_rng(seed), [2], 2) for seed in range(30)]
    assert np.mean([3 in draw for draw in draws]) > 0.8


def bad_cases(tmp_path: Path, *rows: str) -> Path:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(["image,product_id,wrong_product_id", *rows]) + "\n")
    return path


def test_bad_cases_are_pairs_and_photos_of_the_right_product(tmp_path: Path) -> None:
    path = bad_cases(tmp_path, "photo.jpg,Fuji,Gala", ",store/Leek,Gala")
    pairs, photos = read_bad_cases(path, PRODUCTS)
    assert pairs == [(0, 1), (3, 1)]
    assert [(p.path.name, p.dataset, p.product, p.catalogue) for p in photos] == [
        ("photo.jpg", "shop", "Fuji", False)
    ]


def test_bad_cases_that_name_nothing_known_are_refused_with_their_lines(tmp_path: Path) -> None:
    path = bad_cases(tmp_path, "photo.jpg,Fuju,Gala", "photo.jpg,Leek,Gala", "gone.jpg,Fuji,Gala")
    with pytest.raises(BadFile) as error:
        read_bad_cases(path, PRODUCTS)
    lines = str(error.value).splitlines()
    assert "line 2: `product_id` 'Fuju' is no product of the training data" in lines[1]
    assert "line 3: `product_id` 'Leek' is in several data sets" in lines[2]
    assert "line 4: `image`: there is no file" in lines[3]
