"""`magpie evaluate-model`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.progress import TaskID
from rich.table import Table

from magpie.errors import InvalidArgument
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
from training.datasets.catalogue_of_cards import DataEntry
from training.evaluation.evaluation import Evaluation, evaluate, pictures_to_embed, read_all, with_unseen
from training.evaluation.measure import present
from training.evaluation.metrics import METRICS
from training.evaluation.report import PAGE, Heading, earlier_maps, write_report
from training.evaluation.suite import EvaluationSet, Suite
from training.evaluation.vector_cache import VectorCache
from training.progress import progress
from training.release.contender import IMAGENET, Contender, contender
from training.release.protected_sets import DEFAULT_SUITE

CSV = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(
    "evaluate-model",
    epilog=examples(
        "magpie evaluate-model bundles/default --data photos",
        "magpie evaluate-model new --data photos --against bundles/default --map report --out new-report",
        "magpie evaluate-model bundles/default --catalogue catalogue.csv --queries queries.csv",
        "magpie evaluate-model bundles/default --data photos --quick --json",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@suite_option
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="MAGPIE_DATA",
    show_envvar=True,
    help="Folder of the data sets that the suite names.",
)
@click.option("--catalogue", type=CSV, help="A shop of your own instead of a suite: image, product_id, ...")
@click.option("--queries", type=CSV, help="Photos of its products: image, product_id.")
@click.option("--against", metavar="BUNDLE", help="Print this bundle's figures beside; or `imagenet`.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="Folder of the report.",
)
@click.option(
    "--map",
    "old_report",
    type=click.Path(path_type=Path, exists=True),
    help="Folder of an earlier report: place the maps in its maps, to see what moved.",
)
@click.option("--quick", is_flag=True, help="Without conditions, maps and the source probe.")
@json_option
def command(
    bundle: Path,
    suite: Path | None,
    data: Path | None,
    catalogue: Path | None,
    queries: Path | None,
    against: str | None,
    out: Path,
    old_report: Path | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure a bundle's embedder, and write a report as one HTML page.

    For every set: recall@1/5/10, MRR, nDCG@10 and mAP@R with bootstrap intervals, by category, for products
    that training has seen and not seen, and with the photos turned, blurred, darkened, compressed or
    covered; the worst cases as pictures; a map of each space; and whether the vectors tell who took a
    picture. The folder also gets report.json (all figures), maps.npz (for --map) and bad_cases/SET.csv (for
    the hard negatives of a training). Whole pictures are compared; the detector has no part in it.
    """
    old_maps = earlier_maps(old_report) if old_report else None
    chosen, root = _sets(suite, data, catalogue, queries)
    left_out: list[str] = []
    entries = with_unseen(present(chosen, root, left_out.append), Bundle.load(bundle).embedder_card)
    for message in left_out:
        tell(message)
    model = contender(str(bundle))
    peer = contender(against) if against else None
    contents = read_all(entries, root)
    with _caches(model, peer, entries, pictures_to_embed(entries, contents, quick=quick), quick) as caches:
        evaluation = evaluate(
            entries,
            contents,
            root,
            caches["model"],
            peer=caches.get("peer"),
            imagenet=caches.get("imagenet"),
            old_maps=old_maps,
            quick=quick,
        )
    content = _write(evaluation, bundle, peer, left_out, out, quick)
    if as_json:
        print_json(content)
    else:
        _print_tables(content)
    tell(f"the report is {out / PAGE}")


def _sets(
    suite: Path | None, data: Path | None, catalogue: Path | None, queries: Path | None
) -> tuple[Suite, Path]:
    """What to measure on, and the folder that its paths are relative to."""
    if catalogue is None and queries is None:
        if data is None:
            raise click.UsageError("needs --data FOLDER (or MAGPIE_DATA), or --catalogue and --queries")
        return Suite.load(suite or DEFAULT_SUITE), data
    if catalogue is None or queries is None:
        raise click.UsageError("--catalogue and --queries belong together")
    if suite is not None:
        raise click.UsageError("either --suite or --catalogue and --queries")
    root = Path.cwd()
    path = str(catalogue.resolve())
    entry = EvaluationSet(
        name=catalogue.resolve().parent.name or "shop",
        queries=DataEntry(path, photos=str(queries.resolve()), kind="photo"),
        gallery=DataEntry(path, kind="catalogue"),
        related="category",
        conditions=True,
        source_probe=True,
    )
    return Suite((entry,)), root


@contextmanager
def _caches(
    model: Contender,
    peer: Contender | None,
    entries: Sequence[EvaluationSet],
    pictures: int,
    quick: bool,
) -> Iterator[dict[str, VectorCache]]:
    """A cache a model, each with a bar on standard error."""
    with progress(notes) as bar:

        def cache(one: Contender, total: int | None) -> VectorCache:
            task: TaskID = bar.add_task(f"embedding: {one.title}", total=total)
            return VectorCache(one.run, one.spec, lambda done: bar.advance(task, done), hubness=one.hubness)

        caches = {"model": cache(model, pictures)}
        if peer is not None:
            same = (peer.weights, peer.spec) == (model.weights, model.spec)
            caches["peer"] = caches["model"] if same else cache(peer, pictures)
        if not quick and any(entry.source_probe for entry in entries):
            is_peer = peer is not None and peer.weights == IMAGENET
            caches["imagenet"] = caches["peer"] if is_peer else cache(contender(IMAGENET), None)
        yield caches


def _write(
    evaluation: Evaluation,
    folder: Path,
    peer: Contender | None,
    left_out: Sequence[str],
    out: Path,
    quick: bool,
) -> dict[str, Any]:
    bundle = Bundle.load(folder)
    heading = Heading(
        bundle=bundle.id,
        folder=str(folder),
        cards=(bundle.embedder_card, bundle.detector_card),
        peer=peer.title if peer else None,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=shlex.join(["magpie", *sys.argv[1:]]),
        left_out=left_out,
        note="Quick: without conditions, maps and the source probe." if quick else "",
    )
    try:
        return write_report(evaluation, heading, out)
    except OSError as error:
        raise InvalidArgument("--out", f"{error.filename or out}: {error.strerror}") from error


def _print_tables(content: dict[str, Any]) -> None:
    table = Table("set", "queries", *METRICS, box=None)
    for one in content["sets"]:
        cells = []
        for metric in METRICS:
            figure = one["metrics"][metric]
            beside = f" ({figure['difference']:+.3f})" if "difference" in figure else ""
            cells.append(f"{figure['value']:.3f}{beside}")
        table.add_row(one["name"], str(one["queries"]), *cells)
    table_console.print(table)
    if content["peer"]:
        table_console.print(f"in brackets: less {content['peer']}", markup=False, highlight=False)
