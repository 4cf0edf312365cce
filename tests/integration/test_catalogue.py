"""The catalogue on a real Redis."""

from __future__ import annotations

import numpy as np
import pytest
import redis

from magpie.errors import FailedPrecondition, Unavailable
from magpie.store import catalogue as catalogue_module
from magpie.store.catalogue import Catalogue, Changes
from magpie.store.redis_connection import connect
from magpie.v1.catalog_pb2 import ImageStatus, UpsertedProduct
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product

BUNDLE = "default@1"
A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def catalogue(redis_client: redis.Redis) -> Catalogue:
    return Catalogue(redis_client)


def image(product_id: str, sha256: str, event_id: str = "e1", customer: str = "shop") -> IngestedImage:
    return IngestedImage(event_id=event_id, customer=customer, product_id=product_id, sha256=sha256)


def embedded(
    which: IngestedImage, bundle: str = BUNDLE, dimension: int = 4, objects: int = 1
) -> ObjectsEmbedded:
    values = np.eye(1, dimension, dtype="<f4").tobytes()
    vectors = [Vector(space="identity", values=values)]
    return ObjectsEmbedded(
        image=which, objects=[EmbeddedObject(vectors=vectors) for _ in range(objects)], bundle=bundle
    )


def state_of(
    catalogue: Catalogue, product_id: str, customer: str = "shop"
) -> list[tuple[str, int, str, int]]:
    return [(s.sha256, s.state, s.reason, s.objects) for s in catalogue.states(customer, [product_id])]


def everything(catalogue: Catalogue, customer: str = "shop", bundle: str = BUNDLE) -> Changes:
    """A reader's copy after a full load and all changes since."""
    products: dict[str, bytes | None] = {}
    objects: dict[tuple[str, str], bytes | None] = {}
    cursor = ""
    for part in catalogue.load(customer, bundle):
        products |= part.products
        objects |= part.objects
        cursor = part.cursor
    more = True
    while more:
        part_ = catalogue.read_changes(customer, bundle, cursor)
        assert part_ is not None
        products |= part_.products
        objects |= part_.objects
        cursor, more = part_.cursor, part_.more
    return Changes(products, objects, cursor, more=False)


def test_upsert_tells_created_updated_unchanged(catalogue: Catalogue) -> None:
    attributes = {name: AttributeValue(text=name) for name in "zyxwvutsrqponmlkjihgfedcba"}
    product = Product(id="p1", title="One", images=[A, B], attributes=attributes)
    reordered = Product(id="p1", title="One", images=[A, B], attributes=dict(reversed(attributes.items())))
    renamed = Product(id="p1", title="Uno", images=[A, B], attributes=attributes)

    def upsert(*products: Product) -> list[tuple[str, int, list[str]]]:
        upserted = catalogue.upsert_products("shop", products, BUNDLE)
        return [(u.product_id, u.change, list(u.missing_images)) for u in upserted]

    assert upsert(product, Product(id="p2")) == [
        ("p1", UpsertedProduct.CHANGE_CREATED, [A, B]),
        ("p2", UpsertedProduct.CHANGE_CREATED, []),
    ]
    before = everything(catalogue).cursor
    assert upsert(reordered) == [("p1", UpsertedProduct.CHANGE_UNCHANGED, [A, B])]
    assert everything(catalogue).cursor == before  # readers hear nothing of it
    assert upsert(renamed) == [("p1", UpsertedProduct.CHANGE_UPDATED, [A, B])]
    assert catalogue.products("shop", ["p1", "p2", "p3"]) == {"p1": renamed, "p2": Product(id="p2")}


def test_an_image_is_missing_until_it_is_on_its_way_and_again_when_it_fails(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = Product(id="p1", images=[A])

    def missing(bundle: str = BUNDLE) -> list[str]:
        return list(catalogue.upsert_products("shop", [product], bundle)[0].missing_images)

    assert missing() == [A]
    assert state_of(catalogue, "p1") == [(A, ImageStatus.STATE_AWAITING_UPLOAD, "", 0)]
    for state in (ImageStatus.STATE_DETECTING, ImageStatus.STATE_EMBEDDING, ImageStatus.STATE_INDEXING):
        assert catalogue.set_state(image("p1", A), state)
        assert missing() == []
    monkeypatch.setattr(catalogue_module, "ON_ITS_WAY_SECONDS", 0)
    assert missing() == [A]
    monkeypatch.undo()
    assert catalogue.set_state(image("p1", A), ImageStatus.STATE_FAILED, "no picture")
    assert state_of(catalogue, "p1") == [(A, ImageStatus.STATE_FAILED, "no picture", 0)]
    assert missing() == [A]
    assert catalogue.set_state(image("p1", A), ImageStatus.STATE_DETECTING)  # replayed
    assert catalogue.write_objects(embedded(image("p1", A), objects=3)) == 3
    assert state_of(catalogue, "p1") == [(A, ImageStatus.STATE_INDEXED, "", 3)]
    assert missing() == []
    assert missing("next@1") == [A]


def test_an_image_that_is_no_longer_listed_never_comes_back(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A, B]), Product(id="p2", images=[A])], BUNDLE)
    assert catalogue.write_objects(embedded(image("p1", A))) == 1
    catalogue.upsert_products("shop", [Product(id="p1", images=[B])], BUNDLE)
    assert catalogue.delete_products("shop", ["p2", "p3"]) == (["p2"], ["p3"])

    for gone in (image("p1", A), image("p2", A), image("p3", A)):
        assert not catalogue.set_state(gone, ImageStatus.STATE_DETECTING)
        assert catalogue.write_objects(embedded(gone)) == 0
    copy = everything(catalogue)
    assert set(copy.products) == {"p1"}
    assert copy.objects == {}
    assert [s.sha256 for s in catalogue.states("shop", ["p1", "p2", "p3"])] == [B]
    assert [(c, s.product_id) for c, s in catalogue.unfinished()] == [("shop", "p1")]


