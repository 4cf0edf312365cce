"""What a detector costs: parameters, arithmetic, bytes, milliseconds, and what its training took."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.detection.contract import Network
from training.detection.runs import recipe_of, trained_network
from training.detection.training_time import minutes
from training.quantize import export_onnx

RUNS, WARM_UP = 30, 5  # of which the median is taken; before which as many are not counted


@dataclass(frozen=True)
class Cost:
    """None is what cannot be known of an ONNX file alone, or was not kept."""

    parameters: int
    gflops: float | None  # of one photo; a multiplication and an addition are two
    bytes: int  # of the float32 ONNX file
    ms: dict[int, float]  # threads -> median of one photo's network, without decoding and suppression
    steps: int | None = None
    minutes: float | None = None


def cost_of_run(run_dir: Path, threads: tuple[int, ...] = (1, 2), runs: int = RUNS) -> Cost:
    """Raises NotFound if the folder holds no trained run."""
    recipe = recipe_of(run_dir)
    network = trained_network(run_dir)
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / "detector.onnx"
        export_onnx(network, model, recipe.model.input, ("boxes", "scores"))
        size = model.stat().st_size
        ms = {count: milliseconds(model, count, recipe.model.size, runs) for count in threads}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, gflops(network), size, ms, steps(run_dir), minutes(run_dir))


def cost_of_onnx(model: Path, threads: tuple[int, ...] = (1, 2), runs: int = RUNS) -> Cost:
    """Of a file whose input has a fixed size."""
    graph = onnx.load(str(model)).graph
    parameters = sum(int(np.prod(weight.dims)) for weight in graph.initializer)
    side = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    size = model.stat().st_size
    ms = {count: milliseconds(model, count, side, runs) for count in threads}
    return Cost(parameters, None, size, ms)


def gflops(network: Network) -> float:
    """Counted while it runs on one picture of its size."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, network.size, network.size))
    return float(counter.get_total_flops()) / 1e9


def milliseconds(model: Path, threads: int, size: int, runs: int = RUNS) -> float:
    """Median time of one picture of `size` x `size` px, in the layout that the model wants."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    wanted = session.get_inputs()[0]
    channels_last = wanted.shape[-1] == 3
    shape = (1, size, size, 3) if channels_last else (1, 3, size, size)
    feed = {wanted.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    times = []
    for _ in range(WARM_UP + runs):
        started = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[WARM_UP:]))


def steps(run_dir: Path) -> int | None:
    """That the run's metrics.jsonl holds; None where there is no such file."""
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        return None
    return sum(int(json.loads(line)["step"]) > 0 for line in path.read_text().splitlines())
