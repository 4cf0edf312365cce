"""Nothing crosses from one customer to another: all writes and searches of one, while the other looks on."""

from __future__ import annotations

import numpy as np
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magpie.index.compact import CompactEngine
from magpie.store.catalogue import Catalogue
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Fingerprint, Vector
from magpie.v1.product_pb2 import Product

BUNDLE = "default@1"
VECTOR = np.array([1, 0], np.float32)
# The same product and image everywhere; names of which one begins or ends with another.
CUSTOMERS = ["shop", "shop-2", "my-shop", "s"]


def embedded(customer: str) -> ObjectsEmbedded:
    return ObjectsEmbedded(
        image=IngestedImage(event_id=customer, customer=customer, product_id="p", sha256="a"),
        objects=[EmbeddedObject(vectors=[Vector(space="identity", values=VECTOR.tobytes())])],
        bundle=BUNDLE,
        fingerprint=Fingerprint(perceptual_hash=len(customer)),
    )


def everything_of(customer: str, catalogue: Catalogue, engine: CompactEngine) -> object:
    found = engine.find(customer, BUNDLE, [{"identity": VECTOR}], None, 10)
    return (
        found,
        catalogue.products(customer, ["p"]),
        catalogue.states(customer, ["p"]),
        [status for owner, status in catalogue.unfinished() if owner == customer],
        catalogue.bundles(customer),
        catalogue.attributes(customer),
        catalogue.fingerprints(customer, [("p", "a")]),
        catalogue.walk(customer, 0, 10),
    )


actions = st.lists(
    st.tuples(st.sampled_from(CUSTOMERS), st.sampled_from(["upsert", "index", "fail", "delete"])), max_size=25
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions)
def test_what_one_customer_does_changes_nothing_for_another(
    redis_client: redis.Redis, sequence: list[tuple[str, str]]
) -> None:
    redis_client.flushall()
    catalogue = Catalogue(redis_client)
    engine = CompactEngine(catalogue)
    for number, (customer, action) in enumerate(sequence):
        others = [other for other in CUSTOMERS if other != customer]
        before = [everything_of(other, catalogue, engine) for other in others]
        match action:
            case "upsert":
                product = Product(id="p", title=f"{customer}'s {number}", images=["a"])
                product.attributes[f"of_{customer.replace('-', '_')}"].flag = True
                catalogue.upsert_products(customer, [product], BUNDLE)
            case "index":
                catalogue.write_objects(embedded(customer))
            case "fail":
                catalogue.set_state(embedded(customer).image, ImageStatus.STATE_FAILED, customer)
            case "delete":
                catalogue.delete_products(customer, ["p"])
        assert [everything_of(other, catalogue, engine) for other in others] == before
        products = engine.find(customer, BUNDLE, [{"identity": VECTOR}], None, 10).products
        assert all(product.title.startswith(f"{customer}'s ") for product in products)


def test_every_key_of_a_customer_is_on_one_node_of_a_cluster(redis_client: redis.Redis) -> None:
    catalogue = Catalogue(redis_client)
    catalogue.upsert_products("shop", [Product(id="p", images=["a", "b"])], BUNDLE)
    catalogue.write_objects(embedded("shop"))
    keys: list[bytes] = list(redis_client.scan_iter())
    assert len(keys) == 10
    assert all(key.startswith(b"magpie:{shop}:") for key in keys)