def test_a_fingerprint_is_kept_with_its_image(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A, B])], BUNDLE)
    asked = [("p1", A), ("p1", B), ("p2", A)]
    event = embedded(image("p1", A))
    catalogue.write_objects(event)  # of a release that made none
    assert catalogue.fingerprints("shop", asked) == [None, None, None]
    event.fingerprint.perceptual_hash = 2**63
    for product_id in ("p1", "p2"):  # the second is not listed
        event.image.product_id = product_id
        catalogue.write_objects(event)
    assert catalogue.fingerprints("shop", asked) == [event.fingerprint, None, None]
    catalogue.write_objects(embedded(image("p1", A)))  # one that was long on its way takes nothing away
    assert catalogue.fingerprints("shop", asked) == [event.fingerprint, None, None]
    catalogue.upsert_products("shop", [Product(id="p1", images=[B])], BUNDLE)
    catalogue.upsert_products("shop", [Product(id="p1", images=[A])], BUNDLE)
    assert catalogue.fingerprints("shop", asked) == [None, None, None]
    assert catalogue.fingerprints("shop", []) == []


def test_deleting_a_product_leaves_no_key_behind(catalogue: Catalogue, redis_client: redis.Redis) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A, B])], BUNDLE)
    event = embedded(image("p1", A))
    event.fingerprint.SetInParent()
    catalogue.write_objects(event)
    catalogue.write_objects(embedded(image("p1", A), bundle="next@1"))
    assert sorted(catalogue.bundles("shop")) == [BUNDLE, "next@1"]
    catalogue.delete_products("shop", ["p1"])
    assert catalogue.bundles("shop") == []
    left = redis_client.keys("magpie:{shop}:*")
    assert sorted(left) == [b"magpie:{shop}:bundles", b"magpie:{shop}:changes"]


def test_a_redelivery_does_not_move_an_indexed_image_back_but_a_new_upload_does(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A])], BUNDLE)
    catalogue.set_state(image("p1", A, "first"), ImageStatus.STATE_DETECTING)
    catalogue.set_state(image("p1", A, "second"), ImageStatus.STATE_DETECTING)
    catalogue.write_objects(embedded(image("p1", A, "second")))
    for old in ("first", "second"):
        assert not catalogue.set_state(image("p1", A, old), ImageStatus.STATE_FAILED, "late")
    assert state_of(catalogue, "p1") == [(A, ImageStatus.STATE_INDEXED, "", 1)]
    assert catalogue.set_state(image("p1", A, "third"), ImageStatus.STATE_DETECTING)
    assert state_of(catalogue, "p1") == [(A, ImageStatus.STATE_DETECTING, "", 1)]


def test_writing_the_same_objects_again_is_no_change(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A])], BUNDLE)
    assert catalogue.write_objects(embedded(image("p1", A))) == 1
    before = everything(catalogue).cursor
    assert catalogue.write_objects(embedded(image("p1", A))) == 1
    assert everything(catalogue).cursor == before
    assert catalogue.write_objects(embedded(image("p1", A), objects=2)) == 2
    assert everything(catalogue).cursor != before


def test_one_bundle_has_one_set_of_dimensions(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A, B])], BUNDLE)
    catalogue.write_objects(embedded(image("p1", A), dimension=4))
    with pytest.raises(FailedPrecondition, match=r"identity: 8, the index has identity: 4"):
        catalogue.write_objects(embedded(image("p1", B), dimension=8))
    assert state_of(catalogue, "p1")[1] == (B, ImageStatus.STATE_AWAITING_UPLOAD, "", 0)
    catalogue.delete_products("shop", ["p1"])  # with its last object the bundle forgets its dimensions
    catalogue.upsert_products("shop", [Product(id="p1", images=[B])], BUNDLE)
    assert catalogue.write_objects(embedded(image("p1", B), dimension=8)) == 1


