"""`magpie train hash`"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from rich.table import Table

from magpie.errors import InvalidArgument
from magpie.vision.bundle import Bundle
from training.commands.options import (
    EntryType,
    data_option,
    examples,
    json_option,
    notes,
    print_json,
    table_console,
    tell,
)
from training.datasets.catalogue_of_cards import DataEntry, card_of, examples_of
from training.datasets.example import Example
from training.embedding.retrieval import embed
from training.embedding.runs import onnx_run
from training.hashing.bundle import put_in_bundle
from training.hashing.select import DEFAULT_BITS, GROWN, OTHER_BITS, bits_of, fit_hash

TABLE_BITS = (64, 128, 256, 512)
_HELD_OUT = 0.15  # of the pictures, where no data set is named for the queries
_PICTURES_AT_ONCE = 64

Vectors = NDArray[np.float32]


def _bits(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    bits = {}
    for value in values:
        space, _, number = value.partition("=")
        if not number.isdecimal():
            raise click.BadParameter(f"{value!r}: write SPACE=BITS, such as identity=256")
        bits[space] = int(number)
    return bits


@click.command(
    "hash",
    epilog=examples(
        "magpie train hash --bundle bundles/mine --data photos --dataset shop",
        "magpie train hash --bundle bundles/mine --data photos --dataset shop:train --queries shop:dev",
        "magpie train hash --bundle bundles/mine --data photos --dataset shop --bits identity=512",
    ),
)
@click.option(
    "--bundle",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the bundle whose vectors are encoded; the codes' model is written into it.",
)
@data_option
@click.option(
    "--dataset",
    "datasets",
    type=EntryType(),
    multiple=True,
    required=True,
    help="To fit to; may be repeated.",
)
@click.option(
    "--queries",
    type=EntryType(),
    multiple=True,
    help=f"To measure with; may be repeated.  [default: {_HELD_OUT:.0%} of the pictures, held out]",
)
@click.option(
    "--bits",
    multiple=True,
    callback=_bits,
    metavar="SPACE=BITS",
    help=f"Length of a code, a multiple of 64.  [default: identity={DEFAULT_BITS['identity']}, "
    f"others {OTHER_BITS}]",
)
@click.option(
    "--table", "whole_table", is_flag=True, help="Measure 64, 128, 256 and 512 bits in every space."
)
@click.option(
    "--grow-to",
    type=click.IntRange(min=0),
    default=GROWN,
    show_default=True,
    help="Measure also on so many vectors grown from the data; 0: do not.",
)
@click.option("--seed", default=0, show_default=True)
@json_option
def command(
    folder: Path,
    data: Path,
    datasets: tuple[DataEntry, ...],
    queries: tuple[DataEntry, ...],
    bits: dict[str, int],
    whole_table: bool,
    grow_to: int,
    seed: int,
    as_json: bool,
) -> None:
    """Fit binary codes to a bundle's spaces and put their model into the bundle.

    A search compares codes first, by the number of bits in which they differ, and then the best few by their
    vectors. Codes are made three ways: by a random tight frame, by iterative quantisation, by an autoencoder
    with bits for latents. None needs labels. All are measured against exact search, the best one is kept.

    With several data sets each is also searched with codes that were fitted without it, as a shop's goods are
    to a bundle; the way whose worst recall is highest wins.
    """
    bundle = Bundle.load(folder)
    wanted = bits_of(list(bundle.embedder_card.spaces), bits)
    fitted = _examples(datasets, data)
    asked = _examples(queries, data) if queries else []
    if not asked:
        fitted, asked = held_out(fitted, seed)
    run = onnx_run(bundle.embedder_card.verified_model(folder))
    with Progress(console=notes, transient=True) as bar:
        task = bar.add_task("embedding", total=len(fitted) + len(asked))

        def vectors(pictures: Sequence[Example]) -> dict[str, Vectors]:
            parts: dict[str, list[Vectors]] = {}
            for first in range(0, len(pictures), _PICTURES_AT_ONCE):
                some = pictures[first : first + _PICTURES_AT_ONCE]
                for space, rows in embed(run, bundle.embedder_card.input, some).items():
                    parts.setdefault(space, []).append(rows)
                bar.advance(task, len(some))
            return {space: np.concatenate(rows) for space, rows in parts.items()}

        training, held = vectors(fitted), vectors(asked)
        task = bar.add_task("fitting", total=None)
        model, report = fit_hash(
            training,
            wanted,
            held,
            seed,
            datasets=[example.dataset for example in fitted],
            table_bits=TABLE_BITS if whole_table else (),
            grow_to=grow_to,
            tell=lambda step: bar.update(task, description=step),
        )
    card = put_in_bundle(folder, model, _credits(datasets, data), report)
    report["bytes"] = (folder / card.file).stat().st_size
    if as_json:
        print_json(report)
    else:
        _print_tables(report)
        tell(f"wrote {folder / card.file} ({report['bytes'] / 1000:.0f} kB)")


def held_out(pictures: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Those to fit to, and those to ask with. Raises InvalidArgument if there are too few to part."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    count = round(_HELD_OUT * len(pictures))
    if not count:
        raise InvalidArgument("dataset", f"{len(pictures)} pictures are too few to hold some out")
    return [pictures[row] for row in sorted(order[count:])], [pictures[row] for row in sorted(order[:count])]


def _examples(entries: Sequence[DataEntry], data: Path) -> list[Example]:
    return [example for entry in entries for example in examples_of(entry, data)]


def _credits(entries: Sequence[DataEntry], data: Path) -> list[str]:
    lines = []
    for entry in entries:
        which = f", splits {', '.join(entry.splits)}" if entry.splits else ""
        lines.append(f"{card_of(entry.data, data).credit or entry.title}{which}")
    return lines


def _print_tables(report: Mapping[str, Any]) -> None:
    """All methods at the bits that are kept, the best one at others."""
    for space, chosen in report["chosen"].items():
        table = Table(
            title=f"{space}: {chosen['method']}, {chosen['bits']} bits", title_justify="left", box=None
        )
        for name in (
            "bits",
            "method",
            "searched",
            "objects",
            "codes",
            "rescored",
            "int8",
            "of them",
            "bytes",
        ):
            table.add_column(name, justify="left" if name in ("method", "searched") else "right")
        for row in report["table"]:
            if row["space"] == space and (row["best"] or row["at_bits_kept"]):
                table.add_row(
                    str(row["bits"]),
                    row["method"],
                    row["collection"],
                    str(row["objects"]),
                    f"{row['hamming']:.3f}",
                    f"{row['rescored']:.4f}",
                    f"{row['rescored_int8']:.4f}",
                    f"{row['shortlist']} ({row['shortlist'] / row['objects']:.1%})",
                    f"{row['code_bytes']} + {row['int8_bytes'] - row['code_bytes']}",
                    style="bold" if row["kept"] else None,
                )
        table_console.print(table)
    tell(
        "recall@10 against exact search: of codes alone, of `of them` rescored by float and by int8 vectors; "
        "bytes an object: its code, and its int8 vector\n"
        f"kept by {report['rule']}"
    )
