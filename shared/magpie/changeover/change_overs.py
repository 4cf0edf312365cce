"""The records of change-overs in Redis, each customer's beside its catalogue (`store/lua/changeover.lua`).

| key | type | holds |
|---|---|---|
| `magpie:{C}:serving` | string | the bundle that answers the customer's searches |
| `magpie:{C}:changeover` | hash | the change-over under way |
| `magpie:{C}:changeover:history` | list | what was decided, as JSON, oldest first |
| `magpie:{C}:due:BUNDLE` | sorted set | images that an index lacks -> when they last made a step |
| `magpie:{C}:failed:BUNDLE` | hash | images that a bundle's models could not take -> reason |
| `magpie:{CHANGE-OVERS}:customers` | set | customers with a record, and perhaps some without |

Every write is one script, in one atomic step with what it depends on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from magpie.changeover.record import ChangeOver, Due, FailedImage, Progress
from magpie.errors import FailedPrecondition
from magpie.store.redis_connection import hash_pages, redis_answers
from magpie.store.redis_keys import customer_key, image_parts
from magpie.store.serving import serving_key
from magpie.store.writing_scripts import WritingScripts

PATIENCE_SECONDS = 600.0  # an image that has made no step for so long is sent again
_CUSTOMERS = "magpie:{CHANGE-OVERS}:customers"  # upper case: no customer has this hash tag
_SCANNED = 500
_SCRIPTS = (
    "start_changeover",
    "set_changeover",
    "list_due",
    "take_due",
    "mark_sent",
    "retry_failed",
    "switch_bundle",
    "drop_bundle",
)


class ChangeOvers:
    """`first` is the bundle that serves customers of whom nothing else is written.

    Every method raises Unavailable while Redis does not answer, those that change a record FailedPrecondition
    if it is not as they need it.
    """

    def __init__(self, client: redis.Redis, first: str) -> None:
        self._redis: Any = client
        self._first = first
        self._writes = WritingScripts(client, _SCRIPTS)

    def customers(self) -> list[str]:
        """Those who may have a change-over under way."""
        with redis_answers():
            return sorted(name.decode() for name in self._redis.smembers(_CUSTOMERS))

    def announce(self, customer: str) -> None:
        """Make a customer known to the background before there is a record."""
        with redis_answers():
            self._redis.sadd(_CUSTOMERS, customer)

    def forget(self, customer: str) -> None:
        """The reverse, once there is no record any more."""
        with redis_answers():
            self._redis.srem(_CUSTOMERS, customer)

    def serving(self, customer: str) -> str:
        """The bundle that serves, as it is now."""
        with redis_answers():
            found = self._redis.get(serving_key(customer))
        return self._first if found is None else str(found.decode())

    def find(self, customer: str) -> ChangeOver | None:
        """The change-over under way, if there is one."""
        with redis_answers():
            fields = self._redis.hgetall(customer_key(customer, "changeover"))
        if not fields:
            return None
        record = {name.decode(): value.decode() for name, value in fields.items()}
        switched = record["switched"] == "1"
        return ChangeOver(
            customer=customer,
            from_bundle=record["from"],
            to_bundle=record["to"],
            serving=record["to" if switched else "from"],
            paused=record["paused"] == "1",
            listed=record["listed"] == "1",
            backlog=int(record["backlog"]),
            started=float(record["started"]),
            changed_at=float(record["changed"]) if "changed" in record else None,
            dropping=record.get("dropping", ""),
        )

    def get(self, customer: str) -> ChangeOver:
        """The change-over under way. Raises FailedPrecondition if there is none."""
        found = self.find(customer)
        if found is None:
            raise FailedPrecondition(
                f"customer {customer} has no change-over under way: begin one with `magpie change-over start`"
            )
        return found

    def start(self, customer: str, to_bundle: str, backlog: int) -> ChangeOver:
        """Begin one, or find it begun."""
        problem = self._writes.run("start_changeover", customer, [to_bundle, self._first, backlog])
        if problem == b"serves":
            raise FailedPrecondition(f"bundle {to_bundle} serves customer {customer} already")
        if problem is not None:
            from_, to, dropping = (part.decode() for part in problem)
            raise FailedPrecondition(
                f"customer {customer} has a change-over from {from_} to {to} under way"
                + (f", {dropping} is being dropped" if dropping else "")
                + ": end it with `magpie change-over drop`"
            )
        return self.get(customer)

    def images(self, customer: str) -> Iterator[list[bytes]]:
        """Every image that products list, in pages, some perhaps twice."""
        return map(list, hash_pages(self._redis, customer_key(customer, "images")))

    def list_due(self, customer: str, images: Sequence[bytes]) -> None:
        """Note which of the images one index of the two lacks."""
        self._writes.run("list_due", customer, images)

    def all_listed(self, customer: str) -> None:
        """Every image that was there at the start has been through `list_due`."""
        self._set(customer, "listed", 1)

    def pause(self, customer: str, paused: bool) -> None:
        """Send no more images towards the index that does not serve; or go on."""
        self._set(customer, "paused", int(paused))

    def limit(self, customer: str, backlog: int) -> None:
        """How many images may be on their way at once."""
        self._set(customer, "backlog", backlog)

    def take_due(self, change_over: ChangeOver, bundle: str) -> list[Due]:
        """Images to send towards a bundle's index, as many as the backlog has room for."""
        arguments = [bundle, PATIENCE_SECONDS, change_over.backlog]
        rows = self._writes.run("take_due", change_over.customer, arguments)
        return [
            Due(*image_parts(image), round=score.decode())
            for image, score in zip(rows[::2], rows[1::2], strict=True)
        ]

    def mark_sent(self, customer: str, bundle: str, images: Sequence[Due]) -> None:
        """They are on their way."""
        self._writes.run("mark_sent", customer, [bundle, *(f"{i.product_id}\0{i.sha256}" for i in images)])

    def send_again(self, customer: str) -> None:
        """What is on its way was lost with its queue."""
        change_over = self.get(customer)
        for bundle in (change_over.from_bundle, change_over.to_bundle):
            with redis_answers():
                lost = self._redis.zrangebyscore(customer_key(customer, f"due:{bundle}"), "(0", "+inf")
                for start in range(0, len(lost), _SCANNED):
                    images = dict.fromkeys(lost[start : start + _SCANNED], 0)
                    self._redis.zadd(customer_key(customer, f"due:{bundle}"), images, xx=True)

    def retry_failed(self, change_over: ChangeOver) -> int:
        """Images that failed towards the index that does not serve are due again. Returns how many."""
        return int(self._writes.run("retry_failed", change_over.customer, [change_over.other]))

    def progress(self, change_over: ChangeOver) -> Progress:
        """How far the index of the bundle that does not serve is."""
        customer, bundle = change_over.customer, change_over.other
        lost_since = time.time() - PATIENCE_SECONDS
        with redis_answers(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hlen(customer_key(customer, f"objects:{bundle}"))
            pipeline.zcard(customer_key(customer, f"due:{bundle}"))
            pipeline.zcount(customer_key(customer, f"due:{bundle}"), f"({lost_since}", "+inf")
            pipeline.hlen(customer_key(customer, f"failed:{bundle}"))
            done, due, on_their_way, failed = pipeline.execute()
        return Progress(change_over, done, due - on_their_way, on_their_way, failed)

    def failed(self, change_over: ChangeOver) -> list[FailedImage]:
        """What the models of the bundle that does not serve could not take."""
        with redis_answers():
            rows = self._redis.hgetall(customer_key(change_over.customer, f"failed:{change_over.other}"))
        return sorted(
            (FailedImage(*image_parts(image), reason.decode()) for image, reason in rows.items()),
            key=lambda image: (image.product_id, image.sha256),
        )

    def sample(self, customer: str, bundles: Sequence[str], count: int) -> list[tuple[str, str]]:
        """About `count` random images, product id and SHA-256, that all the bundles' indexes have."""
        with redis_answers():
            drawn = self._redis.hrandfield(customer_key(customer, "images"), count) or []
            there = [set(drawn)]
            for bundle in bundles:
                with self._redis.pipeline(transaction=False) as pipeline:
                    for image in drawn:
                        pipeline.hexists(customer_key(customer, f"objects:{bundle}"), image)
                    there.append({i for i, known in zip(drawn, pipeline.execute(), strict=True) if known})
        return sorted(image_parts(image) for image in set.intersection(*there))

    def switch(
        self, change_over: ChangeOver, to_bundle: str, entry: Mapping[str, Any], allow_missing: bool = False
    ) -> None:
        """Let one of the two serve in place of the other; `entry` goes into the history with it."""
        arguments = [change_over.serving, to_bundle, int(allow_missing), _history(entry)]
        problem = self._writes.run("switch_bundle", change_over.customer, arguments)
        if problem is not None:
            raise FailedPrecondition(
                f"customer {change_over.customer} stays with {change_over.serving}: {problem.decode()}"
            )

    def begin_drop(self, customer: str, bundle: str) -> None:
        """From now on the bundle's index takes nothing more."""
        self._drop(customer, bundle, "begin", {})

    def end_drop(self, customer: str, bundle: str, entry: Mapping[str, Any]) -> None:
        """Remove a bundle's objects; a change-over that it was part of ends with them."""
        self._drop(customer, bundle, "end", entry)

    def history(self, customer: str) -> list[dict[str, Any]]:
        """What was decided, oldest first."""
        with redis_answers():
            return [
                json.loads(e) for e in self._redis.lrange(customer_key(customer, "changeover:history"), 0, -1)
            ]

    def note(self, customer: str, entry: Mapping[str, Any]) -> None:
        """Add to the history."""
        with redis_answers():
            self._redis.rpush(customer_key(customer, "changeover:history"), _history(entry))

    def _drop(self, customer: str, bundle: str, step: str, entry: Mapping[str, Any]) -> None:
        problem = self._writes.run("drop_bundle", customer, [bundle, self._first, step, _history(entry)])
        if problem == b"serves":
            raise FailedPrecondition(f"bundle {bundle} serves customer {customer}: it cannot be dropped")
        if problem is not None:
            raise FailedPrecondition(f"bundle {bundle} cannot be dropped yet: {problem.decode()}")

    def _set(self, customer: str, field: str, value: int) -> None:
        if not self._writes.run("set_changeover", customer, [field, value]):
            self.get(customer)  # says what is wrong


def _history(entry: Mapping[str, Any]) -> str:
    return json.dumps({"at": round(time.time(), 3), **entry}, ensure_ascii=False)