def test_unfinished_names_images_of_all_customers_older_than_asked(catalogue: Catalogue) -> None:
    for customer in ("shop", "other"):
        catalogue.upsert_products(customer, [Product(id="p1", images=[A, B, C])], BUNDLE)
        catalogue.set_state(image("p1", A, customer=customer), ImageStatus.STATE_FAILED, "why")
        catalogue.set_state(image("p1", B, customer=customer), ImageStatus.STATE_EMBEDDING)
    assert sorted((c, s.sha256, s.state) for c, s in catalogue.unfinished()) == [
        (customer, sha256, state)
        for customer in ("other", "shop")
        for sha256, state in ((B, ImageStatus.STATE_EMBEDDING), (C, ImageStatus.STATE_AWAITING_UPLOAD))
    ]
    assert list(catalogue.unfinished(older_than_seconds=60)) == []


def test_changes_name_what_changed_and_hold_it_as_it_is_now(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=[A]), Product(id="p2", images=[B])], BUNDLE)
    cursor = everything(catalogue).cursor
    objects = embedded(image("p1", A))
    catalogue.write_objects(objects)
    repriced = Product(id="p1", images=[A], price=3)
    catalogue.upsert_products("shop", [repriced], BUNDLE)
    catalogue.delete_products("shop", ["p2"])
    changes = catalogue.read_changes("shop", BUNDLE, cursor)
    assert changes is not None
    assert changes.products == {"p1": repriced.SerializeToString(), "p2": None}
    assert changes.objects == {("p1", A): objects.SerializeToString(deterministic=True), ("p2", B): None}
    assert not changes.more
    assert catalogue.read_changes("shop", BUNDLE, changes.cursor) == Changes(
        {}, {}, changes.cursor, more=False
    )


def test_many_changes_come_in_parts(catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="first")], BUNDLE)
    cursor = everything(catalogue).cursor
    for start in range(0, 1200, 100):
        products = [Product(id=f"p{i}") for i in range(start, start + 100)]
        catalogue.upsert_products("shop", products, BUNDLE)
    seen: set[str] = set()
    parts, more = 0, True
    while more:
        changes = catalogue.read_changes("shop", BUNDLE, cursor)
        assert changes is not None
        seen |= set(changes.products)
        cursor, more, parts = changes.cursor, changes.more, parts + 1
    assert seen == {f"p{i}" for i in range(1200)}
    assert parts == 3
    assert set(everything(catalogue).products) == seen | {"first"}  # a load of several pages


@pytest.mark.parametrize(
    "loss", ["flushed", "flushed and written", "deleted stream", "trimmed", "older copy"]
)
def test_a_reader_whose_place_in_the_stream_is_gone_is_told_to_load_again(
    catalogue: Catalogue, redis_client: redis.Redis, loss: str
) -> None:
    catalogue.upsert_products("shop", [Product(id="p1")], BUNDLE)
    stream = "magpie:{shop}:changes"
    older = redis_client.dump(stream)
    catalogue.upsert_products("shop", [Product(id="p2")], BUNDLE)
    cursor = everything(catalogue).cursor
    match loss:
        case "flushed":
            redis_client.flushall()
        case "flushed and written":
            redis_client.flushall()
            catalogue.upsert_products("shop", [Product(id="p3")], BUNDLE)
        case "deleted stream":
            redis_client.delete(stream)
        case "trimmed":
            catalogue.upsert_products("shop", [Product(id="p3")], BUNDLE)
            redis_client.xtrim(stream, maxlen=1, approximate=False)
        case "older copy":  # as after a failover to a replica that lagged, with writes since
            assert isinstance(older, bytes)
            redis_client.restore(stream, 0, older, replace=True)
            catalogue.upsert_products("shop", [Product(id="p3")], BUNDLE)
    assert catalogue.read_changes("shop", BUNDLE, cursor) is None
    again = everything(catalogue).cursor
    assert catalogue.read_changes("shop", BUNDLE, again) == Changes({}, {}, again, more=False)


def test_a_reader_of_an_empty_catalogue_sees_its_first_write(catalogue: Catalogue) -> None:
    cursor = everything(catalogue).cursor
    assert catalogue.read_changes("shop", BUNDLE, cursor) == Changes({}, {}, "", more=False)
    catalogue.upsert_products("shop", [Product(id="p1")], BUNDLE)
    assert catalogue.read_changes("shop", BUNDLE, cursor) is None
    assert set(everything(catalogue).products) == {"p1"}


def test_the_stream_is_bounded(catalogue: Catalogue, redis_client: redis.Redis) -> None:
    stream = "magpie:{shop}:changes"
    with redis_client.pipeline(transaction=False) as pipeline:
        for _ in range(101_000):
            pipeline.xadd(stream, {"product": "p", "images": "", "at": "0"})
        pipeline.execute()
    catalogue.upsert_products("shop", [Product(id="p1")], BUNDLE)
    assert redis_client.xlen(stream) < 100_200


def test_no_redis_is_unavailable() -> None:
    catalogue = Catalogue(connect("redis://127.0.0.1:1/0"))  # nothing is sent until the first call
    with pytest.raises(Unavailable, match="Redis does not answer"):
        catalogue.products("shop", ["p1"])
    with pytest.raises(Unavailable):
        catalogue.upsert_products("shop", [Product(id="p1")], BUNDLE)
    with pytest.raises(Unavailable):
        list(catalogue.unfinished())
