"""Follows the catalogue's change stream into documents of a search server.

The catalogue stays the truth and knows nothing of it: whoever searches first brings the documents up to date.
How far they are is kept beside them (the *place*), so that this is one small step as a rule, by one process
for all. One writer at a time holds a lock that expires; a writer whose lock expired while it slept is fenced
off. Every step bears repetition: what a kill leaves half done, the next writer does again. Where the stream
no longer reaches back, the documents are compared with the whole catalogue, and what differs is mended.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from magpie.errors import FailedPrecondition, Unavailable
from magpie.index.archived_objects import ArchivedObjects, objects_in
from magpie.index.redis_filter import product_fields, with_slots
from magpie.index.redis_schema import NUMBERS, Schema, Shard, follow_key, shard_of, shards
from magpie.index.search_server import DOCUMENTS, PLACE, Command, SearchServer
from magpie.index.vectors import dimensions
from magpie.store.catalogue import Catalogue
from magpie.v1.image_pb2 import EmbeddedObject
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

_LOCK_MILLISECONDS = 4000  # extended with every step; a search waits so long for a writer that was killed
_PATIENCE_SECONDS = 8.0
_OBJECTS_AT_ONCE = 64  # written in one step: far less than the lock's time, graph and all
_PAGE = 200  # registry entries a call

Products = Mapping[str, bytes | None]  # id -> Product, None: gone
Objects = Mapping[tuple[str, str], bytes | None]  # (product id, sha256) -> ObjectsEmbedded
Progress = Callable[[int], None]  # is told how many more images have been looked at


def _unheard(_images: int) -> None:
    """Progress that nobody follows."""


def _while_a_search_can_wait(customer: str) -> Progress:
    give_up = time.monotonic() + _PATIENCE_SECONDS

    def check(_images: int) -> None:
        if time.monotonic() > give_up:
            raise Unavailable(
                f"the search index of {customer} lacks more than a search can wait for; try again, or fill "
                "it by `magpie index migrate --to redis`"
            )

    return check


@dataclass(frozen=True)
class Place:
    """How far the documents of one customer and bundle are."""

    cursor: str | None = None  # in the change stream; None: they were never complete
    version: int = 0  # another one whenever they change
    writing: bool = False  # somebody is changing them, or was when he died
    schema: Schema | None = None  # None: there were never any objects
    slots: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, server: SearchServer, customer: str, bundle: str) -> Place:
        """As it is now."""
        names = ("cursor", "version", "writing", "spaces", "slots")
        [answer] = server.execute([("HMGET", follow_key(customer, bundle), *names)])
        cursor, version, writing, spaces, slots = answer
        return cls(
            None if cursor is None else cursor.decode(),
            int(version or 0),
            writing is not None,
            None if spaces is None else Schema.of(bundle, json.loads(spaces)),
            json.loads(slots or b"{}"),
        )


class _LockLost(Exception):
    """Another writer has taken over: what it writes is as good."""


class _OtherSpaces(Exception):
    """The objects that come have other spaces or dimensions than the documents there are."""


class Follower:
    """Of one catalogue, into one server. Thread-safe."""

    def __init__(
        self, catalogue: Catalogue, server: SearchServer, archive: ArchivedObjects | None = None
    ) -> None:
        self._catalogue = catalogue
        self._server = server
        self._archive = archive
        self._mine: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    def place(self, customer: str, bundle: str) -> Place:
        """As it is now."""
        return Place.read(self._server, customer, bundle)

    def caught_up(self, customer: str, bundle: str) -> Place:
        """Bring the documents up to date with all writes that returned before the call.

        Raises Unavailable if that takes longer than a search can wait, here or in another process.
        """
        head = self._catalogue.head(customer)
        place = self.place(customer, bundle)
        if _is_at(place, head):
            return place
        with self._mine[customer, bundle], self._held(customer, bundle) as writer:
            if writer is None:  # somebody else did it
                return self.place(customer, bundle)
            return writer.catch_up(_while_a_search_can_wait(customer))

    @contextmanager
    def frozen(self, customer: str, bundle: str) -> Iterator[Place]:
        """The same, and nobody changes the documents while the context lasts, which must be a short time."""
        with self._mine[customer, bundle], self._held(customer, bundle, always=True) as writer:
            assert writer is not None
            yield writer.catch_up(_while_a_search_can_wait(customer))

    def compare(self, customer: str, bundle: str, progress: Progress = _unheard) -> Place:
        """Compare all documents with the catalogue and mend what differs, however long it takes.

        What an earlier call has written is not written again, so that after a kill it goes on.
        """
        with self._mine[customer, bundle], self._held(customer, bundle, True, float("inf")) as writer:
            assert writer is not None
            return writer.catch_up(progress, anew=True)

    def drop(self, customer: str, bundle: str) -> int:
        """Remove the customer's documents and place. Returns of how many products they were."""
        with self._mine[customer, bundle], self._held(customer, bundle, True, float("inf")) as writer:
            assert writer is not None
            return writer.drop()

    @contextmanager
    def _held(
        self, customer: str, bundle: str, always: bool = False, patience: float = _PATIENCE_SECONDS
    ) -> Iterator[_Writer | None]:
        """The lock; or None once another writer has brought the documents up to date meanwhile."""
        key = follow_key(customer, bundle)
        give_up = time.monotonic() + patience
        before = self.place(customer, bundle)
        wait = 0.002
        while True:
            [answer] = self._server.execute(
                [PLACE.call([key, f"{key}:lock"], ["acquire", _LOCK_MILLISECONDS])]
            )
            if answer:
                break
            head = self._catalogue.head(customer)
            place = self.place(customer, bundle)
            if not always and place.version != before.version and _is_at(place, head):
                yield None
                return
            if time.monotonic() > give_up:
                raise Unavailable(
                    f"another process has been bringing the search index of {customer} up to date for "
                    f"{patience:.0f} s; try again in a moment"
                )
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            wait = min(2 * wait, 0.1)
        number, left_behind = int(answer[0]), bool(answer[1])
        writer = _Writer(self._catalogue, self._server, self._archive, customer, bundle, number)
        try:
            if left_behind:
                writer.fence_off_others()
            yield writer
        except _LockLost:
            raise Unavailable(
                f"writing the search index of {customer} took too long, another process goes on with it; "
                "try again"
            ) from None
        finally:
            with suppress(Unavailable):  # it expires by itself
                writer.release()


