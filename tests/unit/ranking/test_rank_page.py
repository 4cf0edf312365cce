"""Pages of one ranking: what earlier ones have shown is left out, whoever leads its group by now."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.errors import InvalidArgument
from magpie.ranking.config import validate
from magpie.ranking.rank import rank, rank_page
from magpie.rpc.context import CallContext
from magpie.services.reranking import RerankingServicer
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig
from magpie.v1.reranking_pb2 import HitList, RerankRequest, ShownProducts
from magpie.v1.search_pb2 import Candidate, CandidateList

SPACES = ("identity",)


def config(**fields: object) -> RankingConfig:
    return validate(RankingConfig(**fields), SPACES)  # type: ignore[arg-type]


def candidate(product_id: str, identity: float) -> Candidate:
    angle = np.arccos(identity)
    vector = np.array([np.cos(angle), np.sin(angle)], "<f4")
    return Candidate(product_id=product_id, similarity={"identity": identity}, identity=vector.tobytes())


def products(*ids: str, **groups: str) -> dict[str, Product]:
    return {id_: Product(id=id_, group=groups.get(id_, "")) for id_ in ids}


def ids(page: HitList) -> list[str]:
    return [hit.product_id for hit in page.hits]


candidates = st.lists(
    st.builds(candidate, st.sampled_from("abcdefgh"), st.floats(-1, 1)), min_size=1, max_size=20
)


@given(
    candidates,
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([Fusion.METHOD_WEIGHTED, Fusion.METHOD_RRF]),
)
def test_pages_are_the_pieces_of_the_ranking(
    found: list[Candidate], limit: int, group: bool, near: float, method: Fusion.Method.ValueType
) -> None:
    rules = config(
        fusion=Fusion(method=method, weights={"identity": 1}),
        group_variants=group,
        near_duplicate_similarity=near,
    )
    known = products(*"abcdefgh", a="g", b="g", c="h", d="h")
    whole = rank(rules, found, known, 100)
    shown: set[str] = set()
    hits = []
    more = True
    while more:
        page = rank_page(rules, found, known, limit, shown=shown)
        more = page.more
        assert more == (len(hits) + limit < len(whole))
        hits += page.hits
        shown |= {id_ for hit in page.hits for id_ in (hit.product_id, *hit.stands_for)}
    assert hits == whole


@pytest.mark.parametrize("shown", ["a", "b", "c"])
def test_a_group_was_shown_if_any_of_it_was(shown: str) -> None:
    known = products(*"abcd", a="g", b="g", c="g")
    found = [candidate(id_, 0.9 - place / 10) for place, id_ in enumerate("abcd")]
    assert ids(rank_page(config(group_variants=True), found, known, 10, shown={shown})) == ["d"]
    alone = [id_ for id_ in "abcd" if id_ != shown]
    assert ids(rank_page(config(), found, known, 10, shown={shown})) == alone


def test_it_counts_what_the_cut_offs_have_cut() -> None:
    found = [candidate(id_, 0.9 - place / 10) for place, id_ in enumerate("abcde")]
    page = rank_page(config(min_score=0.65), found, products(*"abcde"), 2)
    assert (ids(page), page.more, page.cut_off) == (["a", "b"], True, 2)
    page = rank_page(config(), found, products(*"abcde"), 5)
    assert (page.more, page.cut_off) == (False, 0)
    assert rank_page(config(), [], {}, 5) == HitList()


def test_the_servicer_takes_one_list_a_result() -> None:
    servicer = RerankingServicer(SPACES)
    context = CallContext(customer="shop")
    found = CandidateList(candidates=[candidate("a", 0.9), candidate("b", 0.8)])
    request = RerankRequest(
        config=config(), results=[found, found], products=products("a", "b").values(), limit=1
    )
    request.shown.extend([ShownProducts(product_ids=["a"]), ShownProducts()])
    answer = servicer.Rerank(request, context)
    assert [(ids(page), page.more) for page in answer.results] == [(["b"], False), (["a"], True)]
    del request.shown[1]
    with pytest.raises(InvalidArgument, match="shown: needs one for each of the 2 results, got 1"):
        servicer.Rerank(request, context)
