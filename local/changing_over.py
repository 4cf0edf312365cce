"""Change-overs of a local system, or of the parts that MAGPIE_* and AWS_* name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from local.home import RunState
from magpie.bootstrap import Application
from magpie.changeover.gate import GateQuery
from magpie.changeover.operator import ChangeOverOperator
from magpie.errors import FailedPrecondition
from magpie.rpc.registry import unobserved
from magpie.settings import Settings
from magpie.tables.queries import read_queries
from magpie.v1.image_pb2 import Image
from magpie.vision.bundle import Bundle

GRADED = "graded query"  # the kind of query that a file has


def operator_of(state: RunState | None) -> ChangeOverOperator:
    """Of a running local system; None: of what the environment names."""
    if state is not None:
        os.environ.update(state.environment())
    return Application(Settings.from_environment(), observe=lambda _: unobserved).change_over_operator


def bundle_id(operator: ChangeOverOperator, to: str) -> str:
    """Of `to`, which is an id or a bundle's folder; empty: MAGPIE_NEXT_BUNDLE's.

    Raises FailedPrecondition if there is none, or the folder has no sound bundle.
    """
    if to:
        return Bundle.load(Path(to)).id if Path(to).is_dir() else to
    ids = operator.bundles
    if len(ids) < 2:
        raise FailedPrecondition(
            f"there is one bundle here, {ids[0]}: name the folder of the next one by "
            "`magpie up --next-bundle FOLDER`, on AWS by the stack's parameter NextBundle"
        )
    return ids[1]


def graded(path: Path | None) -> Sequence[GateQuery]:
    """The queries of a file; none without one. Raises BadFile."""
    if path is None:
        return ()
    return [
        GateQuery(GRADED, Image(content=query.path.read_bytes()), query.grades)
        for query in read_queries(path)
    ]
