"""`magpie train calibration`"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.ranking.calibration import Calibration
from magpie.vision.bundle import MANIFEST, Bundle
from training.calibration.fit import TOP, CalibrationReport, fit_calibration, measure_calibration
from training.calibration.reliability import draw
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
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.example import Example
from training.progress import progress
from training.ranking.serving_path import ServingPath, product_similarities

FILE = "calibration.json"


@click.command(
    "calibration",
    epilog=examples(
        "magpie train calibration --bundle my-bundle --data photos --queries shop/queries.csv \\\n"
        "      --gallery shop/catalogue.csv --plot reliability.png",
        "magpie train calibration --bundle my-bundle --data photos --queries shop/queries.csv \\\n"
        "      --gallery shop/catalogue.csv --check",
    ),
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the bundle; the calibration is written into it.",
)
@data_option
@click.option(
    "--queries", type=EntryType(), required=True, help="Photos that the embedder was NOT trained on."
)
@click.option("--gallery", type=EntryType(), required=True, help="Catalogue pictures to search in.")
@click.option(
    "--category",
    "column",
    default="category",
    show_default=True,
    metavar="COLUMN",
    help="The gallery's label column that serving knows as a product's category.",
)
@click.option(
    "-k",
    "top",
    type=click.IntRange(2, 100),
    default=TOP,
    show_default=True,
    help="Hits a photo to fit on: as many as searches show.",
)
@click.option("--check", is_flag=True, help="Fit nothing: measure the calibration that the bundle has.")
@click.option("--whole-images", is_flag=True, help="Embed whole pictures, without the bundle's detector.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Reliability diagram, .png or .svg."
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of a model run.")
@json_option
def command(
    *,
    bundle: Path,
    data: Path,
    queries: DataEntry,
    gallery: DataEntry,
    column: str,
    top: int,
    check: bool,
    whole_images: bool,
    plot: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    """Fit what turns a similarity into the probability that a hit is the same product.

    \b
    QUERIES and GALLERY are data sets in the folder DATA, as in recipes: a card's name, a CSV file or a
    folder, with `:SPLIT,SPLIT` for some splits only.

    Photos and catalogue pictures are cut and embedded as serving does it. The curves are fitted on the first
    K hits of every photo, for each space and category; a category with few hits stays near the curve of all.
    The errors told are of products that the curves were not fitted on.

    The result is calibration.json in the bundle, and its bundle.json names it. It belongs to the bundle's
    embedder: another one needs another calibration.
    """
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"--plot must end in .png or .svg, got {plot}")
    release = Bundle.load(bundle)
    checked = _calibration_of(release) if check else None
    photos = _with_product(examples_of(queries, data), "queries")
    pictures = _with_product(examples_of(gallery, data), "gallery")
    products = sorted({str(picture.product) for picture in pictures})
    missing = sorted({str(photo.product) for photo in photos} - set(products))
    if len(missing) == len({photo.product for photo in photos}):
        raise InvalidArgument("queries", f"none of their products is in the gallery, not even {missing[0]!r}")
    if missing:
        tell(f"not in the gallery, so that all their hits are wrong: {', '.join(missing)}")

    path = ServingPath(release, whole_images=whole_images, threads=threads)
    with progress(notes) as bar:
        task = bar.add_task("embedding", total=len(photos) + len(pictures))
        shelf = path.catalogue([picture.path for picture in pictures], lambda: bar.advance(task))
        asked = path.queries([photo.path for photo in photos], lambda: bar.advance(task))
    number = np.array([products.index(str(picture.product)) for picture in pictures], np.intp)
    similarity = product_similarities(asked, shelf, number)
    same = np.array([[photo.product == product for product in products] for photo in photos])
    labels = {str(picture.product): picture.labels.get(column, "") for picture in pictures}
    category = [labels[product] for product in products]
    if checked is not None:
        report = measure_calibration(checked, similarity, same, category, top=top)
        _tell(report, plot, as_json, {"bundle": release.id})
        return
    calibration, report = fit_calibration(
        similarity,
        same,
        category,
        embedder_sha256=release.embedder_card.sha256,
        top=top,
        fitted_on=f"{len(photos)} photos of {_text(queries)}, {len(products)} products of {_text(gallery)}",
    )
    calibration.save(bundle / FILE)
    _name_in_manifest(bundle)
    _tell(report, plot, as_json, {"file": str(bundle / FILE), "fitted_on": calibration.fitted_on})
    tell(f"wrote {bundle / FILE}")


def _calibration_of(bundle: Bundle) -> Calibration:
    if bundle.calibration is None:
        raise FailedPrecondition(f"{bundle.id} has no calibration to check: leave --check out, and fit one")
    return Calibration.load(bundle.folder, bundle.calibration, bundle.embedder_card.sha256)


def _tell(report: CalibrationReport, plot: Path | None, as_json: bool, facts: Mapping[str, str]) -> None:
    if plot is not None:
        draw({space: held.held_out for space, held in report.spaces.items()}, plot)
        tell(f"wrote {plot}")
    if as_json:
        print_json({**facts, **report.figures()})
    else:
        _print_table(report)


def _with_product(found: list[Example], what: str) -> list[Example]:
    known = [example for example in found if example.product]
    if not known:
        raise InvalidArgument(what, "no picture says which product it shows: the column is product_id")
    if len(known) < len(found):
        tell(f"{what}: {len(found) - len(known)} pictures of no known product are left out")
    return known


def _text(entry: DataEntry) -> str:
    return f"{entry.data} ({', '.join(entry.splits)})" if entry.splits else entry.data


def _name_in_manifest(bundle: Path) -> None:
    path = bundle / MANIFEST
    manifest = {**json.loads(path.read_text()), "calibration": FILE}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(manifest, indent=2) + "\n")
    fresh.replace(path)


def _print_table(report: CalibrationReport) -> None:
    table = Table(box=None)
    table.add_column("space")
    names = (
        "ece_before",
        "ece_after",
        "log_loss",
        "brier",
        "right",
        "first_hit_right",
        "first_hit_probability",
    )
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for space, figures in report.figures()["held_out"].items():
        table.add_row(space, *(f"{figures[name]:.3f}" for name in names))
    table_console.print(table)
    tell(
        f"{report.photos} photos of {report.products} products, {report.top} hits each; the errors are of "
        "products that the curves were not fitted on"
    )
