"""Catalogues of random vectors, to search in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from magpie.store.catalogue import Catalogue
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product

CATEGORIES = ("Juice", "Milk", "Fruit", "Vegetables", "Bread")
BATCH = 500  # products a write


def unit_vectors(rng: np.random.Generator, rows: int, dimension: int) -> NDArray[np.float32]:
    """(rows, dimension), uniform on the sphere."""
    vectors = rng.standard_normal((rows, dimension), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def embedded(vectors: Mapping[str, NDArray[np.float32]]) -> EmbeddedObject:
    """One object that fills its picture. `vectors`: space -> (d,)."""
    return EmbeddedObject(
        object=DetectedObject(box=Box(x0=0.0, y0=0.0, x1=1.0, y1=1.0), label="product", score=0.9),
        vectors=[Vector(space=space, values=vector.tobytes()) for space, vector in vectors.items()],
    )


def fill(
    catalogue: Catalogue, customer: str, bundle: str, spaces: Mapping[str, int], objects: int, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Write `objects` products of one picture with one object each. Returns space -> (objects, d)."""
    rng = np.random.default_rng(seed)
    vectors = {space: unit_vectors(rng, objects, dimension) for space, dimension in spaces.items()}
    prices = np.round(rng.uniform(1, 100, objects), 2)
    for begin in range(0, objects, BATCH):
        rows = range(begin, min(begin + BATCH, objects))
        products = [
            Product(
                id=f"product-{row}",
                title=f"Product {row}",
                category=CATEGORIES[row % len(CATEGORIES)],
                price=float(prices[row]),
                attributes={"brand": AttributeValue(text=f"brand-{row % 50}")},
                images=[hashlib.sha256(str(row).encode()).hexdigest()],
            )
            for row in rows
        ]
        catalogue.upsert_products(customer, products, bundle)
        for row, product in zip(rows, products, strict=True):
            image = IngestedImage(
                event_id=f"bench-{row}", customer=customer, product_id=product.id, sha256=product.images[0]
            )
            one = embedded({space: matrix[row] for space, matrix in vectors.items()})
            catalogue.write_objects(ObjectsEmbedded(image=image, objects=[one], bundle=bundle))
    return vectors
