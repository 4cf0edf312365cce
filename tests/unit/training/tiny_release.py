"""Whole bundles and picture sets, small enough to be released in a moment; their parts are real."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from onnx import helper
from PIL import Image

from magpie.vision.model_card import ModelCard, OutputSpec
from magpie.vision.onnx_session import OnnxSession
from magpie.vision.preprocess import to_tensor
from tests.unit.vision import tiny_models
from training.golden import pictures, write_golden
from training.release.goldens import detector_squares

# What an embedder sees of a picture's mean colour, (3, d): all of it, or neither blue nor green.
SEES_ALL = np.eye(3, dtype=np.float32)
SEES_RED_AND_LIGHT = np.array([[1, 1], [0, 1], [0, 1]], np.float32)

SUITE = """
[[set]]
name = "shop"
queries = { data = "shop/catalogue.csv", photos = "shop/queries.csv", kind = "photo" }
gallery = { data = "shop/catalogue.csv", kind = "catalogue" }
relevant = "product"
space = "identity"

[[set]]
name = "unprotected"
queries = { data = "nowhere/catalogue.csv" }
protected = false
"""


def bundle(folder: Path, version: str = "1", sees: np.ndarray = SEES_ALL) -> Path:
    """A bundle with golden tensors; its one space is `identity`."""
    folder.mkdir(parents=True)
    boxes, scores = np.array([[0.1, 0.1, 0.9, 0.9], [0, 0, 0.5, 0.5]]), np.array([[0.5], [0.2]])
    put_detector(folder, boxes, scores)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),  # (N, 3)
        helper.make_node("Add", ["mean", "lift"], ["colour"]),  # above 0
        helper.make_node("MatMul", ["colour", "sees"], ["seen"]),
        helper.make_node("LpNormalization", ["seen"], ["identity"], axis=1, p=2),
    ]
    constants = {"lift": np.full(1, 1.01, np.float32), "sees": sees}
    digest = tiny_models.write(folder / "embedder.onnx", nodes, constants, ["identity"])
    ModelCard(
        name="tiny-embedder",
        kind="embedder",
        version="1",
        file="embedder.onnx",
        sha256=digest,
        input=tiny_models.INPUT,
        outputs=(OutputSpec("identity", sees.shape[1]),),
        metric="cosine",
    ).save(folder / "embedder.card.json")
    write_golden(folder / "embedder.golden.npz", folder / "embedder.onnx", tiny_models.INPUT)
    manifest = {"name": "tiny", "version": version} | {
        kind: f"{kind}.card.json" for kind in ("detector", "embedder")
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def put_detector(folder: Path, boxes: np.ndarray, scores: np.ndarray) -> None:
    """A detector that finds these boxes in every picture, with its golden tensors, in a bundle's folder."""
    card = tiny_models.detector(folder, boxes, scores)
    card.save(folder / "detector.card.json")
    images = {f"image_{row}": image for row, image in enumerate(pictures())}
    squares = detector_squares({**images, "squares": np.empty(len(images))}, card.input)
    outputs = OnnxSession(card, folder, threads=1).run(to_tensor(squares, card.input))
    np.savez_compressed(folder / "detector.golden.npz", squares=squares, **images, **outputs)


def shop(data: Path, products: int = 40) -> Path:
    """A catalogue of plain colours and a photo of each that is a little off; returns the suite over them."""
    folder = data / "shop"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    colours = _distinct_colours(rng, products)
    rows = [("image", "product_id", "category")]
    queries = [("image", "product_id")]
    for number, colour in enumerate(colours):
        name = f"p{number:02}"
        _paint(folder / f"{name}.png", colour)
        _paint(folder / f"{name}-photo.png", np.clip(colour + rng.integers(-2, 3, 3), 0, 255))
        rows.append((f"{name}.png", name, "warm" if colour[0] > colour[2] else "cold"))
        queries.append((f"{name}-photo.png", name))
    for path, content in ((folder / "catalogue.csv", rows), (folder / "queries.csv", queries)):
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows(content)
    suite = data / "suite.toml"
    suite.write_text(SUITE)
    return suite


def _distinct_colours(rng: np.random.Generator, number: int) -> list[np.ndarray]:
    """At least 4.6 degrees apart as seen from black, which is how the embedder compares them."""
    colours: list[np.ndarray] = []
    while len(colours) < number:
        one = rng.integers(40, 236, 3)
        if all(one @ c < 0.9968 * np.linalg.norm(one) * np.linalg.norm(c) for c in colours):
            colours.append(one)
    return colours


def _paint(path: Path, colour: np.ndarray) -> None:
    Image.fromarray(np.broadcast_to(colour.astype(np.uint8), (16, 16, 3)).copy()).save(path)
