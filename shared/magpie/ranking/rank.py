"""Candidates to hits, in the one fixed order.

filter -> take off hubness -> fuse the spaces -> boosts -> best object of each product -> cut-offs -> variants
-> near-duplicates -> what earlier pages have shown

The cut-offs come before the grouping: a variant that passes is shown, though a better ranked one does not.
What was shown comes last: it takes part in all else, so that a page goes on where the one before it ended.
Facets count what passes the cut-offs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from magpie.index.filter import parse
from magpie.index.filter_terms import Value, value_of
from magpie.ranking import fusion
from magpie.ranking.calibration import HIT_SPACE, Calibration
from magpie.ranking.facets import count_facet
from magpie.ranking.hubness import Hubness
from magpie.ranking.near_duplicates import representatives
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig
from magpie.v1.reranking_pb2 import Hit, HitList, Reason
from magpie.v1.search_pb2 import Candidate


def rank(
    config: RankingConfig,
    candidates: Sequence[Candidate],
    products: Mapping[str, Product],
    limit: int,
    explain: bool = False,
    *,
    calibration: Calibration | None = None,
    hubness: Hubness | None = None,
) -> list[Hit]:
    """The hits alone of `rank_page`, of the first page."""
    page = rank_page(config, candidates, products, limit, explain, calibration=calibration, hubness=hubness)
    return list(page.hits)


def rank_page(
    config: RankingConfig,
    candidates: Sequence[Candidate],
    products: Mapping[str, Product],
    limit: int,
    explain: bool = False,
    *,
    shown: Collection[str] = frozenset(),
    calibration: Calibration | None = None,
    hubness: Hubness | None = None,
    group_by: str = "",
    facets: Sequence[str] = (),
) -> HitList:
    """The best `limit` products, best first; ties go to the smaller product id.

    No hit is one of the products `shown`, nor stands for one: a group of variants is shown once, whichever of
    them leads it by now.

    `config` is validated (`ranking.config.validate`); `products` holds every product that a candidate names.
    With a calibration each hit has its probability: that of the product's largest similarity in `identity`,
    whichever of its objects has the best score. With `hubness` each candidate pays its penalty, in `identity`
    and so only where the config weighs that space; the probability stays. `group_by` names texts, each of
    which is shown once, in place of the config's `group_variants`; `facets` names what is counted among the
    products that pass the filter and the cut-offs, on whatever page.
    """
    allowed = set(products)
    if config.filter:
        condition = parse(config.filter)
        allowed = {id_ for id_, product in products.items() if condition.matches(product)}
    candidates = [candidate for candidate in candidates if candidate.product_id in allowed]
    if not candidates:
        return HitList(facets=[count_facet(name, []) for name in facets])

    # In an order of their own: that of a protobuf map is not the same everywhere, and sums round by it.
    spaces = sorted(space for space, weight in config.fusion.weights.items() if weight > 0)
    similarities = np.array([[c.similarity[space] for space in spaces] for c in candidates], np.float64)
    ids = sorted({candidate.product_id for candidate in candidates})
    number = {id_: n for n, id_ in enumerate(ids)}
    product_of = np.array([number[candidate.product_id] for candidate in candidates], np.intp)
    penalties = _penalties(hubness, spaces, candidates)
    shares = _shares(config.fusion, spaces, similarities - penalties, product_of)
    boosts = _boosts(config, [products[id_] for id_ in ids])  # (P, B)
    scores = shares.sum(axis=1) + boosts.sum(axis=1)[product_of]

    # Best object of each product; equal scores fall to the smaller id, then to the first object.
    order = np.lexsort((product_of, -scores))
    _, first = np.unique(product_of[order], return_index=True)
    best_first = [int(row) for row in order[np.sort(first)]]
    of_all = len(best_first)
    if config.HasField("min_score"):
        best_first = [row for row in best_first if scores[row] >= config.min_score]
    probabilities = None  # (P,)
    if calibration:
        categories = [products[id_].category for id_ in ids]
        probabilities = _probabilities(calibration, candidates, product_of, categories)
        if config.HasField("min_probability"):
            sure = probabilities >= config.min_probability
            best_first = [row for row in best_first if sure[product_of[row]]]

    cut_off = of_all - len(best_first)
    passed = {row: products[candidates[row].product_id] for row in best_first}
    stands_for: dict[int, list[int]] = {row: [] for row in best_first}
    group_by = group_by or ("group" if config.group_variants else "")
    if group_by:
        stands_for = _grouped({row: value_of(product, group_by) for row, product in passed.items()})
    if config.near_duplicate_similarity > 0 and stands_for:
        stands_for = _merge_near_duplicates(candidates, stands_for, config.near_duplicate_similarity)

    hits = []
    new = [row for row in stands_for if not _was_shown(candidates, (row, *stands_for[row]), shown)]
    for row in new[:limit]:
        candidate = candidates[row]
        hit = Hit(
            product_id=candidate.product_id,
            score=scores[row],
            title=products[candidate.product_id].title,
            image_sha256=candidate.image_sha256,
            box=candidate.box,
            stands_for=[candidates[other].product_id for other in stands_for[row]],
        )
        if probabilities is not None:
            hit.probability = probabilities[product_of[row]]
        if explain:
            reasons = _space_reasons(config.fusion, spaces, similarities[row], penalties[row], shares[row])
            hit.reasons.extend(reasons)
            hit.reasons.extend(_boost_reasons(config, boosts[product_of[row]]))
        hits.append(hit)
    return HitList(
        hits=hits,
        more=len(new) > limit,
        cut_off=cut_off,
        facets=[count_facet(name, list(passed.values())) for name in facets],
    )


def _penalties(
    hubness: Hubness | None, spaces: Sequence[str], candidates: Sequence[Candidate]
) -> NDArray[np.float64]:
    """What is taken off each similarity: (N, S)."""
    if hubness is None:
        return np.zeros((len(candidates), len(spaces)))
    vectors = np.stack([np.frombuffer(candidate.identity, "<f4") for candidate in candidates])
    return hubness.penalties(vectors, spaces)


def _shares(
    rule: Fusion, spaces: Sequence[str], similarities: fusion.Similarities, product_of: NDArray[np.intp]
) -> fusion.Shares:
    weights = np.array([rule.weights[space] for space in spaces])
    weights /= weights.sum()
    if rule.method == Fusion.METHOD_RRF:
        return fusion.reciprocal_rank(similarities, product_of, weights, rule.rrf_k)
    return fusion.weighted(similarities, weights)


def _probabilities(
    calibration: Calibration,
    candidates: Sequence[Candidate],
    product_of: NDArray[np.intp],
    categories: Sequence[str],
) -> NDArray[np.float64]:
    """How likely each product is the one in the photo: (N,) products of the candidates -> (P,)."""
    best = np.full(len(categories), -1.0)
    np.maximum.at(best, product_of, [candidate.similarity[HIT_SPACE] for candidate in candidates])
    return calibration.probability(HIT_SPACE, best, categories)


def _boosts(config: RankingConfig, products: Sequence[Product]) -> NDArray[np.float64]:
    """What each boost adds to each product: (P, B)."""
    conditions = [parse(boost.filter) for boost in config.boosts]
    return np.array(
        [
            [
                boost.weight if condition.matches(product) else 0.0
                for boost, condition in zip(config.boosts, conditions, strict=True)
            ]
            for product in products
        ]
    ).reshape(len(products), len(conditions))


def _grouped(values: Mapping[int, Value | None]) -> dict[int, list[int]]:
    """Kept row -> rows of the same text ranked below it. One without a text stands alone.

    `values` are those of the rows, best first.
    """
    kept: dict[int, list[int]] = {}
    leader: dict[str, int] = {}
    for row, value in values.items():
        if isinstance(value, str) and value in leader:
            kept[leader[value]].append(row)
            continue
        kept[row] = []
        if isinstance(value, str):
            leader[value] = row
    return kept


def _merge_near_duplicates(
    candidates: Sequence[Candidate], stands_for: dict[int, list[int]], threshold: float
) -> dict[int, list[int]]:
    rows = list(stands_for)
    identity = np.stack([np.frombuffer(candidates[row].identity, "<f4") for row in rows])
    merged: dict[int, list[int]] = {}
    for kept, joined in representatives(identity, range(len(rows)), threshold).items():
        merged[rows[kept]] = stands_for[rows[kept]] + [
            other for place in joined for other in (rows[place], *stands_for[rows[place]])
        ]
    return merged


def _was_shown(candidates: Sequence[Candidate], rows: Sequence[int], shown: Collection[str]) -> bool:
    return bool(shown) and any(candidates[row].product_id in shown for row in rows)


def _space_reasons(
    rule: Fusion,
    spaces: Sequence[str],
    similarities: NDArray[np.float64],
    penalties: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> list[Reason]:
    how = "reciprocal rank, weight" if rule.method == Fusion.METHOD_RRF else "weight"
    return [
        Reason(
            term=space,
            value=share,
            note=f"similarity {similarity:.3f}"
            + (f", hubness {-penalty:+.3f}" if penalty else "")
            + f", {how} {rule.weights[space]:g}",
        )
        for space, similarity, penalty, share in zip(spaces, similarities, penalties, shares, strict=True)
    ]


def _boost_reasons(config: RankingConfig, added: NDArray[np.float64]) -> list[Reason]:
    return [
        Reason(term=f"boost: {boost.name or boost.filter}", value=value, note=boost.filter)
        for boost, value in zip(config.boosts, added, strict=True)
        if value
    ]
