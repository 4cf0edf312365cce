"""CatalogService and RankingConfigService over a real Redis and a real local S3."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import redis
import urllib3

from magpie.errors import Aborted, FailedPrecondition, InvalidArgument, MagpieError, NotFound, Unauthenticated
from magpie.ranking.rank import rank
from magpie.rpc.context import CallContext
from magpie.services.catalog import CatalogServicer
from magpie.services.ranking_configs import RankingConfigServicer
from magpie.store.attribute_schemas import AttributeSchemas
from magpie.store.catalogue import Catalogue
from magpie.store.ranking_configs import RankingConfigs
from magpie.store.uploads import MAX_BYTES, Uploads
from magpie.v1.catalog_pb2 import (
    Attribute,
    CreateUploadRequest,
    DeleteProductsRequest,
    GetAttributesRequest,
    GetIngestStatusRequest,
    ImageStatus,
    UpsertedProduct,
    UpsertProductsRequest,
)
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet
from magpie.v1.ranking_config_pb2 import (
    Boost,
    GetRankingConfigRequest,
    PutRankingConfigRequest,
    RankingConfig,
)
from magpie.v1.search_pb2 import Candidate

BUNDLE = "default@1"
DATA = b"a picture"
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = "0" * 64


def as_customer(customer: str) -> CallContext:
    return CallContext(customer=customer, trace_id="t", deadline=None, metadata={})


SHOP, RIVAL, NOBODY = as_customer("shop"), as_customer("rival"), as_customer("")


@pytest.fixture
def uploads(s3: Any, bucket: str) -> Uploads:
    return Uploads(s3, bucket)


@pytest.fixture
def catalog(redis_client: redis.Redis, uploads: Uploads) -> CatalogServicer:
    return CatalogServicer(Catalogue(redis_client), uploads, BUNDLE)


@pytest.fixture
def configs(s3: Any, bucket: str, redis_client: redis.Redis) -> RankingConfigServicer:
    schemas = AttributeSchemas(Catalogue(redis_client))
    return RankingConfigServicer(
        RankingConfigs(s3, bucket, redis_client), schemas, ("identity", "category", "similar")
    )


def upsert(
    catalog: CatalogServicer, *products: Product, context: CallContext = SHOP
) -> list[UpsertedProduct]:
    return list(catalog.UpsertProducts(UpsertProductsRequest(products=products), context).products)


def upload_of(product_id: str = "p", **changed: Any) -> CreateUploadRequest:
    fields = {"sha256": SHA256, "content_type": "image/png", "size_bytes": len(DATA), **changed}
    return CreateUploadRequest(product_id=product_id, **fields)


def states(catalog: CatalogServicer, *ids: str, context: CallContext = SHOP) -> dict[str, int]:
    answer = catalog.GetIngestStatus(GetIngestStatusRequest(product_ids=ids), context)
    return {image.product_id: image.state for image in answer.images}


def test_a_product_from_upsert_to_delete(catalog: CatalogServicer, uploads: Uploads) -> None:
    product = Product(id="p", title="Saft", price=1.5, images=[SHA256])
    (created,) = upsert(catalog, product)
    assert (created.product_id, created.change) == ("p", UpsertedProduct.CHANGE_CREATED)
    assert list(created.missing_images) == [SHA256]
    assert states(catalog, "p") == {"p": ImageStatus.STATE_AWAITING_UPLOAD}

    form = catalog.CreateUpload(upload_of("p"), SHOP)
    assert form.expires_in_seconds == 900
    posted = urllib3.request("POST", form.url, fields={**form.fields, "file": ("f", DATA)})
    assert posted.status == 204
    assert uploads.read_for("shop", form.upload_key) == DATA

    (again,) = upsert(catalog, product)
    assert again.change == UpsertedProduct.CHANGE_UNCHANGED
    product.price = 2
    (updated,) = upsert(catalog, product)
    assert updated.change == UpsertedProduct.CHANGE_UPDATED

    request = DeleteProductsRequest(product_ids=["p", "q", "p", "q"])
    answer = catalog.DeleteProducts(request, SHOP)
    assert (list(answer.deleted), list(answer.not_found)) == (["p"], ["q"])
    assert states(catalog, "p") == {}


def test_an_indexed_picture_is_not_missing_under_its_bundle_alone(
    catalog: CatalogServicer, redis_client: redis.Redis, uploads: Uploads
) -> None:
    product = Product(id="p", images=[SHA256])
    upsert(catalog, product)
    image = IngestedImage(event_id="e", customer="shop", product_id="p", sha256=SHA256)
    objects = [EmbeddedObject(vectors=[Vector(space="identity", values=bytes(16))])]
    Catalogue(redis_client).write_objects(ObjectsEmbedded(image=image, bundle=BUNDLE, objects=objects))
    assert list(upsert(catalog, product)[0].missing_images) == []
    next_bundle = CatalogServicer(Catalogue(redis_client), uploads, "default@2")
    assert states(catalog, "p") == {"p": ImageStatus.STATE_INDEXED}
    assert list(upsert(next_bundle, product)[0].missing_images) == [SHA256]
    # Not yet under the next one, which whoever waits for it must see.
    assert states(next_bundle, "p") == {"p": ImageStatus.STATE_AWAITING_UPLOAD}
    Catalogue(redis_client).write_objects(ObjectsEmbedded(image=image, bundle="default@2", objects=objects))
    assert states(next_bundle, "p") == {"p": ImageStatus.STATE_INDEXED}


def test_an_old_failure_ends_with_the_permission_to_upload_again(
    catalog: CatalogServicer, redis_client: redis.Redis
) -> None:
    upsert(catalog, Product(id="p", images=[SHA256]))
    image = IngestedImage(event_id="first", customer=SHOP.customer, product_id="p", sha256=SHA256)
    Catalogue(redis_client).set_state(image, ImageStatus.STATE_FAILED, "truncated")
    assert states(catalog, "p") == {"p": ImageStatus.STATE_FAILED}
    catalog.CreateUpload(upload_of("p"), SHOP)
    assert states(catalog, "p") == {"p": ImageStatus.STATE_AWAITING_UPLOAD}


def test_customers_do_not_see_one_another(catalog: CatalogServicer, uploads: Uploads) -> None:
    upsert(catalog, Product(id="p", title="ours", images=[SHA256]))
    assert states(catalog, "p", context=RIVAL) == {}
    with pytest.raises(NotFound):
        catalog.CreateUpload(upload_of("p"), RIVAL)
    answer = catalog.DeleteProducts(DeleteProductsRequest(product_ids=["p"]), RIVAL)
    assert list(answer.not_found) == ["p"]
    upsert(catalog, Product(id="p", title="theirs"), context=RIVAL)
    assert upsert(catalog, Product(id="p", title="ours", images=[SHA256]))[0].change == (
        UpsertedProduct.CHANGE_UNCHANGED
    )
    ours = catalog.CreateUpload(upload_of("p"), SHOP).upload_key
    with pytest.raises(NotFound):
        uploads.read_for("rival", ours)
    query = catalog.CreateUpload(upload_of(""), RIVAL).upload_key
    assert query.startswith("customers/rival/queries/")


def test_every_call_needs_a_customer(catalog: CatalogServicer, configs: RankingConfigServicer) -> None:
    calls: list[tuple[Any, Any]] = [
        (catalog.UpsertProducts, UpsertProductsRequest(products=[Product(id="p")])),
        (catalog.DeleteProducts, DeleteProductsRequest(product_ids=["p"])),
        (catalog.CreateUpload, upload_of("")),
        (catalog.GetIngestStatus, GetIngestStatusRequest(product_ids=["p"])),
        (configs.GetRankingConfig, GetRankingConfigRequest()),
        (configs.PutRankingConfig, PutRankingConfigRequest(config=RankingConfig())),
    ]
    for method, request in calls:
        with pytest.raises(Unauthenticated):
            method(request, NOBODY)


def number(value: float) -> AttributeValue:
    return AttributeValue(number=value)


def texts(*values: str) -> AttributeValue:
    return AttributeValue(texts=TextSet(values=values))


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (Product(), "products[1].id: must have 1 to 128 characters, got 0"),
        (Product(id="x" * 129), "products[1].id: must have 1 to 128 characters, got 129"),
        (Product(id="a\nb"), "products[1].id: must not contain control characters"),
        (Product(id="a\0"), "products[1].id: must not contain control characters"),
        (Product(id="字" * 29), "products[1].id: must have at most 255 bytes when percent-encoded, has 261"),
        (Product(id="first"), "products[1].id: 'first' is that of products[0], too"),
        (Product(id="p", price=-1), "products[1].price: must be finite and at least 0, got -1"),
        (Product(id="p", price=math.nan), "products[1].price: must be finite and at least 0, got nan"),
        (Product(id="p", stock=math.inf), "products[1].stock: must be finite and at least 0, got inf"),
        (Product(id="p", attributes={"a b": number(1)}), "products[1].attributes['a b']: names are letters"),
        (Product(id="p", attributes={"1a": number(1)}), "products[1].attributes['1a']: names are letters"),
        (Product(id="p", attributes={"é": number(1)}), "products[1].attributes['é']: names are letters"),
        (
            Product(id="p", attributes={"price": number(1)}),
            "products[1].attributes['price']: `price` is a field",
        ),
        (
            Product(id="p", attributes={"images": number(1)}),
            "products[1].attributes['images']: `images` is a",
        ),
        (Product(id="p", attributes={"a": AttributeValue()}), "products[1].attributes['a']: needs a value"),
        (Product(id="p", attributes={"a": number(math.nan)}), "products[1].attributes['a']: must be finite"),
        (
            Product(id="p", attributes={"a": texts()}),
            "products[1].attributes['a'].texts.values: a set has 1 to 100 texts, got 0",
        ),
        (
            Product(id="p", attributes={"a": texts(*["x"] * 101)}),
            "products[1].attributes['a'].texts.values: a set has 1 to 100 texts",
        ),
        (
            Product(id="p", attributes={"a": texts("x", "")}),
            "products[1].attributes['a'].texts.values[1]: must not be empty",
        ),
        (Product(id="p", images=[SHA256] * 51), "products[1].images: at most 50, got 51"),
        (
            Product(id="p", images=[SHA256, SHA256.upper()]),
            "products[1].images[1]: must be the file's SHA-256",
        ),
        (Product(id="p", images=["x"]), "products[1].images[0]: must be the file's SHA-256"),
    ],
)
def test_a_wrong_product_is_named_with_its_field(
    catalog: CatalogServicer, product: Product, message: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        upsert(catalog, Product(id="first", images=[SHA256]), product)
    assert str(refused.value).startswith(message)
    assert states(catalog, "first") == {}  # all or nothing


@pytest.mark.parametrize("id_", ["x", "x" * 128, "a/b", "..", " ", "ä" * 40, "a'b\"c", "%2F", "🎁"])
def test_product_ids_of_all_kinds_go_the_whole_way(
    catalog: CatalogServicer, uploads: Uploads, id_: str
) -> None:
    upsert(catalog, Product(id=id_, images=[SHA256]))
    form = catalog.CreateUpload(upload_of(id_), SHOP)
    urllib3.request("POST", form.url, fields={**form.fields, "file": ("f", DATA)})
    assert uploads.read_for("shop", form.upload_key) == DATA
    assert urllib3.request("GET", uploads.image_url("shop", id_, SHA256)).data == DATA
    assert states(catalog, id_) == {id_: ImageStatus.STATE_AWAITING_UPLOAD}


def test_values_at_their_limits_are_taken(catalog: CatalogServicer) -> None:
    attributes = {
        "set": texts("x", "y"),
        "_a1": number(-1.5),
        "B": AttributeValue(text=""),
        "flag": AttributeValue(flag=False),
    }
    images = [f"{row:064x}" for row in range(50)]
    (upserted,) = upsert(catalog, Product(id="p", price=0, stock=0, attributes=attributes, images=images))
    assert list(upserted.missing_images) == images
    assert len(upsert(catalog, *(Product(id=str(row)) for row in range(100)))) == 100


@pytest.mark.parametrize("count", [0, 101])
def test_one_to_a_hundred_a_call(catalog: CatalogServicer, count: int) -> None:
    ids = [str(row) for row in range(count)]
    calls: list[tuple[str, Any, Any]] = [
        (
            "products",
            catalog.UpsertProducts,
            UpsertProductsRequest(products=[Product(id=id_) for id_ in ids]),
        ),
        ("product_ids", catalog.DeleteProducts, DeleteProductsRequest(product_ids=ids)),
        ("product_ids", catalog.GetIngestStatus, GetIngestStatusRequest(product_ids=ids)),
    ]
    for field, method, request in calls:
        with pytest.raises(InvalidArgument, match=f"^{field}: 1 to 100 a call, got {count}$"):
            method(request, SHOP)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (upload_of("x" * 129), InvalidArgument, "product_id: "),
        (upload_of(sha256=""), InvalidArgument, "sha256: must be the file's SHA-256"),
        (upload_of(content_type="image/gif"), InvalidArgument, "content_type: must be one of image/jpeg"),
        (upload_of(content_type=""), InvalidArgument, "content_type: "),
        (upload_of(size_bytes=0), InvalidArgument, "size_bytes: must be 1 to 20971520, got 0"),
        (upload_of(size_bytes=MAX_BYTES + 1), InvalidArgument, "size_bytes: "),
        (upload_of("q"), NotFound, "product_id: there is no product 'q'"),
        (upload_of(sha256=OTHER), FailedPrecondition, "sha256: product 'p' does not list"),
    ],
)
def test_an_upload_that_cannot_be(
    catalog: CatalogServicer, request_: CreateUploadRequest, error: type[MagpieError], message: str
) -> None:
    upsert(catalog, Product(id="p", images=[SHA256]))
    with pytest.raises(error) as refused:
        catalog.CreateUpload(request_, SHOP)
    assert str(refused.value).startswith(message)


def test_a_ranking_config_is_checked_and_put(configs: RankingConfigServicer) -> None:
    put = PutRankingConfigRequest(config=RankingConfig(boosts=[Boost(filter="stock > 0", weight=0.1)]))
    written = configs.PutRankingConfig(put, SHOP).config
    assert written.version == 1
    assert dict(written.fusion.weights) == {"identity": 0.6, "category": 0.2, "similar": 0.2}
    assert configs.GetRankingConfig(GetRankingConfigRequest(), SHOP).config == written
    assert configs.GetRankingConfig(GetRankingConfigRequest(version=1), SHOP).config == written
    assert configs.GetRankingConfig(GetRankingConfigRequest(), RIVAL).config.version == 0
    with pytest.raises(NotFound):
        configs.GetRankingConfig(GetRankingConfigRequest(version=1), RIVAL)


def test_expected_version_zero_means_that_none_was_put(configs: RankingConfigServicer) -> None:
    first = PutRankingConfigRequest(config=RankingConfig(filter="stock > 0"), expected_version=0)
    assert configs.PutRankingConfig(first, SHOP).config.version == 1
    second = PutRankingConfigRequest(config=RankingConfig(filter="stock > 1"), expected_version=0)
    with pytest.raises(Aborted, match="expected_version"):
        configs.PutRankingConfig(second, SHOP)
    second.ClearField("expected_version")
    assert configs.PutRankingConfig(second, SHOP).config.version == 2


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (PutRankingConfigRequest(), "config"),
        (PutRankingConfigRequest(config=RankingConfig(filter="price <")), "filter"),
        (PutRankingConfigRequest(config=RankingConfig(boosts=[Boost(weight=0.1)])), "boosts[0].filter"),
        (PutRankingConfigRequest(config=RankingConfig(min_score=3)), "min_score"),
    ],
)
def test_a_wrong_ranking_config_changes_nothing(
    configs: RankingConfigServicer, request_: PutRankingConfigRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        configs.PutRankingConfig(request_, SHOP)
    assert refused.value.field == field
    assert configs.GetRankingConfig(GetRankingConfigRequest(), SHOP).config.version == 0


def test_attributes_are_told_as_they_were_learned(catalog: CatalogServicer) -> None:
    def told(context: CallContext) -> tuple[dict[str, dict[str, int]], int, int]:
        answer = catalog.GetAttributes(GetAttributesRequest(), context)
        return (
            {
                attribute.name: {Attribute.Type.Name(count.type): count.products for count in attribute.types}
                for attribute in answer.attributes
            },
            answer.products,
            answer.unlearned,
        )

    built_in = {name: {"TYPE_TEXT": 0} for name in ("id", "title", "category", "group")}
    built_in |= {name: {"TYPE_NUMBER": 0} for name in ("price", "stock")}
    assert told(SHOP) == (built_in, 0, 0)
    attributes = {"size": number(5), "new": AttributeValue(flag=False), "Tags": texts("x", "y")}
    upsert(catalog, Product(id="p", price=1, attributes=attributes), Product(id="q", title="Q"))
    upsert(catalog, Product(id="q", attributes={"size": AttributeValue(text="L")}))
    expected = built_in | {
        "id": {"TYPE_TEXT": 2},
        "price": {"TYPE_NUMBER": 1},
        "Tags": {"TYPE_SET": 1},
        "new": {"TYPE_FLAG": 1},
        "size": {"TYPE_NUMBER": 1, "TYPE_TEXT": 1},
    }
    assert told(SHOP) == (expected, 2, 0)
    assert list(told(SHOP)[0]) == list(expected)  # their order
    assert told(RIVAL) == (built_in, 0, 0)
    with pytest.raises(Unauthenticated):
        told(NOBODY)


def test_a_configs_filters_are_checked_when_it_is_put_and_then_never_break_a_search(
    catalog: CatalogServicer, configs: RankingConfigServicer
) -> None:
    misspelt = RankingConfig(boosts=[Boost(filter="stock > 0"), Boost(filter="brnd = 'Bird'")])
    configs.PutRankingConfig(PutRankingConfigRequest(config=misspelt), RIVAL)  # it has no products yet
    product = Product(id="p", attributes={"brand": AttributeValue(text="Bird")})
    upsert(catalog, product)
    with pytest.raises(
        InvalidArgument, match=r"^boosts\[1\]\.filter: no product has `brnd` \(near are `brand`"
    ):
        configs.PutRankingConfig(PutRankingConfigRequest(config=misspelt), SHOP)
    with pytest.raises(InvalidArgument, match=r"^filter: `price` is a number, and 'low' is a text"):
        configs.PutRankingConfig(PutRankingConfigRequest(config=RankingConfig(filter="price = 'low'")), SHOP)
    good = RankingConfig(boosts=[Boost(filter="brand = 'Bird'", weight=0.5)])
    config = configs.PutRankingConfig(PutRankingConfigRequest(config=good), SHOP).config
    candidates = [Candidate(product_id="p", similarity={"identity": 0.5, "category": 0.5, "similar": 0.5})]
    assert [hit.score for hit in rank(config, candidates, {"p": product}, 10)] == pytest.approx([1.0])
    bare = Product(id="p")
    upsert(catalog, bare)  # the last product with a brand loses it
    assert [hit.score for hit in rank(config, candidates, {"p": bare}, 10)] == pytest.approx([0.5])


def test_a_cut_off_by_probability_needs_a_calibrated_bundle(
    configs: RankingConfigServicer, s3: Any, bucket: str, redis_client: redis.Redis
) -> None:
    put = PutRankingConfigRequest(config=RankingConfig(min_probability=0.8))
    with pytest.raises(FailedPrecondition, match="min_probability: the bundle in use has no calibration"):
        configs.PutRankingConfig(put, SHOP)
    assert configs.GetRankingConfig(GetRankingConfigRequest(), SHOP).config.version == 0
    stored = RankingConfigs(s3, bucket, redis_client)
    schemas = AttributeSchemas(Catalogue(redis_client))
    calibrated = RankingConfigServicer(stored, schemas, ("identity", "category", "similar"), calibrated=True)
    assert calibrated.PutRankingConfig(put, SHOP).config.min_probability == 0.8


def test_there_is_no_version_below_zero(configs: RankingConfigServicer) -> None:
    with pytest.raises(InvalidArgument, match="version"):
        configs.GetRankingConfig(GetRankingConfigRequest(version=-1), SHOP)
