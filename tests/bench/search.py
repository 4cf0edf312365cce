"""Exact search of 1 k, 10 k and 100 k objects, with and without a filter, against faiss' flat index.

The engine answers in every space and checks Redis for changes first; faiss looks up one space.
"""

from __future__ import annotations

import time
from functools import partial

import faiss
import numpy as np

from magpie.index.compact import CompactEngine
from magpie.index.filter import parse
from magpie.settings import Settings
from magpie.store.catalogue import Catalogue
from magpie.vision.bundle import Bundle
from tests.bench.harness import measure, report
from tests.bench.own_services import redis_of_our_own
from tests.bench.stock import fill

SIZES = (1_000, 10_000, 100_000)
LIMIT = 100  # candidates a space
FILTER = "category = 'Juice' and price < 20"


def main() -> None:
    bundle = Bundle.load(Settings.from_environment().bundle)
    spaces = bundle.embedder_card.spaces
    faiss.omp_set_num_threads(1)
    rows = []
    facts = {}
    with redis_of_our_own() as client:
        catalogue = Catalogue(client)
        for size in SIZES:
            customer = f"bench-{size}"
            vectors = fill(catalogue, customer, bundle.id, spaces, size)
            query = [{space: matrix[7] for space, matrix in vectors.items()}]
            engine = CompactEngine(catalogue)
            start_loading = time.perf_counter()
            found = engine.find(customer, bundle.id, query, None, LIMIT)
            facts[f"load_{size}_s"] = round(time.perf_counter() - start_loading, 2)
            best = max(found.results[0], key=lambda candidate: candidate.similarity["identity"])
            assert best.product_id == "product-7", "the engine does not find the query itself"
            find = partial(engine.find, customer, bundle.id, query, limit=LIMIT)
            rows.append(measure(f"{size:,} objects", partial(find, condition=None)))
            filtered = partial(find, condition=parse(FILTER))
            rows.append(measure(f"{size:,} objects, filtered", filtered, note=FILTER))
            flat = faiss.IndexFlatIP(spaces["identity"])
            flat.add(vectors["identity"])
            lookup = partial(flat.search, np.ascontiguousarray(query[0]["identity"][None]), LIMIT)
            rows.append(measure(f"{size:,} objects, faiss flat", lookup, note="peer: one space, no filter"))
    report("search", rows, bundle=bundle.id, **facts)


if __name__ == "__main__":
    main()
