"""What is measured: an index that is built into a folder, and opened by a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tests.bench.index.clustered_vectors import OBJECTS
from tests.bench.index.collection import Collection, Ids, below


@dataclass(frozen=True)
class Services:
    """URLs of the servers that an engine needs; empty: it does not."""

    redis: str = ""
    aws: str = ""


class Subject(ABC):
    """Products are numbered, and so are objects: product p has the objects 4 p to 4 p + 3."""

    name: ClassVar[str]
    largest: ClassVar[int | None] = None  # objects, more are not tried
    needs: ClassVar[tuple[str, ...]] = ()  # names of Services
    filters: ClassVar[bool] = True
    writes: ClassVar[bool] = True  # it can replace and delete
    compacts: ClassVar[bool] = False
    writer_is_a_process: ClassVar[bool] = False  # else a thread of the process that searches
    sources: ClassVar[tuple[str, ...]] = ()  # what of this repository it runs
    parameters: ClassVar[str]

    def __init__(self, collection: Collection, folder: Path, services: Services) -> None:
        self.collection = collection
        self.folder = folder  # what it needs to open the index again lies here
        self.services = services

    @staticmethod
    def version() -> str:
        """Of the library."""
        return ""

    @abstractmethod
    def build(self) -> dict[str, Any]:
        """Index the collection and write it to disk. Returns further figures."""

    def compact(self) -> dict[str, Any]:
        """Take what was written since into the files, in a process of its own. Returns further figures."""
        return {}

    def connect(self) -> None:  # noqa: B027 - most need none
        """Reach the servers: what a process takes for that is not counted as the index's."""

    @abstractmethod
    def load(self) -> None:
        """Open what `build` has written."""

    @abstractmethod
    def search(self, query: int, share: float | None, limit: int) -> Any:
        """What the index answers to a query under `price < x` that keeps so many of the products."""

    def rows(self, answer: Any) -> Ids:
        """The objects that an answer names."""
        return np.asarray(answer)

    def replace(self, products: Ids) -> None:
        """Put other pictures in place of the products' own: those of the product after it."""
        raise NotImplementedError

    def delete(self, products: Ids) -> None:
        """Remove products with all their objects."""
        raise NotImplementedError

    def alone(self) -> AbstractContextManager[Any]:
        """Held around a search or a write while both go on, where the library forbids both at once."""
        return nullcontext()


class OneVector(Subject):
    """An index that knows one vector an object, and a filter as the set of the objects that pass."""

    def __init__(self, collection: Collection, folder: Path, services: Services) -> None:
        super().__init__(collection, folder, services)
        self._prices: NDArray[np.float64] | None = None  # (N,), of objects

    def allowed(self, share: float) -> NDArray[np.bool_]:
        """(N,) which objects pass: evaluated anew for every query, as an application would."""
        if self._prices is None:
            self._prices = np.repeat(self.collection.prices, OBJECTS)
        return self._prices < below(share)

    def replacement(self, products: Ids) -> NDArray[np.float32]:
        """(R, D), the vectors of the products that come after these."""
        return self.collection.fused(objects_of((products + 1) % self.collection.products))


def objects_of(products: Ids) -> Ids:
    """(P,) -> (P * OBJECTS,)"""
    return (OBJECTS * products[:, None] + np.arange(OBJECTS)).ravel()
