"""A whole bundle of a trained run: the embedder and what is fitted to it, beside a detector that there is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from magpie.errors import InvalidArgument
from magpie.ranking.calibration import HIT_SPACE
from magpie.ranking.hubness import FILE as HUBNESS
from magpie.vision.bundle import MANIFEST, Bundle
from magpie.vision.model_card import ModelCard
from training.calibration.fit import fit_calibration
from training.embedding.export import CARD, export_embedder
from training.embedding.retrieval import Vectors, embed
from training.embedding.runs import onnx_run, recipe_of
from training.embedding.train import Pictures
from training.hashing.bundle import put_in_bundle
from training.hashing.select import fit_hash
from training.new_bundle import new_bundle
from training.ranking.hubness import fit_hubness
from training.ranking.serving_path import ServingPath, product_similarities

CALIBRATION = "calibration.json"
Tell = Callable[[str], None]


def assemble(
    run_dir: Path, root: Path, base: Path, out: Path, *, name: str, version: str, tell: Tell
) -> dict[str, Any]:
    """Write a bundle to `out`, which appears whole or not at all; the reports of its parts.

    The detector and its files come from the bundle `base`; the embedder from the run, exported anew; codes
    are fitted to the training pictures, hubness and calibration to the development photos, which the run has
    not seen.
    Raises FailedPrecondition if `out` exists or its name and version are those of `base`.
    """
    old = Bundle.load(base)
    made = "vectors of two embedders"
    with new_bundle(old, out, f"{name}@{version}", taken="detector", made=made) as partial:
        for file in (*base.glob("detector.*"), base / old.detector_card.file):
            shutil.copy2(file, partial)
        tell("exporting the embedder")
        parity, pictures = export_embedder(run_dir, root, partial, version)
        manifest = {"name": name, "version": version, "detector": "detector.card.json", "embedder": CARD}
        _write_manifest(partial, manifest)

        card = ModelCard.load(partial / CARD)
        run = onnx_run(card.verified_model(partial))
        tell(f"embedding {len(pictures.train) + len(pictures.development)} pictures")
        reports: dict[str, Any] = {"embedder": parity, "left out": {}}
        if pictures.development:
            learnt = embed(run, card.input, pictures.train)
            held_out = embed(run, card.input, pictures.development)
            parts: dict[str, Callable[[], dict[str, Any]]] = {
                "hash": lambda: _encode(partial, card, pictures, learnt, held_out, tell),
                "hubness": lambda: _against_hubness(
                    partial, card, pictures, learnt, held_out, recipe_of(run_dir).hubness.cost
                ),
                "calibration": lambda: _calibrate(partial, pictures),
            }
            for part, make in parts.items():
                tell(f"fitting {part}")
                try:
                    reports[part] = make()
                except InvalidArgument as error:  # a shop with few photos: the bundle works without
                    reports["left out"][part] = str(error)
        else:
            reports["left out"] = dict.fromkeys(
                ("hash", "hubness", "calibration"), "the run has no development split"
            )
    return reports


def _encode(
    folder: Path,
    card: ModelCard,
    pictures: Pictures,
    vectors: Mapping[str, Vectors],
    held_out: Mapping[str, Vectors],
    tell: Tell,
) -> dict[str, Any]:
    """Codes fitted to the training pictures, measured with the development photos."""
    names = [example.dataset for example in pictures.train]
    model, report = fit_hash(vectors, None, held_out, datasets=names, tell=tell)
    put_in_bundle(folder, model, card.training_data, report)
    return report


def _against_hubness(
    folder: Path,
    card: ModelCard,
    pictures: Pictures,
    vectors: Mapping[str, Vectors],
    held_out: Mapping[str, Vectors],
    cost: float,
) -> dict[str, Any]:
    """References and strength, in `identity`."""
    hubness, report = fit_hubness(
        pictures.train,
        vectors[HIT_SPACE],
        pictures.development,
        held_out[HIT_SPACE],
        embedder_sha256=card.sha256,
        cost=cost,
    )
    hubness.save(folder)
    _add_to_manifest(folder, "hubness", HUBNESS)
    return report


def _calibrate(folder: Path, pictures: Pictures) -> dict[str, Any]:
    """Development photos against the catalogue pictures of all data sets as one shop, cut as serving does."""
    photos = [example for example in pictures.development if example.product is not None]
    gallery = [example for example in pictures.train if example.catalogue and example.product is not None]
    if not photos or not gallery:
        raise InvalidArgument("calibration", "needs development photos of products and catalogue pictures")
    bundle = Bundle.load(folder)
    path = ServingPath(bundle, threads=1)
    shown = [example.product_name or "" for example in gallery]
    products = sorted(set(shown))
    number = {name: row for row, name in enumerate(products)}
    similarity = product_similarities(
        path.queries([example.path for example in photos]),
        path.catalogue([example.path for example in gallery]),
        np.array([number[name] for name in shown], np.intp),
    )
    category = {name: e.labels.get("category", "") for name, e in zip(shown, gallery, strict=True)}
    calibration, report = fit_calibration(
        similarity,
        np.array([photo.product_name for photo in photos])[:, None] == np.array(products)[None, :],
        [category[name] for name in products],
        embedder_sha256=bundle.embedder_card.sha256,
        fitted_on=f"{len(photos)} development photos, {len(products)} products",
    )
    calibration.save(folder / CALIBRATION)
    _add_to_manifest(folder, "calibration", CALIBRATION)
    return report.figures()


def _add_to_manifest(folder: Path, part: str, file: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    _write_manifest(folder, {**manifest, part: file})


def _write_manifest(folder: Path, manifest: Mapping[str, str]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
