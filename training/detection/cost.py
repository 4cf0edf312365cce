"""What a detector costs: parameters, arithmetic, bytes, milliseconds, and what its training took."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import Letterbox, to_tensor
from training.detection.contract import Network
from training.detection.export import export_graph
from training.detection.measure import drawn_scenes
from training.detection.proposals import PROPOSALS, proposed
from training.detection.runs import recipe_of, trained_network
from training.detection.training_time import minutes
from training.quantize import Tensor, session

RUNS, WARM_UP = 30, 5  # of which the median is taken; before which as many are not counted
PATIENCE = 30.0  # s


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
        export_graph(network, model, recipe.model.input)
        size = model.stat().st_size
        tensor = sample(recipe.model.input)
        ms = {count: milliseconds(model, count, tensor, runs) for count in threads}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, gflops(network, tensor), size, ms, steps(run_dir), minutes(run_dir))


def cost_of_onnx(model: Path, threads: tuple[int, ...] = (1, 2), runs: int = RUNS) -> Cost:
    """Of a file whose input has a fixed size, (1, 3, S, S) or (1, S, S, 3)."""
    graph = onnx.load(str(model)).graph
    parameters = sum(int(np.prod(weight.dims)) for weight in graph.initializer)
    shape = [side.dim_value or 1 for side in graph.input[0].type.tensor_type.shape.dim]
    tensor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ms = {count: milliseconds(model, count, tensor, runs) for count in threads}
    return Cost(parameters, None, model.stat().st_size, ms)


def sample(spec: InputSpec) -> Tensor:
    """(1, 3, size, size): a drawn scene, so that proposals are as many as in a picture of something."""
    return to_tensor(Letterbox(spec.size, spec.fill)(drawn_scenes(1)[0].image)[None], spec)


def gflops(network: Network, tensor: Tensor) -> float:
    """Counted while it runs on a picture (1, 3, size, size)."""
    where = [torch.from_numpy(proposed(tensor))] if network.needs_proposals else []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.from_numpy(tensor), *where)
    return float(counter.get_total_flops()) / 1e9


def milliseconds(model: Path, threads: int, tensor: Tensor, runs: int = RUNS) -> float:
    """Median time of one picture; proposals included where the model needs them.

    A model so slow that `runs` of it take longer than PATIENCE runs less often, three times at least.
    """
    runner = session(model, threads)
    name, *more = (entry.name for entry in runner.get_inputs())
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (len(times) < WARM_UP + runs and time.perf_counter() - began < PATIENCE):
        started = time.perf_counter()
        runner.run(None, {name: tensor, **({PROPOSALS: proposed(tensor)} if PROPOSALS in more else {})})
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[min(WARM_UP, len(times) - 2) :]))


def steps(run_dir: Path) -> int | None:
    """That the run's metrics.jsonl holds; None where there is no such file."""
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        return None
    return sum(int(json.loads(line)["step"]) > 0 for line in path.read_text().splitlines())
