"""Facets and grouping, against naive loops."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from magpie.index.filter_terms import value_of
from magpie.ranking.facets import MAX_VALUES, count_facet
from magpie.ranking.rank import rank_page
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet
from magpie.v1.reranking_pb2 import Facet
from magpie.v1.search_pb2 import Candidate
from tests.unit.index.test_filter import products
from tests.unit.ranking.test_rank import candidate, candidate_lists, catalogue, config


def told(facet: Facet) -> list[tuple[str | float | bool, int]]:
    return [(getattr(each.value, each.value.WhichOneof("kind")), each.products) for each in facet.values]


@given(st.lists(products, max_size=12), st.sampled_from(["colour", "size", "title", "price", "nothing"]))
def test_counts_equal_the_naive_loop(shop: list[Product], name: str) -> None:
    counts: Counter[tuple[type, str | float | bool]] = Counter()
    numbers, having = [], 0
    for product in shop:
        value = value_of(product, name)
        having += value is not None
        if isinstance(value, frozenset):
            counts.update((str, text) for text in value)
        elif value is not None:
            counts[type(value), value] += 1
        if isinstance(value, float):
            numbers.append(value)
    facet = count_facet(name, shop)
    assert (facet.name, facet.products, facet.distinct) == (name, having, len(counts))
    assert {(type(value), value): count for value, count in told(facet)} == counts
    assert [count for _, count in told(facet)] == sorted(counts.values(), reverse=True)
    assert facet.HasField("min") == facet.HasField("max") == bool(numbers)
    if numbers:
        assert (facet.min, facet.max) == (min(numbers), max(numbers))


def test_a_set_counts_in_each_of_its_texts_and_ties_go_to_the_smaller() -> None:
    shop = [
        Product(id=id_, attributes={"tags": AttributeValue(texts=TextSet(values=tags))})
        for id_, tags in {"p": ["b", "a", "b"], "q": ["c", "b"], "r": ["a"], "s": []}.items()
    ]
    facet = count_facet("tags", shop)
    assert told(facet) == [("a", 2), ("b", 2), ("c", 1)]
    assert facet.products == 3


def test_at_most_so_many_values_but_all_are_counted() -> None:
    shop = [Product(id=f"p{row}", price=row) for row in range(MAX_VALUES + 50)]
    facet = count_facet("price", shop)
    assert (len(facet.values), facet.distinct, facet.min, facet.max) == (MAX_VALUES, 150, 0, 149)


def test_facets_count_what_passes_filter_and_cut_off_beyond_limit_and_groups() -> None:
    shop = (
        catalogue("a", "b", category="Juice", group="g", stock=1.0)
        | catalogue("c", category="Tea", stock=1.0)
        | catalogue("d", category="Tea", stock=0.0)  # the filter is against it
        | catalogue("e", category="Water", stock=1.0)  # the cut-off is
    )
    found = [candidate(id_, score) for id_, score in zip("abcde", (0.9, 0.8, 0.7, 0.6, -0.9), strict=True)]
    found.append(candidate("a", 0.1))  # another object of a product counts no second time
    rules = config(filter="stock > 0", min_score=0.0, group_variants=True)
    answer = rank_page(rules, found, shop, limit=1, facets=["category", "stock", "brand"])
    assert [(hit.product_id, list(hit.stands_for)) for hit in answer.hits] == [("a", ["b"])]
    assert [told(facet) for facet in answer.facets] == [[("Juice", 2), ("Tea", 1)], [(1.0, 3)], []]
    assert [facet.products for facet in answer.facets] == [3, 3, 0]


def test_facets_of_nothing() -> None:
    answer = rank_page(config(), [], {}, 10, facets=["brand", "price"])
    assert [(facet.name, facet.products) for facet in answer.facets] == [("brand", 0), ("price", 0)]


def test_group_by_takes_the_place_of_the_configs_variants() -> None:
    brand = {
        id_: {"brand": AttributeValue(text=text)} for id_, text in {"a": "x", "b": "y", "c": "x"}.items()
    }
    shop = {id_: Product(id=id_, group="all", attributes=brand.get(id_)) for id_ in "abcde"}
    shop["e"].attributes["brand"].number = 5  # no text
    found = [candidate(id_, 0.9 - 0.1 * place) for place, id_ in enumerate("abcde")]
    rules = config(group_variants=True)

    def groups(group_by: str) -> list[tuple[str, list[str]]]:
        hits = rank_page(rules, found, shop, 10, group_by=group_by).hits
        return [(hit.product_id, list(hit.stands_for)) for hit in hits]

    assert groups("") == groups("group") == [("a", ["b", "c", "d", "e"])]
    assert groups("brand") == [("a", ["c"]), ("b", []), ("d", []), ("e", [])]


@given(candidate_lists, st.lists(st.sampled_from(["", "x", "y"]), min_size=6, max_size=6))
def test_grouping_keeps_the_best_of_each_text_and_loses_nobody(
    candidates: list[Candidate], groups: list[str]
) -> None:
    shop = {id_: Product(id=id_, group=group) for id_, group in zip("abcdef", groups, strict=True)}
    plain = [hit.product_id for hit in rank_page(config(), candidates, shop, 100).hits]
    expected: list[list[str]] = []
    for id_ in plain:
        home = next(
            (each for each in expected if shop[id_].group and shop[each[0]].group == shop[id_].group), None
        )
        if home is None:
            expected.append([id_])
        else:
            home.append(id_)
    hits = rank_page(config(), candidates, shop, 100, group_by="group").hits
    assert [[hit.product_id, *hit.stands_for] for hit in hits] == expected
