"""Filters, facets and grouping as a user has them: a CSV file with attributes, and the command line."""

from __future__ import annotations

import csv
import json
from itertools import chain

import pytest

from local.customers import reading
from local.home import Home
from magpie.v1.catalog_pb2 import DeleteProductsRequest, UpsertProductsRequest
from magpie.v1.product_pb2 import AttributeValue, Product
from tests.e2e.conftest import LocalSystem, Shop, make_shop

CUSTOMER = "typed"
PRODUCTS = 8


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, local_system: LocalSystem) -> Shop:
    """Eight products: by turns `new` and `old` beside `toy`, of two brands, in pairs of variants."""
    shop = make_shop(tmp_path_factory.mktemp("typed"), PRODUCTS)
    with shop.catalogue.open(newline="") as file:
        header, *rows = csv.reader(file)
    with shop.catalogue.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*header, "tags[]", "brand", "group"])
        for row, cells in enumerate(rows):
            table.writerow([*cells, f"toy|{'old' if row % 2 else 'new'}", "ab"[row // 4], f"g{row // 2}"])
    report = local_system.json("index", shop.catalogue, "--customer", CUSTOMER)
    assert (report["indexed"], report["failed"]) == (PRODUCTS, [])
    return shop


def refused(local_system: LocalSystem, shop: Shop, *arguments: str) -> str:
    photo = shop.photo(shop.products[0])
    result = local_system.run("search", photo, "--customer", CUSTOMER, *arguments, "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: INVALID_ARGUMENT: ")
    return result.stderr


def test_attributes_are_shown_with_their_types(local_system: LocalSystem, shop: Shop) -> None:
    told = local_system.json("attributes", "--customer", CUSTOMER)
    assert (told["products"], told["unlearned"]) == (PRODUCTS, 0)
    types = {each["name"]: [(t["type"], t["products"]) for t in each["types"]] for each in told["attributes"]}
    assert types == {
        "id": [("text", 8)],
        "title": [("text", 8)],
        "category": [("text", 8)],
        "group": [("text", 8)],
        "price": [("number", 8)],
        "stock": [("number", 0)],
        "brand": [("text", 8)],
        "colourful": [("flag", 8)],
        "tags": [("set", 8)],
    }
    table = local_system.run("attributes", "--customer", CUSTOMER)
    assert "tags       set" in table.stdout
    assert shop.products[0] not in table.stdout


def test_sets_facets_and_groups_of_a_search(local_system: LocalSystem, shop: Shop) -> None:
    photo = shop.photo(shop.products[0])
    asked = ["search", photo, "--customer", CUSTOMER, "--box", "0,0,1,1", "--filter", "tags = 'new'"]
    asked += ["--facet", "tags", "--facet", "brand", "--facet", "price", "-k", "1"]
    (found,) = local_system.json(*asked)["objects"]
    assert len(found["hits"]) == 1
    facets = found["facets"]
    assert facets["tags"]["values"] == [{"value": "new", "products": 4}, {"value": "toy", "products": 4}]
    assert facets["brand"]["values"] == [{"value": "a", "products": 2}, {"value": "b", "products": 2}]
    assert (facets["price"]["min"], facets["price"]["max"], facets["price"]["distinct"]) == (10, 16, 4)
    text = local_system.run(*asked).stdout
    assert "brand of 4 products: a (2), b (2)" in text


@pytest.mark.parametrize(("name", "sizes"), [("group", [2, 2, 2, 2]), ("brand", [4, 4])])
def test_grouped_hits_name_those_that_they_stand_for(
    local_system: LocalSystem, shop: Shop, name: str, sizes: list[int]
) -> None:
    photo = shop.photo(shop.products[0])
    asked = ("search", photo, "--customer", CUSTOMER, "--box", "0,0,1,1", "--group-by", name)
    (found,) = local_system.json(*asked)["objects"]
    shown = [[hit["product_id"], *hit["stands_for"]] for hit in found["hits"]]
    assert [len(ids) for ids in shown] == sizes
    assert sorted(chain.from_iterable(shown)) == sorted(shop.products)
    assert "stands for" in local_system.run(*asked).stdout


def test_what_no_product_has_is_refused(local_system: LocalSystem, shop: Shop) -> None:
    error = refused(local_system, shop, "--filter", "price < 20 and brnd = 'a'")
    assert "filter: no product has `brnd` (near are `brand`;" in error
    assert "at position 15" in error
    error = refused(local_system, shop, "--filter", "price = 'cheap'")
    assert "`price` is a number, and 'cheap' is a text" in error
    assert "facets[1]: no product has `colour`" in refused(
        local_system, shop, "--facet", "brand", "--facet", "colour"
    )
    assert "facets[1]: `brand` stands there twice" in refused(
        local_system, shop, "--facet", "brand", "--facet", "brand"
    )
    assert "facets: at most 10, got 11" in refused(
        local_system, shop, *(word for row in range(11) for word in ("--facet", f"f{row}"))
    )
    assert "group_by: `price` is a number: only texts are grouped by" in refused(
        local_system, shop, "--group-by", "price"
    )
    result = local_system.run(
        "config", "put", "-", "--customer", CUSTOMER, stdin=json.dumps({"filter": "brnd = 'a'"})
    )
    assert result.returncode == 1
    assert "no product has `brnd`" in result.stderr


def test_an_attribute_is_there_for_the_search_after_the_upsert_and_for_its_customer_alone(
    local_system: LocalSystem, shop: Shop
) -> None:
    photo = shop.photo(shop.products[0])
    asked = ("--box", "0,0,1,1", "--filter", "season = 'spring'")
    local_system.json("key", "untyped")
    with reading(Home(local_system.home), "untyped") as client:
        client.call(client.catalog.UpsertProducts, UpsertProductsRequest(products=[Product(id="p")]))
    assert "no product has `season`" in refused(local_system, shop, *asked)
    with reading(Home(local_system.home), CUSTOMER) as client:
        spring = Product(id="s", attributes={"season": AttributeValue(text="spring")})
        client.call(client.catalog.UpsertProducts, UpsertProductsRequest(products=[spring]))
        assert local_system.hits(photo, CUSTOMER, *asked) == []  # it has no picture
        other = local_system.run("search", photo, "--customer", "untyped", *asked)
        assert "no product has `season`" in other.stderr
        client.call(client.catalog.DeleteProducts, DeleteProductsRequest(product_ids=["s"]))
    told = local_system.json("attributes", "--customer", "untyped")
    assert [each["name"] for each in told["attributes"]][6:] == []


def test_a_shop_without_products_refuses_no_name(local_system: LocalSystem, shop: Shop) -> None:
    local_system.json("key", "empty")
    photo = shop.photo(shop.products[0])
    found = local_system.json(
        "search", photo, "--customer", "empty", "--filter", "brnd = 'a'", "--facet", "brnd"
    )
    assert [object_["facets"]["brnd"]["products"] for object_ in found["objects"]] == [0] * len(
        found["objects"]
    )
