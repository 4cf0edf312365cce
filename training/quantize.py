"""From a torch module to the ONNX file that serving runs: export, int8, and how far the two differ.

The graph is exported in float32 with a fixed opset and a free batch, then quantised statically: int8
weights with a scale for each output channel, uint8 activations calibrated on training pictures (Jacob et
al. 2018, arXiv 1712.05877), stored as quantise/dequantise pairs that onnxruntime fuses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]
from torch import nn

from magpie.vision.model_card import InputSpec

OPSET = 17
# What becomes int8. All else (pooling, heads, normalisation) stays float: it is little work and decides most.
QUANTISED = ("Conv", "Add", "Clip", "Pad")

Tensor = NDArray[np.float32]


def export_onnx(
    model: nn.Module,
    path: Path,
    spec: InputSpec,
    outputs: Sequence[str],
    lists: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write `model` as ONNX, input (N, 3, size, size). `outputs` name what it returns, in order.

    `lists` are examples (1, K, ...) of what else it takes, K of any length, after the pictures.

    The exporter is torch's older one: ten times faster than its successor here, with the same graph.
    """
    example, lists = torch.zeros(1, 3, spec.size, spec.size), lists or {}
    torch.onnx.export(
        model.eval(),
        (example, *lists.values()),
        str(path),
        opset_version=OPSET,
        input_names=[spec.name, *lists],
        output_names=list(outputs),
        dynamic_axes={name: {0: "batch"} for name in (spec.name, *outputs)}
        | {name: {0: "batch", 1: name} for name in lists},
        dynamo=False,
    )
    onnx.checker.check_model(str(path))


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Iterable[Tensor]) -> None:
        self._feeds: Iterator[Mapping[str, Tensor]] = ({name: batch} for batch in batches)

    def get_next(self) -> Mapping[str, Tensor] | None:
        return next(self._feeds, None)


def quantise(
    source: Path,
    target: Path,
    spec: InputSpec,
    calibration: Iterable[Tensor],
    *,
    keep_float: Sequence[str] = (),
    method: CalibrationMethod = CalibrationMethod.MinMax,
) -> None:
    """Write `source` as int8. `calibration` yields input tensors; `keep_float` names nodes to leave."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        _Calibration(spec.name, calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        nodes_to_exclude=list(keep_float),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
    )
    prepared.unlink()


def halve_heads(path: Path) -> None:
    """Store the weights of a graph's `Gemm` nodes as float16; they become float32 again when it is loaded.

    The heads stay out of int8, for they decide most; in float32 they would be a quarter of the file.
    """
    model = onnx.load(str(path))
    graph = model.graph
    weights = {node.input[1] for node in graph.node if node.op_type == "Gemm"}
    for initializer in list(graph.initializer):
        if initializer.name not in weights:
            continue
        half = onnx.numpy_helper.to_array(initializer).astype(np.float16)
        name = f"{initializer.name}.half"
        graph.initializer.remove(initializer)
        graph.initializer.append(onnx.numpy_helper.from_array(half, name))
        cast = onnx.helper.make_node("Cast", [name], [initializer.name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def first_convolutions(path: Path, count: int) -> list[str]:
    """Names of a graph's first convolutions, for `keep_float`.

    They work on few channels at full resolution, where int8 costs the most accuracy and gains no time.
    """
    nodes = onnx.load(str(path)).graph.node
    return [node.name for node in nodes if node.op_type == "Conv"][:count]


def session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """One thread, unless more are asked for: as in a small function."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def largest_differences(first: Path, second: Path, inputs: Tensor) -> dict[str, float]:
    """Largest absolute difference of each output of two models on the same (N, 3, H, W)."""
    one, other = session(first), session(second)
    feed = {one.get_inputs()[0].name: inputs}
    names = [output.name for output in one.get_outputs()]
    pairs = zip(names, one.run(names, feed), other.run(names, feed), strict=True)
    return {name: float(np.abs(a - b).max()) for name, a, b in pairs}


def milliseconds(path: Path, inputs: Tensor, runs: int = 20) -> float:
    """Median time for one run over all of `inputs`, divided by their number; one thread."""
    model = session(path)
    feed = {model.get_inputs()[0].name: inputs}
    model.run(None, feed)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model.run(None, feed)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / len(inputs) * 1000