class _Writer:
    """Holds the lock of one customer and bundle."""

    def __init__(
        self,
        catalogue: Catalogue,
        server: SearchServer,
        archive: ArchivedObjects | None,
        customer: str,
        bundle: str,
        number: int,
    ) -> None:
        self._catalogue = catalogue
        self._server = server
        self._archive = archive
        self._customer = customer
        self._bundle = bundle
        self._number = number
        self._key = follow_key(customer, bundle)
        self._place = Place.read(server, customer, bundle)

    def catch_up(self, progress: Progress = _unheard, anew: bool = False) -> Place:
        """Follow the stream to its end."""
        cursor = None if anew else self._place.cursor
        more = cursor is None or self._place.writing
        while True:
            changes = None
            if cursor is not None:
                changes = self._catalogue.read_changes(self._customer, self._bundle, cursor)
            if changes is None:
                cursor = self._compare_all(progress)
                more = True
                continue
            if changes.cursor != cursor:
                more = True
                try:
                    self._write(changes.products, changes.objects)
                except _OtherSpaces:
                    self._forget()
                    cursor = None
                    continue
                progress(len(changes.objects))
            if changes.more:
                self._note({"cursor": changes.cursor})
            elif more:
                self._note({"cursor": changes.cursor}, verb="finish")
            cursor = changes.cursor
            if not changes.more:
                break
        return Place.read(self._server, self._customer, self._bundle)

    def drop(self) -> int:
        """Remove everything."""
        self._note({})
        count = self._remove_all()
        self._server.execute([("DEL", self._key)])
        return count

    def fence_off_others(self) -> None:
        """A writer that left without releasing may be asleep: when it wakes, its writes are refused."""
        if self._place.schema is not None:
            self._server.execute(
                [("SET", shard.fence, self._number) for shard in shards(self._place.schema, self._customer)]
            )

    def release(self) -> None:
        self._run(PLACE.call(self._lock_keys, ["release", self._number]))

    @property
    def _lock_keys(self) -> list[str]:
        return [self._key, f"{self._key}:lock"]

    def _compare_all(self, progress: Progress) -> str:
        """Write what is missing or differs, remove what is too much. Returns the cursor to follow from."""
        cursor = ""
        kept: dict[str, set[str]] = {}  # product id -> its images
        for part in self._catalogue.load(self._customer, self._bundle):
            cursor = part.cursor
            for product_id in part.products:
                kept.setdefault(product_id, set())
            for product_id, sha256 in part.objects:
                kept.setdefault(product_id, set()).add(sha256)
            try:
                self._write({}, part.objects)
            except _OtherSpaces:
                raise FailedPrecondition(
                    f"bundle {self._bundle}: objects in the index differ in their spaces or dimensions"
                ) from None
            progress(len(part.objects))
        self._remove_all(kept)
        return cursor

    def _objects_of(self, product_id: str, sha256: str, value: bytes | None) -> Sequence[EmbeddedObject]:
        where = self._customer, self._bundle, product_id, sha256
        return [] if value is None else objects_in(value, self._archive, *where)

    def _write(self, products: Products, objects: Objects) -> None:
        """Bring the documents of these products up to date. Raises _OtherSpaces."""
        given: dict[str, bytes | None] = dict(products)
        absent = list({product_id for product_id, _ in objects if product_id not in given})
        known = self._catalogue.products(self._customer, absent)
        for product_id in absent:
            found = known.get(product_id)
            given[product_id] = None if found is None else found.SerializeToString(deterministic=True)
        parsed = {id_: Product.FromString(value) for id_, value in given.items() if value is not None}
        images: dict[str, dict[str, Sequence[EmbeddedObject]]] = defaultdict(dict)
        for (product_id, sha256), value in objects.items():
            if product_id in parsed:  # else it is gone since, and with it all that it had
                images[product_id][sha256] = self._objects_of(product_id, sha256, value)
        self._settle_spaces(chain.from_iterable(chain.from_iterable(of.values() for of in images.values())))
        if self._place.schema is not None:
            self._settle_slots(parsed.values())
            self._send(
                self._change(id_, parsed.get(id_), value, images.get(id_, {})) for id_, value in given.items()
            )

    def _settle_spaces(self, objects: Iterable[EmbeddedObject]) -> None:
        """The first objects decide. Raises _OtherSpaces if some do not fit."""
        for embedded in objects:
            schema = Schema.of(self._bundle, dimensions(embedded.vectors))
            if self._place.schema is None:
                self._place = replace(self._place, schema=schema)
                self._note({"spaces": json.dumps(dict(schema.dimensions))})
            elif schema != self._place.schema:
                raise _OtherSpaces

    def _settle_slots(self, products: Iterable[Product]) -> None:
        """Known to all before a document uses them."""
        slots = with_slots(self._place.slots, products)
        if slots != self._place.slots:
            self._place = replace(self._place, slots=slots)
            self._note({"slots": json.dumps(slots)})

    def _change(
        self,
        product_id: str,
        product: Product | None,
        value: bytes | None,
        images: Mapping[str, Sequence[EmbeddedObject]],
    ) -> _Change:
        if product is None or value is None:
            return _Change.gone(product_id)
        fields = product_fields(self._customer, product, self._place.slots)
        change = _Change(product_id, _digest(value), fields)
        assert self._place.schema is not None
        for sha256, objects in images.items():
            change.add_image(sha256, objects, self._place.schema)
        return change

    def _send(self, changes: Iterable[_Change]) -> None:
        """Some objects at once, each product as a whole."""
        waiting: dict[int, list[_Change]] = defaultdict(list)
        count = 0
        for change in changes:
            waiting[shard_of(change.product_id)].append(change)
            count += max(change.objects, 1)
            if count >= _OBJECTS_AT_ONCE:
                self._flush(waiting)
                waiting.clear()
                count = 0
        if waiting:
            self._flush(waiting)

    def _flush(self, waiting: Mapping[int, list[_Change]]) -> None:
        schema = self._place.schema
        assert schema is not None
        self._server.create_indexes(schema)  # it is there before its documents are
        self._note({})
        commands = []
        for number, changes in waiting.items():
            shard = Shard(schema, self._customer, number)
            arguments = [argument for change in changes for argument in change.arguments()]
            commands.append(
                DOCUMENTS.call([shard.registry, shard.fence], [self._number, shard.documents, *arguments])
            )
        if not all(self._server.execute(commands)):
            raise _LockLost

    def _remove_all(self, kept: Mapping[str, set[str]] | None = None) -> int:
        """Remove the documents of all products and images but those. Returns of how many products."""
        schema = self._place.schema
        if schema is None:
            return 0
        count = 0
        scans = dict.fromkeys(shards(schema, self._customer), b"0")
        while scans:
            pages = self._server.execute(
                [("HSCAN", shard.registry, cursor, "COUNT", _PAGE) for shard, cursor in scans.items()]
            )
            scans = dict(zip(scans, (cursor for cursor, _ in pages), strict=True))
            surplus = [change for _, page in pages for change in _surplus(page, kept)]
            self._send(surplus)
            count += len(surplus)
            scans = {shard: cursor for shard, cursor in scans.items() if cursor not in (b"0", 0)}
        return count

    def _forget(self) -> None:
        """Remove all documents: those that come have other spaces."""
        self._note({})
        self._remove_all()
        self._place = Place(version=self._place.version)
        self._server.execute([("HDEL", self._key, "cursor", "spaces", "slots")])

    def _note(self, fields: Mapping[str, str], verb: str = "note") -> None:
        pairs = [word for pair in fields.items() for word in pair]
        if not self._run(PLACE.call(self._lock_keys, [verb, self._number, _LOCK_MILLISECONDS, *pairs])):
            raise _LockLost

    def _run(self, command: Command) -> Any:
        return self._server.execute([command])[0]


