"""Every customer's catalogue in Redis: products, the ledger of their images, objects, the stream of changes.

All keys of customer C begin with `magpie:{C}:`, whose braces keep them on one node of a cluster:

| key | type | holds |
|---|---|---|
| `products` | hash | product id -> Product |
| `listed` | hash | product id -> the images that it lists, joined by spaces |
| `images` | hash | image -> JSON of state, reason, objects, events: exactly the images that products list |
| `unfinished` | sorted set | image -> when it last made a step, seconds; images neither indexed nor failed |
| `fingerprints` | hash | image -> Fingerprint, of images that were indexed since there are fingerprints |
| `bundles` | hash | bundle -> spaces and dimensions of its objects |
| `objects:BUNDLE` | hash | image -> ObjectsEmbedded, of images that products list; or `@GENERATION` |
| `serving` | string | bundle that answers the customer's searches; absent before the first change-over |
| `typed` | hash | product id -> its names with their types, as `id:text brand:text`, joined by spaces |
| `attributes` | hash | name and type, as `brand:text` -> how many products have such a value |
| `changes` | stream | product, and those of its images whose objects changed, joined by spaces |
| `snapshots` | hash | bundle -> generation of its newest snapshot |

An image is `product id NUL sha256`. Every write is one Lua script, so that no other process sees half of it,
and a late event for a withdrawn image finds nothing to write to. A process keeps a copy by `load`, then by
`read_changes`. Once an image's objects are in a snapshot, `archive` puts `@GENERATION` in their place: they
are in the snapshots from that generation on, and Redis is free of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from magpie.errors import FailedPrecondition
from magpie.index.attribute_schema import AttributeSchema, ValueType, types_of
from magpie.store.redis_connection import hash_pages, redis_answers
from magpie.store.redis_keys import customer_key, customer_of, image_field, image_parts
from magpie.store.serving import serving_key
from magpie.store.writing_scripts import LUA, WritingScripts
from magpie.v1.catalog_pb2 import ImageStatus, UpsertedProduct
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Fingerprint
from magpie.v1.product_pb2 import Product

ON_ITS_WAY_SECONDS = 600  # an image that has made no step for so long is asked for again
_CHANGES_READ = 500  # entries a call; bounds how long Redis is held and how much is sent at once
_SCANNED = 500  # hash fields a call
_CHANGES_SINCE = 10_000  # entries that are looked through at once
_ARCHIVED = 200  # images a call
_SCRIPTS = ("upsert_products", "delete_products", "write_objects", "set_state")


@dataclass(frozen=True)
class Changes:
    """What a reader has to take over: the values as they are now, None where there is none any more."""

    products: dict[str, bytes | None]  # id -> Product
    objects: dict[tuple[str, str], bytes | None]  # (product id, sha256) -> ObjectsEmbedded, or `archived_in`
    cursor: str  # read on from here; id and time of the last entry, empty: the stream did not exist
    more: bool  # there is more to read
    generation: int = 0  # of the newest snapshot, 0: there is none


def archived_in(value: bytes) -> int | None:
    """The first snapshot that has an image's objects; None: `value` is the objects themselves."""
    return int(value[1:]) if value.startswith(b"@") else None


@dataclass(frozen=True)
class Walked:
    """A page of a walk through all products."""

    images: dict[str, list[str]]  # product id -> SHA-256 of the images that it lists
    cursor: int  # where the next page begins; 0: this was the last
    total: int  # products in all


