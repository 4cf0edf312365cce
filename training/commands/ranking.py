"""`magpie train ranking`"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from magpie.errors import InvalidArgument
from magpie.ranking import bundled_configs
from magpie.ranking.calibration import HIT_SPACE
from magpie.tables.problems import BadFile, Problem
from magpie.v1.ranking_config_pb2 import RankingConfig
from magpie.vision.bundle import Bundle
from magpie.vision.bundle_models import BundleModels
from training.commands.options import examples, json_option, notes, print_json, table_console, tell
from training.datasets.example import Example
from training.datasets.source import DataSource, read_examples
from training.progress import progress
from training.ranking.fit import INTERVAL, RankingFit, fit_ranking
from training.ranking.graded import candidates_of, read_graded
from training.ranking.serving_path import ServingPath

REPORT = "ranking.report.json"


@click.command(
    "ranking",
    epilog=examples(
        "magpie train ranking --customer my-shop --queries graded.csv --catalogue catalogue.csv \\\n"
        "      --bundle my-bundle --precision 0.9",
        "magpie config put my-bundle/customers/my-shop/ranking.json --customer my-shop",
    ),
)
@click.option("--customer", required=True, metavar="C", help="Whose ranking it is.")
@click.option(
    "--queries",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    metavar="GRADED.csv",
    help="Columns image, product_id and grade.",
)
@click.option(
    "--catalogue",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    metavar="CATALOGUE.csv|FOLDER",
    help="The shop's catalogue, as for `magpie index`.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the bundle; the config is written into it.",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True),
    help="Cut off hits so that this share of those that are shown is right.",
)
@click.option("--whole-images", is_flag=True, help="Embed whole pictures, without the bundle's detector.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of a model run.")
@json_option
def command(
    *,
    customer: str,
    queries: Path,
    catalogue: Path,
    bundle: Path,
    precision: float | None,
    whole_images: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Fit a customer's ranking on its own graded queries, and put it into a bundle.

    \b
    GRADED.csv has the columns
      image        a photo; relative to the file
      product_id   a product of the catalogue
      grade        how right it is for the photo, from 0 (wrong); 1 without the column
    Several rows of an image grade several products. Those that are not named count as wrong.

    Photos and catalogue pictures are cut and embedded as serving does it. The weights of the spaces are those
    with the best mean nDCG@10 (gain 2^grade - 1), by cross-validation; where they do not beat the default on
    queries that they were not fitted on, the default stays. With --precision a cut-off is found, by
    probability where the bundle has a calibration, else by score.

    The config is BUNDLE/customers/C/ranking.json, with its report beside it. Its other rules (filter, boosts,
    grouping) stay as they were there. It is in force for C, and for nobody else, wherever the bundle serves
    and C has put no config of its own.
    """
    path = bundled_configs.path_of(bundle, customer)
    release = Bundle.load(bundle)
    spaces = tuple(release.embedder_card.spaces)
    if HIT_SPACE not in spaces:
        raise InvalidArgument("bundle", f"has no space `{HIT_SPACE}`, only {', '.join(spaces)}")
    fitted = BundleModels(release, threads)
    calibration = fitted.calibration
    calibrated = calibration is not None
    old = bundled_configs.read(path, spaces, calibrated=calibrated) if path.exists() else None
    pictures = _catalogue(catalogue)
    products = sorted({str(picture.product) for picture in pictures})
    number = {product: row for row, product in enumerate(products)}
    graded = read_graded(queries, number)

    serving = ServingPath(release, whole_images=whole_images, threads=threads)
    with progress(notes) as bar:
        task = bar.add_task("embedding", total=len(pictures) + len(graded))
        shelf = serving.catalogue([picture.path for picture in pictures], lambda: bar.advance(task))
        photos = serving.queries([query.path for query in graded], lambda: bar.advance(task))
    category = {str(picture.product): picture.labels.get("category", "") for picture in pictures}
    fit = fit_ranking(
        candidates_of(
            photos,
            shelf,
            np.array([number[str(picture.product)] for picture in pictures], np.intp),
            [{number[id_]: grade for id_, grade in query.grades.items() if grade > 0} for query in graded],
            spaces,
            fitted.hubness,
        ),
        spaces,
        [category[product] for product in products],
        base=old,
        calibration=calibration,
        precision=precision,
    )
    config = bundled_configs.write(bundle, customer, fit.config, spaces, calibrated=calibrated)
    report = {
        "customer": customer,
        "file": str(path),
        "version": config.version,
        "checksum": config.checksum,
        "bundle": release.id,
        "products": len(products),
        **fit.figures(),
    }
    path.with_name(REPORT).write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
        return
    _print(report, fit, old)
    tell(f"wrote {path}, version {config.version}")


def _catalogue(path: Path) -> list[Example]:
    """Its pictures. Raises BadFile with everything that is wrong."""
    source = DataSource(path.name, folders="products", labels=())
    pictures = read_examples(source, path.parent)
    nameless = [picture for picture in pictures if not picture.product]
    if nameless:
        raise BadFile(
            str(path), [Problem(0, f"{picture.path} has no product_id") for picture in nameless[:20]]
        )
    return pictures


def _print(report: Mapping[str, Any], fit: RankingFit, old: RankingConfig | None) -> None:
    low, high = report[f"difference_{INTERVAL:.0%}"]
    table = Table("nDCG@10, gain " + str(report["gain"]), "", box=None)
    table.add_row("default weights", f"{report['ndcg@10_default']:.4f}")
    table.add_row("fitted, on other queries than fitted on", f"{report['ndcg@10_fitted_held_out']:.4f}")
    table.add_row("difference", f"{report['difference']:+.4f}  ({INTERVAL:.0%}: {low:+.4f} to {high:+.4f})")
    table.add_row("weights", ", ".join(f"{space} {weight:g}" for space, weight in report["weights"].items()))
    table_console.print(table)
    if not fit.weights.better:
        tell("the fitted weights do not beat the default by more than a standard error: the default stays")
    found = fit.cut_off
    if found is not None and found.value is not None:
        tell(
            f"{report['cut_off']['field']} {found.value:.4f}: {found.precision:.3f} of {found.shown} hits "
            f"are right (held out {found.held_out_precision:.3f}); {found.coverage:.3f} of the photos have "
            f"a hit, {found.right_kept:.3f} of the right hits are shown"
        )
    elif found is not None:
        tell(
            f"no cut-off gives a precision of {found.asked:g}: the best is {found.best_precision:.3f}. "
            "The config has none"
        )
    if old is not None and old.HasField("min_score") and not fit.config.HasField("min_score"):
        tell(f"min_score {old.min_score:g} of the replaced config is gone: it belonged to the old weights")