class _Change:
    """What `redis_documents.lua` is told of one product."""

    def __init__(self, product_id: str, digest: str, fields: Mapping[str, str | bytes]) -> None:
        self.product_id = product_id
        self.objects = 0
        without = [number for number in NUMBERS if number not in fields] if fields else []
        words = [word for pair in fields.items() for word in pair]
        self._head: list[Any] = [product_id, digest, len(without), *without, len(words), *words]
        self._images: list[list[Any]] = []

    @classmethod
    def gone(cls, product_id: str) -> _Change:
        """Nothing of it stays."""
        return cls(product_id, "", {})

    @classmethod
    def without(cls, product_id: str, images: Iterable[str]) -> _Change:
        """These images go."""
        change = cls(product_id, "=", {})
        change._images = [[sha256, "", 0] for sha256 in images]
        return change

    def add_image(self, sha256: str, objects: Sequence[EmbeddedObject], schema: Schema) -> None:
        """Its objects, in place of those that it had."""
        rows: list[Any] = []
        made_of = hashlib.blake2b(digest_size=8)
        for embedded in objects:
            candidate = Candidate(product_id=self.product_id, image_sha256=sha256, box=embedded.object.box)
            vectors = {vector.space: vector.values for vector in embedded.vectors}
            row = [candidate.SerializeToString(), b"".join(vectors[space] for space, _ in schema.dimensions)]
            for part in row:
                made_of.update(part)
            rows += row
        self._images.append([sha256, made_of.hexdigest() if objects else "", len(objects), *rows])
        self.objects += len(objects)

    def arguments(self) -> list[Any]:
        """Of the script."""
        return [*self._head, len(self._images), *(word for image in self._images for word in image)]


def _surplus(page: Any, kept: Mapping[str, set[str]] | None) -> Iterator[_Change]:
    """What of a page of the registry has to go: all that is not in `kept`."""
    pairs = page.items() if isinstance(page, dict) else zip(page[::2], page[1::2], strict=True)
    for field_, entry in pairs:
        product_id, images = field_.decode(), set(json.loads(entry)["i"])
        if kept is None or product_id not in kept:
            yield _Change.gone(product_id)
        elif too_many := images - kept[product_id]:
            yield _Change.without(product_id, too_many)


def _is_at(place: Place, head: str) -> bool:
    """Whether nothing is missing. A customer without a stream has nothing, and gets no place."""
    if place.cursor is None:
        return not head and not place.writing
    return place.cursor == head and not place.writing


def _digest(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=8).hexdigest()