class Catalogue:
    """Reads and writes catalogues. Every method raises Unavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # its types allow texts, too: here all answers are bytes
        self._writes = WritingScripts(client, _SCRIPTS)
        self._read_changes, self._archive, self._announce_snapshot, self._count_changes = (
            client.register_script((LUA / f"{name}.lua").read_text())
            for name in ("read_changes", "archive_objects", "announce_snapshot", "count_changes")
        )

    def upsert_products(
        self, customer: str, products: Sequence[Product], bundle: str
    ) -> list[UpsertedProduct]:
        """Create or replace products, in one step; images no longer listed leave the index with it.

        `missing_images` are those that have no objects under the bundle that serves the customer, `bundle`
        before any change-over, and have made no step towards it within ON_ITS_WAY_SECONDS.
        """
        arguments: list[Any] = [bundle, ON_ITS_WAY_SECONDS]
        for product in products:
            images = " ".join(dict.fromkeys(product.images))
            types = " ".join(f"{name}:{type_}" for name, type_ in types_of(product))
            arguments += [product.id, product.SerializeToString(deterministic=True), images, types]
        rows = self._writes.run("upsert_products", customer, arguments)
        return [
            UpsertedProduct(
                product_id=product.id, change=change, missing_images=[m.decode() for m in missing]
            )
            for product, (change, *missing) in zip(products, rows, strict=True)
        ]

    def delete_products(self, customer: str, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Remove products with all their images, in one step. Returns those deleted, and those not found."""
        existed = self._writes.run("delete_products", customer, list(ids))
        return (
            [id_ for id_, there in zip(ids, existed, strict=True) if there],
            [id_ for id_, there in zip(ids, existed, strict=True) if not there],
        )

    def products(self, customer: str, ids: Sequence[str]) -> dict[str, Product]:
        """Those of the products that exist, by id."""
        if not ids:
            return {}
        with redis_answers():
            values = self._redis.hmget(customer_key(customer, "products"), list(ids))
        return {
            id_: Product.FromString(value)
            for id_, value in zip(ids, values, strict=True)
            if value is not None
        }

    def stored_objects(self, customer: str, bundle: str, product_id: str) -> dict[str, bytes]:
        """Of the product's images with objects under the bundle, as it lists them: sha256 -> the objects.

        A value is ObjectsEmbedded, or `archived_in`.
        """
        with redis_answers():
            listed = (self._redis.hget(customer_key(customer, "listed"), product_id) or b"").decode().split()
            if not listed:
                return {}
            images = [image_field(product_id, sha256) for sha256 in listed]
            values = self._redis.hmget(customer_key(customer, f"objects:{bundle}"), images)
        return {sha256: value for sha256, value in zip(listed, values, strict=True) if value is not None}

    def attributes(self, customer: str) -> AttributeSchema:
        """Names and types of all products, as of one moment."""
        with redis_answers(), self._redis.pipeline() as pipeline:
            pipeline.hgetall(customer_key(customer, "attributes"))
            pipeline.hlen(customer_key(customer, "products"))
            entries, products = pipeline.execute()
        counts: dict[str, dict[ValueType, int]] = {}
        for entry, count in entries.items():
            name, type_ = entry.decode().split(":")
            counts.setdefault(name, {})[ValueType(type_)] = int(count)
        return AttributeSchema(counts, products)

    def write_objects(self, event: ObjectsEmbedded) -> int:
        """Put one image's objects in place of those it had, and call it indexed; the next search finds them.

        Returns how many objects were written: 0, and nothing is written, if its product no longer lists the
        image, or if the bundle's index was dropped and the one that serves has it. Raises FailedPrecondition
        if the bundle's other objects have other spaces or dimensions, or if its index was dropped meanwhile.
        """
        image = event.image
        # Of the first object: that all have the same is for the caller to check.
        spaces = ", ".join(sorted(f"{v.space}: {len(v.values) // 4}" for v in event.objects[0].vectors))
        value = event.SerializeToString(deterministic=True)
        arguments = [
            event.bundle,
            spaces,
            image.product_id,
            image.sha256,
            image.event_id,
            value,
            len(event.objects),
        ]
        if event.HasField("fingerprint"):
            arguments.append(event.fingerprint.SerializeToString())
        problem = self._writes.run("write_objects", image.customer, arguments)
        if problem is None:
            return len(event.objects)
        if problem == b"withdrawn":
            return 0
        if problem == b"dropped":
            raise FailedPrecondition(f"bundle {event.bundle}: its index was dropped: send the picture again")
        raise FailedPrecondition(
            f"bundle {event.bundle}: the vectors' dimensions are {spaces}, the index has {problem.decode()}"
        )

    def set_state(self, image: IngestedImage, state: ImageStatus.State.ValueType, reason: str = "") -> bool:
        """Enter an image's step into the ledger; INDEXED is for `write_objects` alone.

        The ledger tells of the bundle that serves the customer. A step towards another one, during a
        change-over, is kept with that change-over.

        Returns False, and changes nothing, if its product no longer lists the image, or if the event is a
        redelivery from before the image was indexed.
        """
        arguments = [image.product_id, image.sha256, image.event_id, state, reason, image.bundle]
        return bool(self._writes.run("set_state", image.customer, arguments))

    def states(self, customer: str, product_ids: Sequence[str]) -> list[ImageStatus]:
        """Of every image of those of the products that exist, in the order that they are listed."""
        if not product_ids:
            return []
        with redis_answers():
            listed = self._redis.hmget(customer_key(customer, "listed"), list(product_ids))
        images = [
            image_field(product_id, sha256)
            for product_id, line in zip(product_ids, listed, strict=True)
            for sha256 in (line or b"").decode().split()
        ]
        return self._statuses(customer, images)

    def walk(self, customer: str, cursor: int, count: int) -> Walked:
        """About `count` products from `cursor` on, 0 at first; all at once if there are some hundred only.

        Sees every product that is there throughout. The cursor is Redis' own: a walk that goes on after a
        failover to another node may miss some.
        """
        with redis_answers():
            next_cursor, page = self._redis.hscan(customer_key(customer, "listed"), cursor, count=count)
            total = self._redis.hlen(customer_key(customer, "listed"))
        images = {product_id.decode(): line.decode().split() for product_id, line in page.items()}
        return Walked(images, next_cursor, total)

    def fingerprints(self, customer: str, images: Sequence[tuple[str, str]]) -> list[Fingerprint | None]:
        """Of (product id, sha256) each; None where there is none."""
        if not images:
            return []
        fields = [image_field(product_id, sha256) for product_id, sha256 in images]
        with redis_answers():
            values = self._redis.hmget(customer_key(customer, "fingerprints"), fields)
        return [None if value is None else Fingerprint.FromString(value) for value in values]

    def unfinished(self, older_than_seconds: float = 0.0) -> Iterator[tuple[str, ImageStatus]]:
        """Images, of all customers, neither indexed nor failed, that have made no step for so long."""
        latest = time.time() - older_than_seconds
        with redis_answers():
            keys = list(self._redis.scan_iter(match=customer_key("*", "unfinished")))
        for key in keys:
            customer = customer_of(key)
            with redis_answers():
                images = self._redis.zrangebyscore(key, "-inf", latest)
            for start in range(0, len(images), _SCANNED):
                for status in self._statuses(customer, images[start : start + _SCANNED]):
                    yield customer, status

    def bundles(self, customer: str) -> list[str]:
        """The bundles under which the customer has objects."""
        with redis_answers():
            names = [name.decode() for name in self._redis.hkeys(customer_key(customer, "bundles"))]
            return [name for name in names if self._redis.exists(customer_key(customer, f"objects:{name}"))]

    def head(self, customer: str) -> str:
        """The cursor of a reader that has seen every change, empty if the stream does not exist."""
        with redis_answers():
            newest = self._redis.xrevrange(customer_key(customer, "changes"), count=1)
        return b" ".join((newest[0][0], newest[0][1][b"at"])).decode() if newest else ""

    def images(self, customer: str, bundle: str) -> int:
        """How many images have objects of a bundle."""
        with redis_answers():
            return int(self._redis.hlen(customer_key(customer, f"objects:{bundle}")))

    def load(self, customer: str, bundle: str) -> Iterator[Changes]:
        """Everything, in parts, products first. Writes meanwhile may be missing: read the changes next."""
        cursor = self.head(customer)
        for page in hash_pages(self._redis, customer_key(customer, "products")):
            products: dict[str, bytes | None] = {id_.decode(): value for id_, value in page.items()}
            yield Changes(products, {}, cursor, more=True)
        for page in hash_pages(self._redis, customer_key(customer, f"objects:{bundle}")):
            objects: dict[tuple[str, str], bytes | None] = {
                image_parts(i): value for i, value in page.items()
            }
            yield Changes({}, objects, cursor, more=True)
        yield Changes({}, {}, cursor, more=True)

    def read_changes(self, customer: str, bundle: str, cursor: str) -> Changes | None:
        """What changed after `cursor`, at most some hundred entries, in one round trip.

        None if the stream no longer reaches back so far, or Redis lost data: load everything again.
        """
        names = ("products", f"objects:{bundle}", "changes", "snapshots")
        with redis_answers():
            answer = self._read_changes(
                [customer_key(customer, n) for n in names], [cursor, _CHANGES_READ, bundle]
            )
        if answer is None:
            return None
        last, more, products, objects, generation = answer
        return Changes(
            products={id_.decode(): value for id_, value in zip(products[::2], products[1::2], strict=True)},
            objects={
                (product.decode(), sha256.decode()): value
                for product, sha256, value in zip(objects[::3], objects[1::3], objects[2::3], strict=True)
            },
            cursor=last.decode(),
            more=bool(more),
            generation=generation,
        )

    def products_changed_since(self, customer: str, seconds: float) -> set[str] | None:
        """Ids of products that were written or deleted, or whose objects were, since then by Redis' clock.

        `seconds` since the epoch. None if the stream no longer reaches back so far, or has more than
        _CHANGES_SINCE entries since.
        """
        key = customer_key(customer, "changes")
        since = int(seconds * 1000)  # entries' ids begin with milliseconds
        with redis_answers():
            if not self._redis.exists(key):
                return set()  # nothing was ever written
            stream = self._redis.xinfo_stream(key)
            entries = self._redis.xrange(key, min=since, count=_CHANGES_SINCE + 1)
        trimmed = stream["entries-added"] > stream["length"]
        if trimmed and (not stream["length"] or _milliseconds(stream["first-entry"][0]) >= since):
            return None
        if len(entries) > _CHANGES_SINCE:
            return None
        return {fields[b"product"].decode() for _, fields in entries}

    def generation(self, customer: str, bundle: str) -> int:
        """Of the newest snapshot that readers were told of; 0: none."""
        with redis_answers():
            return int(self._redis.hget(customer_key(customer, "snapshots"), bundle) or 0)

    def announce_snapshot(self, customer: str, bundle: str, generation: int) -> None:
        """Tell readers of a snapshot that lies on S3; an older one never replaces a newer one."""
        with redis_answers():
            self._announce_snapshot([customer_key(customer, "snapshots")], [bundle, generation])

    def archive(
        self, customer: str, bundle: str, generation: int, digests: Mapping[tuple[str, str], str]
    ) -> int:
        """Let go of images' objects that the snapshots from `generation` on have. Returns of how many.

        `digests`: (product id, sha256) -> SHA-1 of the value that went into the snapshot, as hexadecimal
        digits. A value that is another one by now stays.
        """
        key = customer_key(customer, f"objects:{bundle}")
        archived = 0
        left = iter(digests)
        while images := list(islice(left, _ARCHIVED)):
            arguments: list[Any] = [f"@{generation}"]
            for image in images:
                arguments += [image_field(*image), digests[image]]
            with redis_answers():
                archived += self._archive([key], arguments)
        return archived

    def count_changes(self, customer: str, cursor: str, limit: int) -> tuple[int, float]:
        """Entries of the stream after `cursor`, at most `limit`, and the age of the first one in seconds."""
        with redis_answers():
            number, since = self._count_changes([customer_key(customer, "changes")], [cursor, limit])
        return number, max(0.0, time.time() - int(since) / 1000) if number else 0.0

    def customers(self) -> list[str]:
        """Everybody who has a catalogue."""
        with redis_answers():
            keys = list(self._redis.scan_iter(match=customer_key("*", "bundles")))
        return sorted(customer_of(key) for key in keys)

    def _statuses(self, customer: str, images: Sequence[bytes]) -> list[ImageStatus]:
        if not images:
            return []
        with redis_answers():
            lines = self._redis.hmget(customer_key(customer, "images"), list(images))
            serving = self._redis.get(serving_key(customer)) or b""
        statuses = []
        for image, line in zip(images, lines, strict=True):
            if line is None:  # withdrawn since it was listed
                continue
            product_id, sha256 = image_parts(image)
            entry = json.loads(line)
            statuses.append(
                ImageStatus(
                    product_id=product_id,
                    sha256=sha256,
                    state=entry["state"],
                    reason=entry["reason"],
                    objects=(entry.get("counts") or {}).get(serving.decode(), entry["objects"]),
                )
            )
        return statuses


def _milliseconds(entry: bytes) -> int:
    """Of a stream entry's id."""
    return int(entry.split(b"-")[0])
