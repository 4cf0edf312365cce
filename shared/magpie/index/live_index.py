"""One customer's index of one bundle, kept up with the catalogue: the newest snapshot, and the changes since.

Before every answer the stream of changes is asked for news: one round trip, which also tells of a newer
snapshot. That is loaded beside the one in use, and takes its place when it has caught up, so that no query
waits
for it or fails by it. While Redis is away the last known state answers, and says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from aws_lambda_powertools import Logger

from magpie.errors import MagpieError, Unavailable
from magpie.index.layered_table import LayeredTable, View
from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Snapshots

ASK_AGAIN_SECONDS = 1.0  # after Redis did not answer, which a search may wait seconds to learn
_LOADS = 4
_NEXT_TRY_SECONDS = 15.0  # after a newer snapshot could not be loaded
_logger = Logger(service="index")


def in_background(work: Callable[[], None]) -> None:
    """Run it in a thread that does not keep the process alive."""
    threading.Thread(target=work, daemon=True).start()


@dataclass(frozen=True)
class _Current:
    """A table that has caught up."""

    cursor: str  # place in the stream
    view: View
    generation: int


class LiveIndex:
    """Thread-safe. `run` is how the loading of a newer snapshot is started."""

    def __init__(
        self,
        catalogue: Catalogue,
        snapshots: Snapshots | None,
        customer: str,
        bundle: str,
        run: Callable[[Callable[[], None]], None] = in_background,
    ) -> None:
        self._catalogue = catalogue
        self._snapshots = snapshots
        self._customer = customer
        self._bundle = bundle
        self._run = run
        self._table = LayeredTable()
        self._current: _Current | None = None  # None: the table has to be loaded
        self._last: View | None = None  # of the last answer
        self._lock = threading.Lock()
        self._ask_at = 0.0  # when Redis may be asked again, time.monotonic
        self._next_move = 0.0  # when a newer snapshot may be loaded, time.monotonic
        self.nbytes = 0

    def view(self) -> tuple[View, bool]:
        """A view that has every write that returned before the call, and False.

        While Redis does not answer, or a snapshot cannot be read, the last known one, and True. Raises
        Unavailable if there is none.
        """
        if self._last is not None and time.monotonic() < self._ask_at:
            return self._last, True
        try:
            view = self._newest()
        except Unavailable:
            self._last = self._last or self._from_disk()
            if self._last is None:
                raise
            self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS
            return self._last, True
        self._last = view
        return view, self._table.lacks > 0

    def caught_up(self) -> tuple[LayeredTable, str]:
        """The table, and its place in the stream, for a compaction, which is alone with it."""
        with self._lock:
            self._catch_up()
            assert self._current is not None
            return self._table, self._current.cursor

    def _newest(self) -> View:
        current = self._current
        if current is not None and not self._table.lacks:
            changes = self._catalogue.read_changes(self._customer, self._bundle, current.cursor)
            if changes is not None and changes.cursor == current.cursor:
                self._follow(changes.generation, current.generation)
                return current.view
        with self._lock:
            self._catch_up()
            assert self._current is not None
            return self._current.view

    def _catch_up(self) -> None:
        """Raises Unavailable if Redis fails before the end: the table is loaded anew then."""
        lacked = self._table.lacks
        if self._current is not None and (not lacked or time.monotonic() < self._next_move):
            current, self._current = self._current, None
            self._current = self._followed(self._table, current.cursor) or self._loaded()
        else:
            self._current = None
            self._current = self._loaded()
        for _ in range(_LOADS):  # the catalogue may let go of objects while a snapshot is being loaded
            if self._table.lacks in (0, lacked):  # as before: that snapshot cannot be had now
                break
            lacked = self._table.lacks
            self._current = self._loaded()
        if self._table.lacks:
            self._next_move = time.monotonic() + _NEXT_TRY_SECONDS

    def _followed(self, table: LayeredTable, cursor: str) -> _Current | None:
        """None if the stream no longer reaches back to `cursor`."""
        while True:
            changes = self._catalogue.read_changes(self._customer, self._bundle, cursor)
            if changes is None:
                return None
            if changes.cursor != cursor:
                table.apply(changes.products, changes.objects)
                cursor = changes.cursor
            if not changes.more:
                self.nbytes = table.nbytes
                generation = table.snapshot.generation if table.snapshot else 0
                return _Current(cursor, table.view(), generation)

    def _loaded(self) -> _Current:
        """A new table, from the newest snapshot and what came after it."""
        snapshot = None
        if self._snapshots and self._catalogue.generation(self._customer, self._bundle):
            snapshot = self._snapshots.newest(self._customer, self._bundle)
        table = LayeredTable(snapshot)
        current = self._followed(table, snapshot.cursor) if snapshot else None
        while current is None:  # the stream no longer has the cursor
            table = LayeredTable(snapshot)
            table.begin_full_load()
            cursor = ""
            for part in self._catalogue.load(self._customer, self._bundle):
                table.apply(part.products, part.objects)
                cursor = part.cursor
            table.end_full_load()
            current = self._followed(table, cursor)
        self._table = table
        return current

    def _follow(self, newest: int, own: int) -> None:
        """Begin to load a newer snapshot, unless that goes on already."""
        if newest <= own or not self._snapshots or time.monotonic() < self._next_move:
            return
        self._next_move = time.monotonic() + _NEXT_TRY_SECONDS
        self._run(self._move)

    def _move(self) -> None:
        """Load the newest snapshot beside the table in use, then put it in its place."""
        try:
            beside = LiveIndex(self._catalogue, self._snapshots, self._customer, self._bundle)
            beside.view()
            with self._lock:
                if beside._current is not None and self._current is not None:
                    self._table, self._current, self.nbytes = beside._table, beside._current, beside.nbytes
        except MagpieError as error:
            _logger.warning("the newest snapshot cannot be loaded yet", reason=str(error))

    def _from_disk(self) -> View | None:
        """The newest snapshot that this machine has, alone."""
        snapshot = self._snapshots and self._snapshots.newest_on_disk(self._customer, self._bundle)
        return LayeredTable(snapshot).view() if snapshot else None
