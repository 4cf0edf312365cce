"""The libraries that a shop might take instead, each with what its own documentation advises."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import hnswlib
import lancedb
import numpy as np
import pyarrow as pa
import usearch.index
from numpy.typing import NDArray

from tests.bench.index.clustered_vectors import OBJECTS
from tests.bench.index.collection import Collection, Ids, below
from tests.bench.index.subject import OneVector, Services, objects_of

LINKS = 16  # M of every graph
BUILT_WITH = 64  # efConstruction
SEARCHED_WITH = 96  # efSearch
MOST_SEARCHED_WITH = 2048  # of a graph that has to look further under a filter


class _InProcess(OneVector):
    """One thread, and either a search or a write at a time."""

    def __init__(self, collection: Collection, folder: Path, services: Services) -> None:
        super().__init__(collection, folder, services)
        self._lock = threading.Lock()
        self._path = str(folder / "index")

    def alone(self) -> AbstractContextManager[Any]:
        return self._lock


class _Faiss(_InProcess):
    _index: Any

    @staticmethod
    def version() -> str:
        return version("faiss-cpu")

    def build(self) -> dict[str, Any]:
        faiss.omp_set_num_threads(1)
        self._index = self._new()
        for rows, vectors in self.collection.blocks():
            self._add(np.arange(rows.start, rows.stop), vectors)
        faiss.write_index(self._index, self._path)
        return {}

    def load(self) -> None:
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(self._path)

    def search(self, query: int, share: float | None, limit: int) -> NDArray[np.int64]:
        options = {}
        if share is not None:
            bits = np.packbits(self.allowed(share), bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = self._parameters(share or 1.0, **options)
        one = self.collection.fused_queries[query : query + 1]
        return np.asarray(self._index.search(one, limit, params=parameters)[1][0])

    def replace(self, products: Ids) -> None:
        ids = objects_of(products)
        self._index.remove_ids(ids)
        self._add(ids, self.replacement(products))

    def delete(self, products: Ids) -> None:
        self._index.remove_ids(objects_of(products))

    def _new(self) -> Any:
        raise NotImplementedError

    def _add(self, ids: Ids, vectors: NDArray[np.float32]) -> None:
        self._index.add_with_ids(vectors, ids)

    def _parameters(self, share: float, **options: Any) -> Any:
        return faiss.SearchParameters(**options)


class FaissFlat(_Faiss):
    """Exact."""

    name = "faiss-flat"
    parameters = "IndexFlatIP in IndexIDMap2, float32"

    def _new(self) -> Any:
        return faiss.IndexIDMap2(faiss.IndexFlatIP(self.collection.fused_queries.shape[1]))


class FaissInverted(_Faiss):
    """Inverted lists of 8-bit vectors."""

    name = "faiss-ivf-sq8"
    parameters = (
        "4 sqrt(N) lists, SQ8; a 32nd of the lists probed but at least 32, under a filter more by its share"
    )

    def _new(self) -> Any:
        dimension = self.collection.fused_queries.shape[1]
        lists = round(4 * len(self.collection) ** 0.5)
        index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = 8
        sample = np.sort(
            np.random.default_rng(0).choice(
                len(self.collection), min(len(self.collection), 40 * lists), replace=False
            )
        )
        index.train(self.collection.fused(sample))
        return index

    def _parameters(self, share: float, **options: Any) -> Any:
        lists = self._index.nlist
        return faiss.SearchParametersIVF(nprobe=min(lists, round(max(32, lists / 32) / share)), **options)


class FaissGraph(_Faiss):
    """HNSW over float32."""

    name = "faiss-hnsw"
    parameters = (
        f"M {LINKS}, efConstruction {BUILT_WITH}, efSearch {SEARCHED_WITH}, under a filter more by its share "
        f"but at most {MOST_SEARCHED_WITH}, float32"
    )
    writes = False  # it can only add

    def _new(self) -> Any:
        index = faiss.IndexHNSWFlat(self.collection.fused_queries.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILT_WITH
        return index

    def _add(self, ids: Ids, vectors: NDArray[np.float32]) -> None:
        self._index.add(vectors)

    def _parameters(self, share: float, **options: Any) -> Any:
        wide = min(MOST_SEARCHED_WITH, round(SEARCHED_WITH / share))
        return faiss.SearchParametersHNSW(efSearch=wide, **options)


class Usearch(_InProcess):
    """HNSW over 16-bit vectors."""

    name = "usearch"
    parameters = (
        f"connectivity {LINKS}, expansions {BUILT_WITH} and {SEARCHED_WITH}, bf16; its Python knows no filter"
    )
    filters = False

    @staticmethod
    def version() -> str:
        return version("usearch")

    def build(self) -> dict[str, Any]:
        index = self._empty()
        for rows, vectors in self.collection.blocks():
            index.add(np.arange(rows.start, rows.stop), vectors, threads=1)
        index.save(self._path)
        return {}

    def load(self) -> None:
        self._index = self._empty()
        self._index.load(self._path)

    def search(self, query: int, share: float | None, limit: int) -> NDArray[np.int64]:
        return np.asarray(
            self._index.search(self.collection.fused_queries[query], limit, threads=1).keys.astype(np.int64)
        )

    def replace(self, products: Ids) -> None:
        ids = objects_of(products)
        self._index.remove(ids, threads=1)
        self._index.add(ids, self.replacement(products), threads=1)

    def delete(self, products: Ids) -> None:
        self._index.remove(objects_of(products), threads=1)

    def _empty(self) -> usearch.index.Index:
        return usearch.index.Index(
            ndim=self.collection.fused_queries.shape[1],
            metric="ip",
            dtype="bf16",
            connectivity=LINKS,
            expansion_add=BUILT_WITH,
            expansion_search=SEARCHED_WITH,
        )


class Hnswlib(_InProcess):
    """HNSW over float32; a filter is a Python function that is asked for every object on the way."""

    name = "hnswlib"
    parameters = f"M {LINKS}, ef_construction {BUILT_WITH}, ef {SEARCHED_WITH}, float32"

    @staticmethod
    def version() -> str:
        return version("hnswlib")

    def build(self) -> dict[str, Any]:
        index = self._empty()
        index.init_index(len(self.collection), M=LINKS, ef_construction=BUILT_WITH)
        for rows, vectors in self.collection.blocks():
            index.add_items(vectors, np.arange(rows.start, rows.stop))
        index.save_index(self._path)
        return {}

    def load(self) -> None:
        self._index = self._empty()
        self._index.load_index(self._path)
        self._index.set_ef(SEARCHED_WITH)

    def search(self, query: int, share: float | None, limit: int) -> NDArray[np.int64]:
        passes = None if share is None else self.allowed(share).__getitem__
        one = self.collection.fused_queries[query]
        for fewer in range(limit, 0, -1):
            try:
                return np.asarray(
                    self._index.knn_query(one, fewer, num_threads=1, filter=passes)[0][0], np.int64
                )
            except RuntimeError:  # it met fewer that pass than it was asked for
                continue
        return np.empty(0, np.int64)

    def replace(self, products: Ids) -> None:
        self._index.add_items(self.replacement(products), objects_of(products), num_threads=1)

    def delete(self, products: Ids) -> None:
        for row in objects_of(products):
            self._index.mark_deleted(row)

    def _empty(self) -> hnswlib.Index:
        index = hnswlib.Index("ip", self.collection.fused_queries.shape[1])
        index.set_num_threads(1)
        return index


class LanceDB(OneVector):
    """A table on disk with an index of its vectors and one of its prices."""

    name = "lancedb"
    parameters = (
        "IVF_SQ of sqrt(N) lists, a sixteenth probed but at least 20, under a filter more by its share, "
        "refine 5; BTREE on price, prefilter"
    )

    @staticmethod
    def version() -> str:
        return version("lancedb")

    def build(self) -> dict[str, Any]:
        dimension = self.collection.fused_queries.shape[1]
        table = lancedb.connect(self.folder).create_table(
            "objects",
            (
                self._rows(np.arange(rows.start, rows.stop), vectors)
                for rows, vectors in self.collection.blocks()
            ),
            schema=pa.schema(
                [
                    ("id", pa.int64()),
                    ("product", pa.int64()),
                    ("price", pa.float64()),
                    ("vector", pa.list_(pa.float32(), dimension)),
                ]
            ),
        )
        lists = round(len(self.collection) ** 0.5)
        table.create_index(metric="dot", index_type="IVF_SQ", num_partitions=lists)
        for column in ("price", "id", "product"):
            table.create_scalar_index(column)
        return {}

    def load(self) -> None:
        self._table = lancedb.connect(self.folder).open_table("objects")

    def search(self, query: int, share: float | None, limit: int) -> pa.Table:
        asked = self._table.search(self.collection.fused_queries[query]).distance_type("dot")
        if share is not None:
            asked = asked.where(f"price < {below(share)}", prefilter=True)
        lists = len(self.collection) ** 0.5
        probes = min(round(lists), round(max(20, lists / 16) / (share or 1.0)))
        return asked.nprobes(probes).refine_factor(5).limit(limit).select(["id", "_distance"]).to_arrow()

    def rows(self, answer: pa.Table) -> Ids:
        return np.asarray(answer["id"].to_numpy())

    def replace(self, products: Ids) -> None:
        rows = self._rows(objects_of(products), self.replacement(products))
        self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete(self, products: Ids) -> None:
        self._table.delete(f"product IN ({', '.join(map(str, products))})")

    def _rows(self, ids: Ids, vectors: NDArray[np.float32]) -> pa.RecordBatch:
        products = ids // OBJECTS
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        return pa.record_batch(
            [pa.array(ids), pa.array(products), pa.array(self.collection.prices[products]), flat],
            names=["id", "product", "price", "vector"],
        )
