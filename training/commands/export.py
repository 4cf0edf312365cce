"""`magpie export`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table

from magpie.settings import default_bundle
from magpie.vision.bundle import Bundle
from training.commands.options import (
    data_option,
    examples,
    json_option,
    notes,
    print_json,
    table_console,
    tell,
)
from training.embedding.assemble import assemble


@click.command(
    "export",
    epilog=examples(
        "magpie export .training/runs/grocery --data photos --out .training/bundle",
        "magpie export .training/runs/grocery --data photos --out bundles/mine --name mine --version 2",
    ),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="RUN")
@data_option
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Bundle that the detector is taken from.  [default: the default bundle]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new bundle.")
@click.option("--name", help="Of the bundle.  [default: that of the base]")
@click.option("--version", help="Of the bundle.  [default: one more than the base's]")
@json_option
def command(
    run: Path, data: Path, base: Path | None, out: Path, name: str | None, version: str | None, as_json: bool
) -> None:
    """Make a bundle of a trained RUN: int8 model, golden tensors, binary codes, calibration.

    Recall is measured before and after int8 on the development split, which was not trained on.
    """
    folder = base or default_bundle()
    old = Bundle.load(folder)
    torch.set_num_threads(1)
    with notes.status("") as status:
        reports = assemble(
            run,
            data,
            folder,
            out,
            name=name or old.name,
            version=version or _next(old.version),
            tell=status.update,
        )
    if as_json:
        print_json(reports)
        return
    _print_parity(reports["embedder"])
    for space, chosen in reports.get("hash", {}).get("chosen", {}).items():
        table_console.print(f"codes of {space}: {chosen['bits']} bits by {chosen['method']}", highlight=False)
    for part, reason in reports["left out"].items():
        tell(f"without {part}: {reason}")
    tell(f"wrote {out}; next: magpie evaluate-model {out}, then magpie release {out}")


def _next(version: str) -> str:
    """One more, where the version ends in a number."""
    digits = len(version) - len(version.rstrip("0123456789"))
    return f"{version[: len(version) - digits]}{int(version[-digits:]) + 1}" if digits else f"{version}.1"


def _print_parity(parity: dict[str, Any]) -> None:
    table = Table("", "float32", "int8", box=None)
    for name in ("ms an object, one thread", "megabytes"):
        table.add_row(name, *(f"{parity[name][kind]:.2f}" for kind in ("fp32", "int8")))
    for name, value in parity["recall@1 fp32"].items():
        table.add_row(f"recall@1 {name}", f"{value:.4f}", f"{parity['recall@1 int8'][name]:.4f}")
    table_console.print(table)
    largest = ", ".join(f"{space} {value:.3f}" for space, value in parity["largest difference"].items())
    table_console.print(f"largest difference of a value: {largest}", highlight=False)
