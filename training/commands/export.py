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
from training.detection import assemble as detection
from training.detection.runs import is_of_detector
from training.embedding.assemble import assemble


@click.command(
    "export",
    epilog=examples(
        "magpie export .training/runs/grocery --data photos --out .training/bundle",
        "magpie export .training/runs/grocery --data photos --out bundles/mine --name mine --version 2",
        "magpie export .training/runs/products --data photos --teacher teacher.onnx --out .training/bundle",
    ),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="RUN")
@data_option
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Bundle that the other models are taken from.  [default: the default bundle]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new bundle.")
@click.option("--name", help="Of the bundle.  [default: that of the base]")
@click.option("--version", help="Of the bundle.  [default: one more than the base's]")
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="ONNX",
    help="What labelled pictures without boxes, for the run of a detector.",
)
@json_option
def command(
    run: Path,
    data: Path,
    base: Path | None,
    out: Path,
    name: str | None,
    version: str | None,
    teacher: Path | None,
    as_json: bool,
) -> None:
    """Make a bundle of a trained RUN: int8 model, golden tensors, and what is fitted to an embedder.

    What int8 costs is measured on the development split, which was not trained on.
    """
    folder = base or default_bundle()
    old = Bundle.load(folder)
    torch.set_num_threads(1)
    new_name, new_version = name or old.name, version or _next(old.version)
    if is_of_detector(run):
        parity = detection.assemble(
            run, data, folder, out, name=new_name, version=new_version, teacher=teacher
        )
        if as_json:
            print_json({"detector": parity})
            return
        _print_parity(parity, "ms a photo, one thread", {kind: parity[kind] for kind in ("fp32", "int8")})
        tell(f"wrote {out}; next: magpie evaluate-detector {out}, then magpie release {out}")
        return
    with notes.status("") as status:
        reports = assemble(
            run,
            data,
            folder,
            out,
            name=new_name,
            version=new_version,
            tell=status.update,
        )
    if as_json:
        print_json(reports)
        return
    figures = {
        kind: {f"recall@1 {name}": value for name, value in reports["embedder"][f"recall@1 {kind}"].items()}
        for kind in ("fp32", "int8")
    }
    _print_parity(reports["embedder"], "ms an object, one thread", figures)
    for space, chosen in reports.get("hash", {}).get("chosen", {}).items():
        table_console.print(f"codes of {space}: {chosen['bits']} bits by {chosen['method']}", highlight=False)
    if hubness := reports.get("hubness"):
        known = hubness["recall@1 of known products by strength"]
        strength = hubness["strength"]
        words = f"known products {known['0.0']:.3f} -> {known[str(strength)]:.3f}"
        table_console.print(f"hubness: strength {strength:g}, {words}", highlight=False)
    for part, reason in reports["left out"].items():
        tell(f"without {part}: {reason}")
    tell(f"wrote {out}; next: magpie evaluate-model {out}, then magpie release {out}")


def _next(version: str) -> str:
    """One more, where the version ends in a number."""
    digits = len(version) - len(version.rstrip("0123456789"))
    return f"{version[: len(version) - digits]}{int(version[-digits:]) + 1}" if digits else f"{version}.1"


def _print_parity(parity: dict[str, Any], time: str, figures: dict[str, dict[str, float]]) -> None:
    table = Table("", "float32", "int8", box=None)
    for name in (time, "megabytes"):
        table.add_row(name, *(f"{parity[name][kind]:.2f}" for kind in ("fp32", "int8")))
    for name, value in figures["fp32"].items():
        table.add_row(name, f"{value:.4f}", f"{figures['int8'][name]:.4f}")
    table_console.print(table)
    largest = ", ".join(f"{space} {value:.3f}" for space, value in parity["largest difference"].items())
    table_console.print(f"largest difference of a value: {largest}", highlight=False)
