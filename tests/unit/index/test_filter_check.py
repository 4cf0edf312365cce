"""What is refused of a filter, a facet and a grouping, and what is let pass."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.errors import FilterMismatch, FilterSyntax, InvalidArgument
from magpie.index.attribute_schema import AttributeSchema, ValueType, types_of
from magpie.index.filter import parse
from magpie.index.filter_check import check_filter, check_name, check_text_name
from magpie.index.filter_terms import Filter
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet
from tests.unit.index.test_filter import JUICE, leaves, products


def schema_of(*those: Product) -> AttributeSchema:
    counts: dict[str, Counter[ValueType]] = {}
    for product in those:
        for name, type_ in types_of(product):
            counts.setdefault(name, Counter())[type_] += 1
    return AttributeSchema(counts, len(those))


SHOP = schema_of(
    Product(
        id="p",
        attributes={
            "colour": AttributeValue(text="red"),
            "Colours": AttributeValue(text="v"),
            "width": AttributeValue(number=2),
            "tags": AttributeValue(texts=TextSet(values=["new"])),
            "on_sale": AttributeValue(flag=True),
            "size": AttributeValue(number=40),
        },
    ),
    Product(id="q", attributes={"size": AttributeValue(text="L")}),
)


@pytest.mark.parametrize(
    "text",
    [
        "colour = 'blue' and colour in ('a', 'b') and exists tags",
        "size = 40 or size = 'L' or size in (41, 'M')",
        "tags = 'old' or tags != 'new' or tags in ('new')",
        "not on_sale = true",
        # built-in names are always there, whatever the products have
        "title = 'x' and category != 'y' and group in ('z') and id = 'p' and exists stock and price < 3",
    ],
)
def test_what_products_may_have_passes(text: str) -> None:
    check_filter(text, SHOP)


@pytest.mark.parametrize(
    ("text", "position", "parts"),
    [
        ("colr = 'red'", 0, ["no product has `colr` (near are `colour`, `Colours`; CatalogService.GetAttr"]),
        ("price < 3 and not exists sale", 25, ["no product has `sale`"]),
        ("Colour = 'red'", 0, ["no product has `Colour` (near are `colour`, `Colours`;"]),
        ("xyz in (1)", 0, ["no product has `xyz` (CatalogService.GetAttributes lists all) at position 0"]),
        ("price = 'cheap'", 0, ["`price` is a number, and 'cheap' is a text", "without quotes"]),
        ("id = 'p' or (colour < 3)", 13, ["`colour` is a text, and 3 is a number", "in quotes"]),
        ("tags > 1", 0, ["`tags` is a set of texts, and 1 is a number", "that it may contain"]),
        ("on_sale = 'true'", 0, ["`on_sale` is a flag, and 'true' is a text", "true or false"]),
        ("size = true", 0, ["`size` is a number or a text, and true is a flag"]),
        ("colour in ('red', 5)", 0, ["and 5 is a number"]),
        (f"price = '{'x' * 1000}'", 0, ["is a text (compare a number with"]),
    ],
)
def test_what_none_can_have_is_named_with_its_position(text: str, position: int, parts: list[str]) -> None:
    with pytest.raises(FilterMismatch, match=r"^boosts\[2\]\.filter: ") as refused:
        check_filter(text, SHOP, "boosts[2].filter")
    assert refused.value.position == position
    for part in parts:
        assert part in str(refused.value)[:600]  # all that a transport sends


def test_a_filter_that_does_not_parse_is_a_matter_of_syntax() -> None:
    with pytest.raises(FilterSyntax) as refused:
        check_filter("price <", SHOP)
    assert not isinstance(refused.value, FilterMismatch)


@pytest.mark.parametrize("schema", [AttributeSchema(), AttributeSchema(SHOP.counts, products=3)])
def test_without_a_complete_schema_unknown_names_pass(schema: AttributeSchema) -> None:
    check_filter("colr = 'red' or exists nothing", schema)
    check_name("colr", schema, "facets[0]")
    check_text_name("colr", schema, "group_by")
    with pytest.raises(FilterMismatch):
        check_filter("price = 'cheap'", schema)  # that is known of every catalogue


def test_names_of_facets_and_groupings() -> None:
    for name in ("colour", "tags", "size", "price", "group"):
        check_name(name, SHOP, "facets[0]")
    with pytest.raises(InvalidArgument, match=r"^facets\[1\]: no product has `colr` \(near are `colour`"):
        check_name("colr", SHOP, "facets[1]")
    for name in ("colour", "size", "group", "category"):
        check_text_name(name, SHOP, "group_by")
    for name in ("price", "tags", "on_sale"):
        with pytest.raises(InvalidArgument, match=rf"^group_by: `{name}` is .*: only texts"):
            check_text_name(name, SHOP, "group_by")
    with pytest.raises(InvalidArgument, match=r"^group_by: no product has `brand` "):
        check_text_name("brand", SHOP, "group_by")


@given(leaves, st.lists(products, max_size=5))
def test_what_holds_for_some_product_is_never_refused(leaf: Filter, shop: list[Product]) -> None:
    shop.append(JUICE)
    text = str(leaf)
    try:
        check_filter(text, schema_of(*shop))
    except FilterMismatch:
        if " in (" not in text:  # of which one literal may hold and another be refused
            assert not any(parse(text).matches(product) for product in shop)
