"""The network's shapes, what is frozen in it, its export, and the arithmetic of recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from magpie.vision.model_card import InputSpec
from training.embedding.retrieval import leave_one_out, recall_at_1
from training.embedding.runs import onnx_run, torch_run
from training.models.backbone import Lite0Backbone, Lite0Features
from training.models.embedder import SPACES, Embedder
from training.quantize import export_onnx, first_convolutions, largest_differences, quantise

SPEC = InputSpec("image", 64, 127.0, 128.0, 127)


class Tuple(nn.Module):
    """The spaces in order, as the exporter wants them."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.embedder(x).values())


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 64, 64)).astype(np.float32)


def test_feature_maps_have_the_strides_and_channels_that_they_state() -> None:
    maps = Lite0Backbone(pretrained=False)(torch.zeros(2, 3, 96, 64))
    for features, channels, stride in zip(maps, Lite0Backbone.channels, Lite0Backbone.strides, strict=True):
        assert features.shape == (2, channels, 96 // stride, 64 // stride)


def test_training_moves_neither_frozen_stages_nor_statistics() -> None:
    model = Lite0Features(frozen_stages=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.from_numpy(pictures(2))).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("backbone.stages.2") for name in moved)
    assert not [
        name for name in moved if name.startswith(("backbone.stem", "backbone.stages.0", "backbone.stages.1"))
    ]
    assert not [name for name in moved if "running" in name]


def test_heads_started_from_principal_components_keep_the_cosines_of_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 20, generator=generator) @ torch.randn(20, 1280, generator=generator) + 3
    embedder = Embedder(pretrained=False)
    embedder.start_from_principal_components(features)
    centred = nn.functional.normalize(features - features.mean(dim=0), dim=1)
    with torch.no_grad():
        spaces = embedder.project(features)
    for space, dimension in SPACES.items():
        assert spaces[space].shape == (200, dimension)
        torch.testing.assert_close(spaces[space] @ spaces[space].T, centred @ centred.T, atol=1e-3, rtol=0)


def test_export_gives_the_same_vectors_for_any_batch(tmp_path: Path) -> None:
    embedder = Embedder().eval()
    path = tmp_path / "embedder.onnx"
    export_onnx(Tuple(embedder), path, SPEC, list(SPACES))
    tensor = pictures(3)
    expected, exported = torch_run(embedder)(tensor), onnx_run(path)(tensor)
    assert list(exported) == list(SPACES)
    for space, vectors in exported.items():
        np.testing.assert_allclose(vectors, expected[space], atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_int8_stays_near_float(tmp_path: Path) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export_onnx(Tuple(Embedder()), fp32, SPEC, list(SPACES))
    quantise(fp32, int8, SPEC, (pictures(1, seed) for seed in range(8)))
    assert int8.stat().st_size < 0.4 * fp32.stat().st_size
    one, other = onnx_run(fp32)(pictures(4, seed=1)), onnx_run(int8)(pictures(4, seed=1))
    for space in SPACES:
        assert (one[space] * other[space]).sum(axis=1).min() > 0.9
    assert 0 < max(largest_differences(fp32, int8, pictures(2)).values()) < 0.5


def test_named_convolutions_stay_float(tmp_path: Path) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export_onnx(Tuple(Embedder(pretrained=False)), fp32, SPEC, list(SPACES))
    names = first_convolutions(fp32, 2)
    quantise(fp32, int8, SPEC, [pictures(1)], keep_float=names)
    graph = onnx.load(str(int8)).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    weights = [made_by.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert weights == [None, None] + ["DequantizeLinear"] * (len(weights) - 2)


def test_recall_counts_the_nearest_by_cosine() -> None:
    gallery = np.eye(3, dtype=np.float32)
    queries = np.array([[0.9, 0.1, 0], [0, 0.2, 0.8], [0.6, 0.5, 0]], np.float32)
    assert recall_at_1(queries, gallery, ["a", "c", "b"], ["a", "b", "c"]) == pytest.approx(2 / 3)


def test_leave_one_out_never_answers_with_the_query_or_its_group() -> None:
    vectors = np.array([[1, 0], [0.99, 0.14], [0.9, 0.43], [0, 1]], np.float32)
    assert leave_one_out(vectors, ["a", "a", "b", "b"]) == pytest.approx(0.75)
    # Without their own group's pictures, the first two find the third, it finds the second, the last it.
    assert leave_one_out(vectors, ["a", "a", "b", "b"], ["x", "x", "y", "y"]) == 0.0
