from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magpie.errors import FilterSyntax
from magpie.index.columns import ProductColumns
from magpie.index.filter import MAX_CHARACTERS, MAX_DEPTH, parse
from magpie.index.filter_terms import ORDERING, And, Comparison, Exists, Filter, In, Not, Or
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet

JUICE = Product(
    id="j1",
    title="Apple juice",
    category="Juice",
    price=12.5,
    attributes={
        "size": AttributeValue(number=1.5),
        "brand": AttributeValue(text="Ben's"),
        "organic": AttributeValue(flag=False),
        "tags": AttributeValue(texts=TextSet(values=["sour", "green", "sour"])),
        "bare": AttributeValue(texts=TextSet()),
        "unset": AttributeValue(),
        "odd": AttributeValue(number=float("nan")),
    },
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("category = 'Juice'", True),
        ("category = 'juice'", False),
        ('category = "Juice" AND price < 20', True),
        ("price<12.5 or price>=12.5", True),
        ("price = 125e-1", True),
        ("price != 3", True),
        ("id in ('a', 'j1')", True),
        ("size in ('1.5', 1.5)", True),
        ("brand = 'Ben''s' and brand = \"Ben's\"", True),
        ("organic = false", True),
        ("organic != true", True),
        ("not organic = true", True),
        # sets: `=` and `in` ask whether a text is in it
        ("tags = 'sour' and tags = 'green'", True),
        ("tags = 'sweet'", False),
        ("tags != 'sweet'", True),
        ("tags != 'sour'", False),
        ("tags in ('sweet', 'sour')", True),
        ("tags in ('sweet')", False),
        ("tags = 1 or tags != 1 or tags < 1 or tags = true", False),
        ("exists tags and not exists bare", True),
        ("bare != 'sour'", False),
        # missing values, and values of another type
        ("stock = 0", False),
        ("stock != 0", False),
        ("not stock = 0", True),
        ("size = '1.5'", False),
        ("size != '1.5'", False),
        ("organic = 0", False),
        ("group = ''", False),
        ("exists price and exists size and not exists stock", True),
        ("exists group or exists unset or exists odd or exists nothing", False),
        ("odd != 1", False),
        # `and` binds more tightly than `or`, `not` more tightly than both
        ("exists price or exists stock and exists stock", True),
        ("(exists price or exists stock) and exists stock", False),
        ("not exists stock and exists price", True),
        ("not (exists stock or exists price)", False),
    ],
)
def test_what_a_filter_means(text: str, holds: bool) -> None:
    columns = ProductColumns()
    columns.append([JUICE])
    assert parse(text).matches(JUICE) is holds
    assert parse(text).mask(columns.first(1)).tolist() == [holds]


def test_reading_a_missing_attribute_does_not_create_it() -> None:
    product = Product(id="a")
    parse("colour = 'red'").matches(product)
    assert not product.attributes


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "expected a name"),
        ("price", 5, "expected `=`"),
        ("price < ", 8, "expected a number"),
        ("price < 'a'", 8, "expected a number"),
        ("price < true", 8, "expected a number"),
        ("a = b", 4, "expected a text in quotes, a number"),
        ("a = 'b", 4, "no quote ends"),
        ("a = 1 b = 2", 6, "expected `and`, `or` or the end"),
        ("(a = 1", 6, "or `)`"),
        ("a in 1", 5, "expected `(`"),
        ("a in (1 2)", 8, "expected `,` or `)`"),
        ("a in ()", 6, "expected a text in quotes, a number"),
        ("exists 'a'", 7, "expected a name"),
        ("a = 1 and and", 10, "expected a name"),
        ("a = 3x", 4, "expected a number"),
        ("a = 1e999", 4, "double precision"),
        ("a == 1", 3, "expected a text in quotes, a number"),
        ("a = 1 & b = 2", 6, "unexpected '&'"),
        ("naïve = 1", 2, "unexpected 'ï'"),
        ("not " * (MAX_DEPTH + 1) + "a = 1", 4 * MAX_DEPTH, "more than 32"),
    ],
)
def test_a_syntax_error_names_its_position(text: str, position: int, expected: str) -> None:
    with pytest.raises(FilterSyntax, match="filter: ") as error:
        parse(text)
    assert error.value.position == position
    assert expected in str(error.value)


def test_limits_are_inclusive() -> None:
    assert parse("(" * MAX_DEPTH + "a = 1" + ")" * MAX_DEPTH) == Comparison("a", "=", 1.0)
    longest = "a = '" + "x" * (MAX_CHARACTERS - 6) + "'"
    assert isinstance(parse(longest), Comparison)
    with pytest.raises(FilterSyntax, match="2000 characters"):
        parse(longest + " ")


names = st.sampled_from(
    ["id", "title", "category", "group", "price", "stock", "colour", "size", "_x1", "nothing"]
)
texts = st.sampled_from(["a", "b", "", "Ben's", '"', "'\"'", "é\n"])
numbers = st.sampled_from([0.0, 1.0, -2.5, 1e300]) | st.floats(allow_nan=False, allow_infinity=False)
values = texts | numbers | st.booleans()
leaves = st.one_of(
    st.builds(Comparison, names, st.sampled_from(["=", "!="]), values),
    st.builds(Comparison, names, st.sampled_from(sorted(ORDERING)), numbers),
    st.builds(In, names, st.lists(values, min_size=1, max_size=3).map(tuple)),
    st.builds(Exists, names),
)


def _nested(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(And, several) | st.builds(Or, several)


filters = st.recursive(leaves, _nested, max_leaves=8)
attribute_values = st.one_of(
    st.builds(AttributeValue, text=texts),
    st.builds(AttributeValue, number=numbers | st.just(float("nan"))),
    st.builds(AttributeValue, flag=st.booleans()),
    st.builds(AttributeValue, texts=st.builds(TextSet, values=st.lists(texts, max_size=3))),
    st.builds(AttributeValue),
)
products = st.builds(
    Product,
    id=st.sampled_from(["a", "b"]),
    title=texts,
    category=texts,
    price=st.none() | numbers,
    stock=st.none() | numbers,
    group=texts,
    attributes=st.dictionaries(st.sampled_from(["colour", "size", "_x1"]), attribute_values),
)


@given(filters)
def test_the_text_of_a_filter_parses_to_the_same_filter(filter_: Filter) -> None:
    assert parse(str(filter_)) == filter_


@given(filters, st.lists(products, max_size=5), st.lists(products, max_size=80))
def test_columns_and_single_products_agree(
    filter_: Filter, first: list[Product], later: list[Product]
) -> None:
    columns = ProductColumns(max_columns=2)
    columns.append(first)
    view = columns.first(len(first))
    before = filter_.mask(view)
    columns.append(later)  # into columns that the filter has already built
    everything = first + later
    expected = [filter_.matches(product) for product in everything]
    assert filter_.mask(columns.first(len(everything))).tolist() == expected
    assert np.array_equal(filter_.mask(view), before)  # a view never sees later rows


@given(st.text("()='\"<>!,.+-eE 01aAndorti \t\né", max_size=40))
@example("a = 'x' or (b != 2 and not exists c)")
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        filter_ = parse(text)
    except FilterSyntax as error:
        assert 0 <= error.position <= len(text)
    else:
        assert parse(str(filter_)) == filter_
