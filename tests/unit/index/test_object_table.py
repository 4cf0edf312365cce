from __future__ import annotations

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.index.filter import parse
from magpie.index.object_table import ObjectTable, View
from magpie.v1.events_pb2 import ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate


def product(id_: str, price: float = 0.0) -> dict[str, bytes | None]:
    return {id_: Product(id=id_, price=price).SerializeToString()}


def objects(product_id: str, *values: float, dimension: int = 2) -> dict[tuple[str, str], bytes | None]:
    """One picture with an object for each value, which fills its vector."""
    embedded = [
        EmbeddedObject(vectors=[Vector(space="identity", values=np.full(dimension, v, "<f4").tobytes())])
        for v in values
    ]
    return {(product_id, "a"): ObjectsEmbedded(objects=embedded).SerializeToString()}


def found(view: View, condition: str = "") -> list[tuple[str, float, float]]:
    """Product, first value of the vector, price of every object that the condition holds for."""
    rows = view.rows(view.holds(parse(condition)) if condition else None)
    return sorted(
        (
            Candidate.FromString(view.objects[row]).product_id,
            float(view.spaces["identity"][row, 0]),
            view.columns.products[view.owner[row]].price,
        )
        for row in (range(len(view.owner)) if rows is None else rows)
    )


def test_a_view_never_changes() -> None:
    table = ObjectTable()
    table.apply(product("p1", 1) | product("p2", 2), objects("p1", 1, 2) | objects("p2", 3))
    view = table.view()
    before = [("p1", 1, 1), ("p1", 2, 1), ("p2", 3, 2)]
    assert found(view) == found(view, "price > 0") == before
    table.apply(product("p1", 9), {})
    table.apply({}, objects("p1", 5))
    table.apply({"p2": None}, {("p2", "a"): None})
    table.apply(product("p3", 3), objects("p3", *range(10, 2000)))
    assert found(view) == found(view, "price > 0") == before
    assert found(table.view(), "price = 9") == [("p1", 5, 9)]
    assert found(table.view(), "not price = 3") == [("p1", 5, 9)]


def test_memory_is_bounded_by_what_is_alive_not_by_what_was_written() -> None:
    table = ObjectTable()
    table.apply(product("steady", 1), objects("steady", 1))
    view = table.view()
    sizes = []
    for round_ in range(60):
        changes: dict[str, bytes | None] = {}
        pictures: dict[tuple[str, str], bytes | None] = {}
        for i in range(100):
            changes |= product(f"p{i}", round_)
            pictures |= objects(f"p{i}", round_)
        table.apply(changes, pictures)
        sizes.append(len(table.view().owner))
    assert max(sizes) < 1024 + 2 * 101 + 101
    assert len(table.view().columns.products) < 1024 + 2 * 101 + 101
    assert found(table.view()) == [*sorted((f"p{i}", 59, 59) for i in range(100)), ("steady", 1, 1)]
    assert found(view) == [("steady", 1, 1)]


def test_objects_of_an_unknown_product_are_left_out() -> None:
    table = ObjectTable()
    table.apply({}, objects("p1", 1))
    assert len(table.view().owner) == 0


def test_vectors_of_another_dimension_are_refused_unless_nothing_else_is_left() -> None:
    table = ObjectTable()
    table.apply(product("p1") | product("p2"), objects("p1", 1))
    with pytest.raises(FailedPrecondition, match="space identity"):
        table.apply({}, objects("p2", 1, dimension=3))
    table.apply({}, {("p1", "a"): None})
    table.apply({}, objects("p2", 1, dimension=3))
    assert table.view().spaces["identity"].shape == (1, 3)
