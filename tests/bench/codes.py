"""256-bit identity codes: a Hamming scan and the rescoring of a shortlist, against faiss' exact float index.

Vectors are clustered, as those of products are: several pictures of each around the product's own direction.
Recall@10 is measured against exact float; bytes are those of codes and int8 vectors, of an object.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from magpie.index.hamming import search
from magpie.index.hash_model import HashModel
from magpie.index.int8_vectors import Int8Vectors
from magpie.settings import Settings
from magpie.vision.bundle import Bundle
from tests.bench.harness import measure, report
from tests.bench.stock import unit_vectors

SPACE = "identity"
SIZES = (10_000, 100_000)
SHORTLISTS = (200, 500)
PICTURES = 5  # of a product
SPREAD = 0.6  # of a picture around its product, against 1 between products
QUERIES = 500
K = 10


def main() -> None:
    bundle = Bundle.load(Settings.from_environment().bundle)
    if bundle.hash is None:
        raise SystemExit(f"{bundle.id} has no hash model: `magpie train hash` makes one")
    model = HashModel.load(bundle.folder, bundle.hash, bundle.embedder_card.sha256)
    dimension = bundle.embedder_card.spaces[SPACE]
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = []
    for size in SIZES:
        centres = unit_vectors(rng, size // PICTURES, dimension)
        vectors = around(rng, centres, PICTURES)
        queries = around(rng, centres[rng.integers(len(centres), size=QUERIES)], 1)
        flat = faiss.IndexFlatIP(dimension)
        flat.add(vectors)
        exact = flat.search(queries, K)[1]
        asked = itertools.cycle((query[None], K) for query in queries)
        note = f"peer: faiss flat, {4 * dimension} bytes"
        rows.append(measure(f"{size:,} objects, exact", partial(answer_next, flat.search, asked), note=note))
        codes, stored = model.encode(SPACE, vectors), Int8Vectors.of(vectors)
        query_codes = model.encode(SPACE, queries)
        per_object = codes.shape[1] + stored.bytes_per_row
        for shortlist in SHORTLISTS:
            one = partial(search, codes=codes, vectors=stored, k=K, shortlist=shortlist)
            found = [
                len(np.intersect1d(one(query, code), row)) / K
                for query, code, row in zip(queries, query_codes, exact, strict=True)
            ]
            asked = itertools.cycle(zip(queries, query_codes, strict=True))
            note = f"recall@10 {np.mean(found):.3f}, {per_object} bytes"
            ask = partial(answer_next, one, asked)
            rows.append(measure(f"{size:,} objects, {shortlist} rescored", ask, note=note))
    rows.append(measure("codes of 100 objects", lambda: model.encode(SPACE, queries[:100]), items=100))
    report("codes", rows, bundle=bundle.id, bits=model.bits[SPACE])


def answer_next(answer: Callable[..., object], asked: Iterator[tuple[object, ...]]) -> None:
    """The next query of `asked`."""
    answer(*next(asked))


def around(rng: np.random.Generator, centres: NDArray[np.float32], each: int) -> NDArray[np.float32]:
    """`each` unit vectors around every centre: (N, d) -> (N * each, d)."""
    spread = unit_vectors(rng, len(centres) * each, centres.shape[1])
    vectors = np.repeat(centres, each, axis=0) + SPREAD * spread
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
