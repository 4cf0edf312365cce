"""`magpie release`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle
from training.commands.options import (
    examples,
    json_option,
    notes,
    print_json,
    suite_option,
    table_console,
    tell,
)
from training.release.comparison_tables import metrics_table
from training.release.gate import check_reason, refuse_losses
from training.release.install import alone, install, interrupted, previous_of, recover, roll_back
from training.release.measuring import compare_on
from training.release.protected_sets import DEFAULT_SUITE
from training.release.release import Assessment, Order, assess, record


@click.command(
    "release",
    epilog=examples(
        "magpie release .training/new-bundle --data photos --dry-run",
        "magpie release .training/new-bundle --data photos --version 2",
        'magpie release .training/small --data photos --version 3 --allow-worse "half the size, for phones"',
        "magpie release --rollback",
    ),
)
@click.argument("candidate", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option(
    "--current",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bundles/default"),
    show_default=True,
    help="The place: the bundle that the candidate is compared with and replaces.",
)
@suite_option
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="MAGPIE_DATA",
    show_envvar=True,
    help="Folder of the data sets.",
)
@click.option("--version", help="Set this version in the candidate's manifest.")
@click.option(
    "--allow-worse", "reason", metavar="REASON", help="Release it though it is worse; the reason is recorded."
)
@click.option(
    "--skip-set",
    "skip_sets",
    multiple=True,
    metavar="NAME",
    help="Do without a protected set that is not here; recorded, may be repeated.",
)
@click.option(
    "--drop-customer",
    "drop_customers",
    multiple=True,
    metavar="C",
    help="Let this customer's fitted ranking config go; recorded, may be repeated.",
)
@click.option("--first", is_flag=True, help="Nothing is in place yet: compare with the ImageNet backbone.")
@click.option("--dry-run", is_flag=True, help="Check and compare, change nothing.")
@click.option("--rollback", is_flag=True, help="Put the bundle back that was in place before.")
@click.option("--recover", "only_recover", is_flag=True, help="Clear up after a release that was killed.")
@json_option
def command(
    *,
    candidate: Path | None,
    current: Path,
    suite: Path | None,
    data: Path | None,
    version: str | None,
    reason: str | None,
    skip_sets: tuple[str, ...],
    drop_customers: tuple[str, ...],
    first: bool,
    dry_run: bool,
    rollback: bool,
    only_recover: bool,
    as_json: bool,
) -> None:
    """Put a bundle in the place of another, if it is whole and not worse.

    The candidate must load, its models must match their cards and give what they gave at export, and its
    customers' ranking configs must fit its spaces. Then both bundles answer the queries of every protected
    set of the suite. The candidate is refused, with exit code 1, if recall@1 or nDCG@10 is significantly
    worse on one of them, or falls by more than 5 points on a set with too few queries to tell; or if its
    detector's AP50 of a class that the present one knows falls by more than a point on a set with boxes.

    A release writes `release.json` into the candidate (figures, reasons, the SHA-256 of every file), copies
    it into place, and keeps what was there as CURRENT.previous. If it is killed, nothing is lost: the next
    `magpie release`, or `magpie release --recover`, clears up.
    """
    if [candidate is not None, rollback, only_recover].count(True) != 1:
        raise click.UsageError("name a CANDIDATE, or pass --rollback or --recover")
    if only_recover or rollback:
        with alone(current):
            _recover(current)
            if rollback:
                roll_back(current)
        _tell_state(current, as_json)
        return
    if data is None:
        raise click.UsageError("--data is missing, and so is MAGPIE_DATA")
    assert candidate is not None
    order = Order(
        candidate=candidate,
        current=current,
        suite=suite or DEFAULT_SUITE,
        data=data,
        version=version,
        reason=None if reason is None else check_reason(reason),
        skip_sets=tuple(dict.fromkeys(skip_sets)),
        drop_customers=tuple(dict.fromkeys(drop_customers)),
        first=first,
    )
    with alone(current):
        _release(order, dry_run, as_json)


def _release(order: Order, dry_run: bool, as_json: bool) -> None:
    if interrupted(order.current):
        if dry_run:
            raise FailedPrecondition(
                f"a release to {order.current} was killed: run `magpie release --recover` first"
            )
        _recover(order.current)
    found = assess(order, lambda names, entries: compare_on(names, entries, order.data, notes))
    if not as_json:
        table_console.print(f"A: {found.against}\nB: {found.identity}\n", markup=False, highlight=False)
        table_console.print(metrics_table(found.comparison))
    for warning in found.warnings:
        tell(f"warning: {warning}")
    released = False
    try:
        refuse_losses(found.losses, order.reason)
        if not dry_run:
            record(order, found)
            install(order.candidate, order.current)
            released = True
    finally:
        if as_json:
            print_json(_answer(order, found, released))
    if released:
        tell(f"{found.identity} is in place at {order.current}; `magpie release --rollback` takes it back")
    else:
        tell(f"{found.identity} would be released")


def _answer(order: Order, found: Assessment, released: bool) -> dict[str, Any]:
    return {
        "bundle": found.identity,
        "against": found.against,
        "released": released,
        "losses": [str(loss) for loss in found.losses],
        "allowed_worse": order.reason,
        "skipped_sets": list(order.skip_sets),
        "warnings": found.warnings,
        **found.comparison.as_dict(),
    }


def _recover(current: Path) -> None:
    for line in recover(current):
        tell(f"recovered: {line}")


def _tell_state(current: Path, as_json: bool) -> None:
    """What is in place now, and whether it is as it was released."""
    now, before = _identity(current), _identity(previous_of(current))
    if as_json:
        print_json({"current": now, "previous": before})
    else:
        tell(f"in place at {current}: {now or 'nothing'}; before: {before or 'nothing'}")


def _identity(folder: Path) -> str | None:
    return Bundle.load(folder).id if folder.is_dir() else None
