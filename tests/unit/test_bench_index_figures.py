"""The figures of the index benchmark: exact answers, recall, and the page that they are written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magpie.ranking.config import DEFAULT_WEIGHTS
from tests.bench.index import page
from tests.bench.index.collection import FILTERS, HIGHEST_PRICE, K, below, fused, make
from tests.bench.index.exact import NOBODY, nearest, recall


def test_exact_answers_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((57, 6)).astype(np.float32)
    queries = rng.standard_normal((5, 6)).astype(np.float32)
    masks = [None, rng.random(57) < 0.5, np.arange(57) == 40, np.zeros(57, np.bool_)]
    blocks = [(first, vectors[first : first + 10]) for first in range(0, 57, 10)]
    found = nearest(queries, blocks, masks, 4)
    for number, mask in enumerate(masks):
        allowed = [row for row in range(57) if mask is None or mask[row]]
        for query, answer in zip(queries, found[number], strict=True):
            right = sorted(allowed, key=lambda row: -float(query @ vectors[row]))[:4]
            assert answer.tolist() == right + [NOBODY] * (4 - len(right))


def test_recall_is_the_share_of_what_there_is_to_find() -> None:
    exact = np.array([4, 7, 9, 1])
    assert recall(np.array([9, 4, 3, 2]), exact) == 0.5
    assert recall(np.array([], np.int64), exact) == 0.0
    assert recall(np.array([7, 5, NOBODY]), np.array([7, NOBODY, NOBODY])) == 1.0
    assert recall(np.array([7]), np.array([NOBODY, NOBODY])) is None


def test_a_collection_is_made_once_and_filters_keep_their_shares(tmp_path: Path) -> None:
    collection = make(tmp_path / "vectors", 4001)
    assert (len(collection), collection.products) == (4000, 1000)
    for share in FILTERS[1:]:
        assert share is not None
        assert np.count_nonzero(collection.prices < below(share)) == round(1000 * share)
    assert collection.prices.max() < HIGHEST_PRICE
    similarity = collection.fused_queries @ collection.fused(slice(None)).T
    assert np.array_equal(collection.exact[0], np.argsort(-similarity, axis=1)[:, :K])
    cheap = np.repeat(collection.prices, 4) < below(0.01)
    assert cheap[collection.exact[3]].all()
    written = (tmp_path / "vectors" / "exact.npy").stat().st_mtime_ns
    make(tmp_path / "vectors", 4001)
    assert (tmp_path / "vectors" / "exact.npy").stat().st_mtime_ns == written
    assert len(make(tmp_path / "vectors", 400)) == 400  # another one is asked for: it is made anew


def test_the_inner_product_of_fused_vectors_is_the_weighted_mean_of_the_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors = {space: rng.standard_normal((9, 5)).astype(np.float32) for space in DEFAULT_WEIGHTS}
    vectors = {space: v / np.linalg.norm(v, axis=1, keepdims=True) for space, v in vectors.items()}
    mean = sum(weight * vectors[space] @ vectors[space].T for space, weight in DEFAULT_WEIGHTS.items())
    np.testing.assert_allclose(fused(vectors) @ fused(vectors).T, mean, atol=1e-6)


def result(engine: str, objects: int, **further: Any) -> dict[str, Any]:
    search = {"calls": 9, "p50": 1.5, "p95": 2.0, "p99": 2.5, "recall": 0.99}
    return {
        "engine": engine,
        "parameters": "M 16",
        "version": "1.2",
        "objects": objects,
        "build_s": 10.0,
        "load_ms": 120.0,
        "disk_bytes": 400 * objects,
        "anonymous_bytes": 60 * objects,
        "mapped_bytes": 30 * objects,
        "redis_bytes": 0,
        "searches": [{"share": None, **search}, {"share": 0.1, **search, "recall": 0.97}],
        "while_writing": {**search, "recall": None, "objects_written_per_s": 99.0},
        "upserts_per_s": 4321.0,
        "deletes_per_s": 1234.0,
        "machine": {"cores": 2, "python": "3.12", "commit": "abc", "time": "2026-01-02", "load_at_end": 1.0},
        **further,
    }


def test_the_page_keeps_its_prose_and_has_a_line_for_every_filter(tmp_path: Path) -> None:
    path, chart = tmp_path / "page.md", tmp_path / "page.png"
    path.write_text(f"# Title\n\nBefore.\n\n{page.BEGIN}\nold figures\n{page.END}\n\nAfter.\n")
    slow = {"engine": "slow", "objects": 1_000_000, "left_out": "building would take about 9 minutes"}
    results = [result("compact", 1_000_000), {**result("slow", 10), **slow, "searches": []}]
    del results[1]["searches"]
    page.write(results, path, chart)
    page.write(results, path, chart)  # again: nothing doubles
    text = path.read_text()
    assert text.startswith(f"# Title\n\nBefore.\n\n{page.BEGIN}\n")
    assert text.endswith(f"{page.END}\n\nAfter.\n")
    assert "old figures" not in text
    lines = [line for line in text.splitlines() if line.startswith("| compact | 1,000,000")]
    assert [line.split(" | ")[2] for line in lines] == ["no filter", "10 %", "no filter, writing"]
    figures = "1.50 | 2.00 | 2.50 | 0.990 | 90 | 400 |  | 10.0 | 120 | 4,321 | 1,234"
    assert lines[0] == f"| compact | 1,000,000 | no filter | {figures} |"
    assert {line.count("|") for line in lines} == {len(page.HEADINGS) + 1}
    assert text.count("building would take about 9 minutes") == 1
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_page_says_which_targets_are_met() -> None:
    lines = page.targets(
        [result("compact", 1_000_000), result("faiss-flat", 1_000_000), result("compact", 10)]
    )
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["met", "met", "missed", "met", "met", "met"]
    assert "lowest recall@10 0.97" in lines[2]


def test_what_an_engine_cannot_do_is_said() -> None:
    fixed = result("graph", 1000)
    for name in ("while_writing", "upserts_per_s", "deletes_per_s"):
        del fixed[name]
    fixed["searches"] = fixed["searches"][:1]
    rows = page.rows(fixed)
    assert rows[0][-2:] == ("cannot", "cannot")
    assert rows[1][2] == "cannot filter"


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Title\n")
    with pytest.raises(ValueError, match="needs the lines"):
        page.write([result("compact", 10)], path, tmp_path / "page.png")
