"""What the catalogue knows of attributes equals a recount of the products, whatever was written."""

from __future__ import annotations

from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magpie.errors import Unavailable
from magpie.index.attribute_schema import BUILT_IN, AttributeSchema, ValueType
from magpie.store import attribute_schemas
from magpie.store.attribute_schemas import AttributeSchemas
from magpie.store.catalogue import Catalogue
from magpie.store.redis_connection import connect
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet

BUNDLE = "default@1"
CUSTOMERS = ["shop", "shop-2"]

values = st.one_of(
    st.builds(AttributeValue, text=st.sampled_from(["", "red"])),
    st.builds(AttributeValue, number=st.sampled_from([0.0, 2.5, float("nan")])),
    st.builds(AttributeValue, flag=st.booleans()),
    st.builds(AttributeValue, texts=st.builds(TextSet, values=st.lists(st.just("red"), max_size=2))),
    st.builds(AttributeValue),
)
products = st.builds(
    Product,
    id=st.sampled_from("pqr"),
    title=st.sampled_from(["", "One"]),
    price=st.none() | st.just(0.0),
    attributes=st.dictionaries(st.sampled_from(["colour", "size", "_"]), values, max_size=3),
    images=st.lists(st.sampled_from("ab"), max_size=1),
)
writes = st.tuples(st.sampled_from(CUSTOMERS), products | st.sampled_from("pqr"))


def recount(those: list[Product]) -> AttributeSchema:
    """The naive way, by the protos' own fields."""
    counts: Counter[tuple[str, ValueType]] = Counter()
    for product in those:
        counts["id", ValueType.TEXT] += 1
        counts["title", ValueType.TEXT] += product.title != ""
        counts["price", ValueType.NUMBER] += product.HasField("price")
        for name, value in product.attributes.items():
            counts[name, ValueType.TEXT] += value.HasField("text")
            counts[name, ValueType.NUMBER] += value.HasField("number") and value.number == value.number
            counts[name, ValueType.FLAG] += value.HasField("flag")
            counts[name, ValueType.SET] += value.HasField("texts") and len(value.texts.values) > 0
    by_name: dict[str, dict[ValueType, int]] = {}
    for (name, type_), count in (+counts).items():
        by_name.setdefault(name, {})[type_] = count
    return AttributeSchema(by_name, len(those))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(writes, max_size=20))
def test_any_sequence_of_writes_and_deletes(
    redis_client: redis.Redis, sequence: list[tuple[str, Product | str]]
) -> None:
    redis_client.flushall()
    catalogue = Catalogue(redis_client)
    expected: dict[str, dict[str, Product]] = {customer: {} for customer in CUSTOMERS}
    for customer, write in sequence:
        if isinstance(write, str):
            catalogue.delete_products(customer, [write])
            expected[customer].pop(write, None)
        else:
            catalogue.upsert_products(customer, [write], BUNDLE)
            expected[customer][write.id] = write
        for each in CUSTOMERS:
            assert catalogue.attributes(each) == recount(list(expected[each].values()))


def test_what_an_earlier_release_wrote_is_learned_when_it_comes_again(redis_client: redis.Redis) -> None:
    catalogue = Catalogue(redis_client)
    red, large = (
        Product(id="p", attributes={"colour": AttributeValue(text="red")}),
        Product(id="q", attributes={"size": AttributeValue(number=5)}),
    )
    catalogue.upsert_products("shop", [red, large], BUNDLE)
    assert catalogue.attributes("shop").is_complete
    redis_client.delete("magpie:{shop}:typed", "magpie:{shop}:attributes")  # as that release left it
    assert catalogue.attributes("shop") == AttributeSchema({}, 2)
    catalogue.upsert_products("shop", [red], BUNDLE)
    assert not catalogue.attributes("shop").is_complete
    catalogue.upsert_products("shop", [large], BUNDLE)
    assert catalogue.attributes("shop").is_complete
    assert catalogue.attributes("shop") == recount([red, large])


def test_names_and_types(redis_client: redis.Redis) -> None:
    catalogue = Catalogue(redis_client)
    assert catalogue.attributes("shop") == AttributeSchema()
    assert catalogue.attributes("shop").names == list(BUILT_IN)
    assert not catalogue.attributes("shop").is_complete
    mixed = [
        Product(id="p", attributes={"size": AttributeValue(number=5), "a": AttributeValue(flag=True)}),
        Product(id="q", attributes={"size": AttributeValue(text="5")}),
    ]
    catalogue.upsert_products("shop", mixed, BUNDLE)
    schema = catalogue.attributes("shop")
    assert schema.names == [*BUILT_IN, "a", "size"]
    assert schema.types("size") == [ValueType.NUMBER, ValueType.TEXT]
    assert schema.types("price") == [ValueType.NUMBER]
    assert schema.types("colour") == []


def test_a_process_keeps_each_customers_schema_for_a_moment(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(redis_client)
    schemas = AttributeSchemas(catalogue)
    red = Product(id="p", attributes={"colour": AttributeValue(text="red")})
    assert schemas.current("shop") == AttributeSchema()
    catalogue.upsert_products("shop", [red], BUNDLE)
    assert schemas.current("shop") == AttributeSchema()
    assert schemas.current("shop-2") == AttributeSchema()
    assert schemas.newest("shop") == recount([red])
    assert schemas.current("shop") == recount([red])
    catalogue.delete_products("shop", ["p"])
    monkeypatch.setattr(attribute_schemas, "FRESH_SECONDS", 0.0)
    assert AttributeSchemas(catalogue).current("shop") == AttributeSchema()
    assert schemas.current("shop-2") == AttributeSchema()


def test_while_redis_is_away_the_last_schema_serves(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(redis_client)
    red = Product(id="p", attributes={"colour": AttributeValue(text="red")})
    catalogue.upsert_products("shop", [red], BUNDLE)
    monkeypatch.setattr(attribute_schemas, "FRESH_SECONDS", 0.0)
    schemas = AttributeSchemas(catalogue)
    assert schemas.current("shop") == recount([red])
    away = Catalogue(connect("redis://127.0.0.1:1/0"))
    monkeypatch.setattr(schemas, "_catalogue", away)
    assert schemas.current("shop") == recount([red])
    assert schemas.current("shop-2") == AttributeSchema()
    with pytest.raises(Unavailable):
        schemas.newest("shop")
