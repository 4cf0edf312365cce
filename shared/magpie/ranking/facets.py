"""Facets: which values the products have that were found, and how many have each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from magpie.index.filter_terms import Literal, value_of
from magpie.v1.product_pb2 import AttributeValue, Product
from magpie.v1.reranking_pb2 import Facet, FacetValue

MAX_FACETS = 10  # a search
MAX_VALUES = 100  # told of each


def count_facet(name: str, products: Sequence[Product]) -> Facet:
    """The values of `name`, most frequent first; a product counts once for each text of its set.

    Of values that as many products have the smaller comes first: flags, then numbers, then texts.
    """
    values = [value for product in products if (value := value_of(product, name)) is not None]
    counts: Counter[tuple[str, Literal]] = Counter()  # by the type too: 1.0 == True
    for value in values:
        for single in value if isinstance(value, frozenset) else (value,):
            counts[type(single).__name__, single] += 1
    order = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    facet = Facet(
        name=name,
        products=len(values),
        distinct=len(counts),
        values=[
            FacetValue(value=_attribute_value(single), products=count)
            for (_, single), count in order[:MAX_VALUES]
        ],
    )
    numbers = [value for value in values if isinstance(value, float)]
    if numbers:
        facet.min, facet.max = min(numbers), max(numbers)
    return facet


def _attribute_value(value: Literal) -> AttributeValue:
    if isinstance(value, bool):
        return AttributeValue(flag=value)
    return AttributeValue(number=value) if isinstance(value, float) else AttributeValue(text=value)
