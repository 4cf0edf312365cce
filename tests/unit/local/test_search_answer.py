"""What `magpie search` shows of an answer: probabilities where the bundle is calibrated, else none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from local.commands.hits import _facet_line, _table, answer, merged
from magpie.ranking.facets import count_facet
from magpie.v1.product_pb2 import AttributeValue, Product
from magpie.v1.reranking_pb2 import Hit
from magpie.v1.visual_search_pb2 import ObjectHits, SearchResponse


def shown(hits: list[Hit]) -> str:
    screen = io.StringIO()
    Console(file=screen, width=100).print(_table(ObjectHits(hits=hits)))
    return screen.getvalue()


def test_probabilities_have_a_column_of_their_own() -> None:
    text = shown(
        [Hit(product_id="a", score=0.5, probability=0.876), Hit(product_id="b", score=0.4, title="B")]
    )
    assert "probability" in text
    assert text.splitlines()[1].split() == ["1", "a", "0.500", "0.88"]
    assert text.splitlines()[2].split() == ["2", "b", "0.400", "B"]


@pytest.mark.parametrize("hits", [[], [Hit(product_id="a", score=0.5, title="A")]])
def test_without_calibration_there_is_no_column(hits: list[Hit]) -> None:
    assert "probability" not in shown(hits)


def test_groups_have_a_column_of_their_own() -> None:
    text = shown(
        [Hit(product_id="a", score=0.5, title="A", stands_for=["b", "c"]), Hit(product_id="d", title="D")]
    )
    assert text.splitlines()[1].split() == ["1", "a", "0.500", "A", "b,", "c"]
    assert "stands for" not in shown([Hit(product_id="a", title="A")])


SHOP = [
    Product(id=str(row), price=row, attributes={"new": AttributeValue(flag=row < 2)}, title=f"T{row}")
    for row in range(12)
]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("new", "new of 12 products: false (10), true (2)"),
        (
            "price",
            "price of 12 products, 0 to 11: "
            "0 (1), 1 (1), 2 (1), 3 (1), 4 (1), 5 (1), 6 (1), 7 (1), 8 (1), 9 (1), 2 more",
        ),
        ("brand", "brand of 0 products: none has it"),
    ],
)
def test_a_facet_in_one_line(name: str, line: str) -> None:
    assert _facet_line(count_facet(name, SHOP)) == line


def test_facets_in_json() -> None:
    facets = [count_facet("price", SHOP[:2]), count_facet("title", SHOP[:1]), count_facet("new", SHOP[:1])]
    (told,) = answer(SearchResponse(objects=[ObjectHits(facets=facets)]))["objects"]
    assert told["facets"] == {
        "price": {
            "products": 2,
            "distinct": 2,
            "min": 0.0,
            "max": 1.0,
            "values": [{"value": 0.0, "products": 1}, {"value": 1.0, "products": 1}],
        },
        "title": {
            "products": 1,
            "distinct": 1,
            "min": None,
            "max": None,
            "values": [{"value": "T0", "products": 1}],
        },
        "new": {
            "products": 1,
            "distinct": 1,
            "min": None,
            "max": None,
            "values": [{"value": True, "products": 1}],
        },
    }


def test_json_tells_a_probability_of_zero_from_none() -> None:
    hits = [Hit(product_id="a", probability=0.0), Hit(product_id="b")]
    told = answer(SearchResponse(objects=[ObjectHits(hits=hits)]))
    assert [hit["probability"] for hit in told["objects"][0]["hits"]] == [0.0, None]


def test_pages_become_one_answer() -> None:
    pages = [
        SearchResponse(
            query_id="q",
            objects=[ObjectHits(hits=[Hit(product_id=id_) for id_ in ids]) for ids in of_page],
            timings_ms={"search": 2.0, "total": 3.0},
            next_page_token=token,
        )
        for of_page, token in ((("ab", "uv"), "more"), (("c", ""), ""))
    ]
    whole = merged(pages)
    assert [[hit.product_id for hit in found.hits] for found in whole.objects] == [list("abc"), list("uv")]
    assert (whole.query_id, whole.next_page_token) == ("q", "")
    assert dict(whole.timings_ms) == {"search": 4.0, "total": 6.0}
    assert merged(pages[:1]).next_page_token == "more"
