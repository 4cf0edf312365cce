"""A snapshot file against the products and vectors that went into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.index.columns import ProductColumns
from magpie.index.filter import parse
from magpie.index.section_file import SectionFile, SectionWriter
from magpie.index.snapshot import Merged, Snapshot
from magpie.index.snapshot_writer import Block, encoded, write_snapshot
from magpie.index.text_dictionary import TextDictionary, in_order
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet
from tests.random_codes import random_codes

DIMENSIONS = {"identity": 16, "similar": 8}


def unit(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    vectors = {space: rng.standard_normal((count, d)).astype(np.float32) for space, d in DIMENSIONS.items()}
    return {space: v / np.linalg.norm(v, axis=1, keepdims=True) for space, v in vectors.items()}


def write(path: Path, products: dict[str, Product], objects: int) -> dict[str, np.ndarray]:
    """`objects` of each product, in its pictures by turns. Returns space -> vectors, in their order."""
    ids = in_order(products)
    vectors = unit(np.random.default_rng(1), len(ids) * objects)
    blocks = []
    for start in range(0, len(ids), 3):
        part = ids[start : start + 3]
        rows = slice(start * objects, (start + len(part)) * objects)
        boxes = np.tile(np.array([0, 0.25, 0.5, 1], np.float32), (len(part) * objects, 1))
        records, planes = encoded(random_codes(DIMENSIONS), {s: v[rows] for s, v in vectors.items()}, boxes)
        numbers = np.tile(np.arange(objects, dtype=np.uint8) % 2, len(part))
        contents = [products[id_].SerializeToString() for id_ in part]
        blocks.append(Block(contents, [objects] * len(part), records, planes, numbers))
    merged = [Merged("p1", "a", "digest", 7)]
    write_snapshot(
        path, random_codes(DIMENSIONS), DIMENSIONS, blocks, generation=7, cursor="1-0 2", merged=merged
    )
    return vectors


def test_everything_that_was_written_is_found(tmp_path: Path) -> None:
    products = {f"p{i}": Product(id=f"p{i}", title="é" * i, images=["a", "b"]) for i in range(10)}
    vectors = write(tmp_path / "snapshot", products, objects=3)
    snapshot = Snapshot(tmp_path / "snapshot")
    assert (snapshot.generation, snapshot.cursor, snapshot.dimensions) == (7, "1-0 2", DIMENSIONS)
    assert (snapshot.products, snapshot.objects) == (10, 30)
    assert snapshot.merged == [Merged("p1", "a", "digest", 7)]
    assert snapshot.product_row("p10") is None
    for id_, product in products.items():
        row = snapshot.product_row(id_)
        assert row is not None
        assert Product.FromString(snapshot.product_bytes(row)) == product
        of_product = snapshot.objects_of(row)
        assert of_product == range(3 * row, 3 * row + 3)
        assert snapshot.owners[list(of_product)].tolist() == [row] * 3
        assert snapshot.image_objects(row, "a").tolist() == [3 * row, 3 * row + 2]
        assert snapshot.image_objects(row, "b").tolist() == [3 * row + 1]
        assert snapshot.image_objects(row, "c").tolist() == []
    rows = np.array([29, 4, 4])
    records = snapshot.records(rows)
    assert records["box"].tolist() == [[0, 0.25, 0.5, 1]] * 3
    for space, stored in snapshot.vectors(records).items():
        assert stored == pytest.approx(vectors[space][rows], abs=0.5 / 127)
    model = random_codes(DIMENSIONS)
    for row in (0, 29):
        words = snapshot.words({space: v[row] for space, v in vectors.items()})
        assert words.tolist() == snapshot.planes[:, row].tolist()
    for space, coder in model.coders.items():
        assert np.array_equal(snapshot.hash_model.coders[space].weights[0], coder.weights[0])


values = st.one_of(
    st.none(),
    st.sampled_from(["red", "blue", ""]).map(lambda text: AttributeValue(text=text)),
    st.sampled_from([0.0, 1.5, -2.0]).map(lambda number: AttributeValue(number=number)),
    st.booleans().map(lambda flag: AttributeValue(flag=flag)),
    st.sets(st.sampled_from(["red", "blue", "green"])).map(
        lambda texts: AttributeValue(texts=TextSet(values=sorted(texts)))
    ),
)
conditions = st.sampled_from(
    [
        "id = 'p1'", "id != 'p1'", "id in ('p0', 'p3', 'x')", "exists id", "id = 3",
        "title = 'one'", "title != 'one'", "price < 2", "price != 1", "price = 'one'", "not price >= 2",
        "exists stock", "stock >= 0", "a = 'red'", "a != 'red'", "a = ''", "a in ('blue', 1.5, true)",
        "a > 0", "a = true", "a != false", "exists a", "not exists a", "b = 'red' or a = 'red'",
        "group = 'g'", "exists group", "unknown = 1", "exists unknown", "unknown != 'x'",
    ]
)  # fmt: skip


@given(st.lists(st.tuples(values, values, st.integers(0, 3)), max_size=12), st.lists(conditions, max_size=6))
def test_filters_hold_for_the_same_products_as_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[AttributeValue | None, AttributeValue | None, int]],
    texts: list[str],
) -> None:
    products = {}
    for number, (a, b, amount) in enumerate(rows):
        product = Product(id=f"p{number}", title=["", "one", "two", "three"][amount], images=["a", "b"])
        if amount:
            product.price, product.group = amount, "g"
        if amount == 3:  # few have it: the column is sparse
            product.stock = number
        for name, value in (("a", a), ("b", b)):
            if value is not None:
                product.attributes[name].CopyFrom(value)
        products[product.id] = product
    path = tmp_path_factory.mktemp("snapshot") / "snapshot"
    write(path, products, objects=1)
    snapshot = Snapshot(path)
    columns = ProductColumns()
    columns.append([products[id_] for id_ in in_order(products)])
    for text in texts:
        condition = parse(text)
        expected = condition.mask(columns.first(len(products)))
        assert condition.mask(snapshot.columns).tolist() == expected.tolist(), text


@given(st.sets(st.text(max_size=5), max_size=30))
def test_texts_have_their_place(tmp_path_factory: pytest.TempPathFactory, texts: set[str]) -> None:
    ordered = in_order(texts)
    path = tmp_path_factory.mktemp("texts") / "file"
    with SectionWriter(path, {}) as file:
        TextDictionary.of_ordered(ordered).write(file, "texts")
    dictionary = TextDictionary.read(SectionFile(path), "texts")
    assert [dictionary[number] for number in range(len(dictionary))] == ordered
    assert [dictionary.number_of(text) for text in ordered] == list(range(len(ordered)))
    assert dictionary.number_of("not one of them") is None


def test_texts_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magpie.index.text_dictionary.text_hash", lambda _text: 1)
    one_hash = TextDictionary(
        np.ones(2, np.uint64), np.array([1, 2], np.uint64), np.frombuffer(b"ab", np.uint8)
    )
    assert [one_hash.number_of(text) for text in "abc"] == [0, 1, None]
