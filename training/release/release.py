"""The release gate: a candidate is checked, compared with what is in place, and its release recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from magpie.vision.bundle import MANIFEST, Bundle
from training.evaluation.suite import EvaluationSet
from training.release.compare import Comparison
from training.release.contender import IMAGENET
from training.release.gate import MARGIN, Loss, losses, warnings
from training.release.identity import VERSION, check_identity, ids_of
from training.release.old_classes import ClassLoss, lost_classes
from training.release.protected_sets import protected_boxes, protected_sets
from training.release.record import ReleaseRecord, checksums, drop_parts, verify_release, write_whole
from training.release.wholeness import customers_of, whole_bundle

# Compares A with B (each a folder, or `imagenet`) on these sets.
Compare = Callable[[tuple[str, str], Sequence[EvaluationSet]], Comparison]


@dataclass(frozen=True)
class Order:
    """What is to be released, and what is granted."""

    candidate: Path
    current: Path
    suite: Path
    data: Path
    version: str | None = None  # set in the candidate's manifest
    reason: str | None = None  # why it may be worse
    skip_sets: tuple[str, ...] = ()
    drop_customers: tuple[str, ...] = ()
    first: bool = False  # nothing is in place yet


@dataclass(frozen=True)
class Assessment:
    """What the gate found."""

    identity: str  # name@version that the candidate will have
    against: str
    comparison: Comparison
    losses: list[Loss | ClassLoss]
    warnings: list[str]
    earlier: tuple[str, ...]  # ids that were in place, the present one last
    files: Mapping[str, str]  # of the candidate, path -> SHA-256


def assess(order: Order, compare: Compare) -> Assessment:
    """Check the candidate and compare it. Writes nothing.

    Raises FailedPrecondition with what is wrong and the way out, InvalidArgument, NotFound.
    """
    if order.candidate.resolve() == order.current.resolve():
        raise InvalidArgument(
            "candidate", f"{order.candidate} is what is in place: export into another folder"
        )
    if order.version is not None and not VERSION.fullmatch(order.version):
        raise InvalidArgument("--version", f"must match {VERSION.pattern}, got {order.version!r}")
    entries = protected_sets(order.suite, order.data, order.skip_sets)
    candidate = whole_bundle(order.candidate)
    files = checksums(order.candidate)
    identity = f"{candidate.name}@{order.version or candidate.version}"
    current = _in_place(order)
    earlier = () if current is None else ids_of(order.current)
    check_identity(identity, earlier, order.current)
    _check_customers(order)
    against = IMAGENET if current is None else str(order.current)
    lost: list[ClassLoss] = []
    if current is not None and current.detector_card.sha256 != candidate.detector_card.sha256:
        boxes = protected_boxes(order.suite, order.data, order.skip_sets)
        lost = lost_classes(current, candidate, boxes, order.data)
    comparison = compare((against, str(order.candidate)), entries)
    return Assessment(
        identity,
        IMAGENET if current is None else current.id,
        comparison,
        [*losses(comparison), *lost],
        warnings(comparison) + _change_of(order.current),
        earlier,
        files,
    )


def record(order: Order, found: Assessment) -> ReleaseRecord:
    """Write the candidate's version and its `release.json`.

    Raises FailedPrecondition if the candidate is no longer what was assessed, or cannot be written.
    """
    if checksums(order.candidate) != found.files:
        raise FailedPrecondition(f"{order.candidate} was changed while it was compared: release it again")
    try:
        drop_parts(order.candidate)
        _set_version(order)
        release = _release_of(order, found)
        release.save(order.candidate)
    except OSError as error:
        raise FailedPrecondition(f"{order.candidate} cannot be written: {error}") from error
    verify_release(order.candidate)
    return release


def _set_version(order: Order) -> None:
    manifest = order.candidate / MANIFEST
    values = json.loads(manifest.read_text())
    if order.version is not None and values["version"] != order.version:
        write_whole(manifest, json.dumps(values | {"version": order.version}, indent=2) + "\n")


def _release_of(order: Order, found: Assessment) -> ReleaseRecord:
    allowed = None
    if order.reason is not None:
        allowed = {"reason": order.reason, "losses": [str(loss) for loss in found.losses]}
    suite = hashlib.sha256(order.suite.read_bytes()).hexdigest()
    return ReleaseRecord(
        bundle=Bundle.load(order.candidate).id,
        released_at=datetime.now(UTC).isoformat(timespec="seconds"),
        against=found.against,
        suite={"file": order.suite.name, "sha256": suite},
        comparison=found.comparison.as_dict(),
        margin=MARGIN,
        warnings=tuple(found.warnings),
        allowed_worse=allowed,
        skipped_sets=order.skip_sets,
        dropped_customers=order.drop_customers,
        earlier=found.earlier,
        files=checksums(order.candidate),
    )


def _in_place(order: Order) -> Bundle | None:
    if order.current.exists():
        if order.first:
            raise InvalidArgument("--first", f"{order.current} is in place already: leave `--first` out")
        return Bundle.load(order.current)
    if not order.first:
        raise NotFound(
            f"there is no bundle {order.current} to compare with: if the first one is to go there, pass "
            "`--first`, and it is compared with the ImageNet backbone"
        )
    return None


def _check_customers(order: Order) -> None:
    """No customer's ranking config may get lost on the way."""
    if not order.current.exists():
        return
    lost = set(customers_of(order.current)) - set(customers_of(order.candidate))
    unknown = set(order.drop_customers) - lost
    if unknown:
        raise InvalidArgument("--drop-customer", f"nothing of {', '.join(sorted(unknown))} would be lost")
    lost -= set(order.drop_customers)
    if lost:
        names = sorted(lost)
        raise FailedPrecondition(
            f"{order.current} has ranking configs that the candidate lacks: {', '.join(names)}. "
            f"Fit them to the candidate (`magpie train ranking --customer {names[0]} ...`), or pass "
            + " ".join(f"`--drop-customer {name}`" for name in names)
        )


def _change_of(current: Path) -> list[str]:
    """Whether what is in place is still what was released."""
    try:
        if current.is_dir() and ReleaseRecord.load(current) is not None:
            verify_release(current)
    except FailedPrecondition as error:
        return [str(error)]
    return []
