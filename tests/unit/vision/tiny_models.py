"""Real ONNX models of a few nodes whose answers can be worked out by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from magpie.vision.model_card import DetectionSpec, InputSpec, ModelCard, OutputSpec

INPUT = InputSpec(name="image", size=32, mean=127, scale=128, fill=114)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    outputs: Sequence[str],
    batch: str | int = "n",
) -> str:
    """Write a model of one image input; return the SHA-256 of its file."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, INPUT.size, INPUT.size])
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [image],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def detector(
    folder: Path, boxes: np.ndarray, scores: np.ndarray, taxonomy: tuple[str, ...] = ("product",)
) -> ModelCard:
    """Gives `boxes` (A, 4) for every image, and `scores` (A, C) times (1 + the mean of the tensor).

    On an image of 127 everywhere, letterbox border aside, the scores are as given.
    """
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),  # (N, 1, 1, 1)
        helper.make_node("Squeeze", ["mean", "last"], ["mean3"]),  # (N, 1, 1)
        helper.make_node("Mul", ["mean3", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "b"], ["boxes"]),
        helper.make_node("Add", ["mean3", "one"], ["factor"]),
        helper.make_node("Mul", ["factor", "s"], ["scores"]),
    ]
    constants = {
        "last": np.array([3], np.int64),
        "zero": np.zeros(1, np.float32),
        "one": np.ones(1, np.float32),
        "b": boxes.astype(np.float32)[None],
        "s": scores.astype(np.float32)[None],
    }
    digest = write(folder / "detector.onnx", nodes, constants, ["boxes", "scores"])
    return ModelCard(
        name="tiny-detector",
        kind="detector",
        version="1",
        file="detector.onnx",
        sha256=digest,
        input=INPUT,
        outputs=(OutputSpec("boxes", 4), OutputSpec("scores", scores.shape[1])),
        detection=DetectionSpec(taxonomy, score_threshold=0.3, iou_threshold=0.5, max_objects=3),
    )


def embedder(folder: Path, spaces: dict[str, int] | None = None) -> ModelCard:
    """Each space: the mean of the three channels, plus 2, through a fixed matrix (3, d); not of unit norm."""
    spaces = spaces or {"identity": 8, "category": 4}
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),  # (N, 3)
        helper.make_node("Add", ["mean", "two"], ["colour"]),
        *[helper.make_node("MatMul", ["colour", f"w_{space}"], [space]) for space in spaces],
    ]
    constants = {"two": np.full(1, 2, np.float32)}
    constants |= {f"w_{space}": matrix(dimension) for space, dimension in spaces.items()}
    digest = write(folder / "embedder.onnx", nodes, constants, list(spaces))
    return ModelCard(
        name="tiny-embedder",
        kind="embedder",
        version="1",
        file="embedder.onnx",
        sha256=digest,
        input=INPUT,
        outputs=tuple(OutputSpec(space, dimension) for space, dimension in spaces.items()),
        metric="cosine",
    )


def matrix(dimension: int) -> np.ndarray:
    """The matrix of a space, (3, dimension)."""
    return np.random.default_rng(dimension).normal(size=(3, dimension)).astype(np.float32)
