"""Ranking of 100 and 300 candidates of one object: default config, every term; without and with hubness."""

from __future__ import annotations

from functools import partial

import numpy as np

from magpie.ranking.config import default_config, validate
from magpie.ranking.hubness import Hubness
from magpie.ranking.rank import rank
from magpie.settings import Settings
from magpie.v1.image_pb2 import Box
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Boost, Fusion, RankingConfig
from magpie.v1.search_pb2 import Candidate
from magpie.vision.bundle import Bundle
from tests.bench.harness import measure, report
from tests.bench.stock import CATEGORIES, unit_vectors
from training.ranking.hubness import NEAREST, REFERENCES


def main() -> None:
    bundle = Bundle.load(Settings.from_environment().bundle)
    spaces = bundle.embedder_card.spaces
    every_term = RankingConfig(
        fusion=Fusion(method=Fusion.METHOD_RRF, weights=dict.fromkeys(spaces, 1.0)),
        boosts=[
            Boost(filter="category = 'Juice' and price < 20", weight=0.1),
            Boost(filter="stock > 0", weight=0.05),
        ],
        group_variants=True,
        near_duplicate_similarity=0.95,
        min_score=-1.0,
    )
    configs = {
        "default": validate(default_config(), spaces),
        "every term, explained": validate(every_term, spaces),
    }
    references = unit_vectors(np.random.default_rng(1), REFERENCES, spaces["identity"])
    hubness = Hubness(bundle.embedder_card.sha256, references, NEAREST, 0.5, 0.0)
    rows = []
    for count in (100, 300):
        candidates, products = some_candidates(count, spaces)
        for name, config in configs.items():
            call = partial(rank, config, candidates, products, 10, "explained" in name)
            rows.append(measure(f"{count} candidates, {name}", call))
            with_hubness = partial(call, hubness=hubness)
            rows.append(measure(f"{count} candidates, {name}, hubness", with_hubness))
    report("reranking", rows, bundle=bundle.id)


def some_candidates(count: int, spaces: dict[str, int]) -> tuple[list[Candidate], dict[str, Product]]:
    """Random candidates, two to a product, three products to a group."""
    rng = np.random.default_rng(0)
    identity = unit_vectors(rng, count, spaces["identity"])
    candidates = [
        Candidate(
            product_id=f"product-{row // 2}",
            image_sha256=f"{row:064x}",
            box=Box(x0=0, y0=0, x1=1, y1=1),
            similarity={space: float(rng.uniform(0.2, 0.95)) for space in spaces},
            identity=identity[row].tobytes(),
        )
        for row in range(count)
    ]
    products = {
        f"product-{i}": Product(
            id=f"product-{i}",
            category=CATEGORIES[i % len(CATEGORIES)],
            price=float(rng.uniform(1, 100)),
            stock=float(i % 3),
            group=f"group-{i // 3}",
        )
        for i in range((count + 1) // 2)
    }
    return candidates, products


if __name__ == "__main__":
    main()
