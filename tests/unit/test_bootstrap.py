"""The composition root on a bundle with all its optional parts: what serves, and what refuses to start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magpie.bootstrap import Application
from magpie.errors import FailedPrecondition
from magpie.geometry import Box
from magpie.index.compact import CompactEngine
from magpie.index.redis_engine import RedisEngine
from magpie.ranking.bundled_configs import path_of, write
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from magpie.ranking.hubness import FILE as HUBNESS
from magpie.ranking.hubness import Hubness
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import ServicerRegistry
from magpie.settings import Settings
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig
from magpie.v1.reranking_pb2 import RerankRequest
from magpie.v1.reranking_pb2_grpc import RerankingServiceStub, add_RerankingServiceServicer_to_server
from magpie.v1.search_pb2 import Candidate, CandidateList
from magpie.vision.detector import Detection
from tests.unit.vision import tiny_models

SPACES = ("identity", "category")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle of tiny models, calibrated, with a config for `shop`."""
    boxes, scores = np.array([[0, 0, 1, 1]]), np.array([[0.5]])
    tiny_models.detector(tmp_path, boxes, scores).save(tmp_path / "detector.card.json")
    card = tiny_models.embedder(tmp_path)
    card.save(tmp_path / "embedder.card.json")
    identity = SpaceCalibration(Curve(10.0, -5.0, 100, 20), {"Tea": Curve(2.0, 0.0, 30, 9)}, 10.0, 0.3, 0.02)
    Calibration(card.sha256, {"identity": identity}).save(tmp_path / "calibration.json")
    config = RankingConfig(fusion=Fusion(weights={"identity": 1}), min_probability=0.6)
    write(tmp_path, "shop", config, SPACES, calibrated=True)
    write_manifest(tmp_path, calibration="calibration.json")
    return tmp_path


def write_manifest(folder: Path, **optional: str) -> None:
    models = {"detector": "detector.card.json", "embedder": "embedder.card.json"}
    (folder / "bundle.json").write_text(json.dumps({"name": "tiny", "version": "1", **models, **optional}))


def application(bundle: Path) -> Application:
    return Application(Settings.from_environment({"MAGPIE_BUNDLE": str(bundle)}))


@pytest.mark.parametrize(
    ("name", "kind"), [("", CompactEngine), ("compact", CompactEngine), ("redis", RedisEngine)]
)
def test_the_engine_is_a_setting(bundle: Path, name: str, kind: type) -> None:
    settings = Settings.from_environment({"MAGPIE_BUNDLE": str(bundle), "MAGPIE_ENGINE": name})
    assert type(Application(settings).engine) is kind


def test_another_engine_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="MAGPIE_ENGINE must be `compact` or `redis`, got 'faiss'"):
        Settings.from_environment({"MAGPIE_ENGINE": "faiss"})


def reranking(app: Application) -> RerankingServiceStub:
    registry = ServicerRegistry()
    add_RerankingServiceServicer_to_server(app._reranking(), registry.server)
    return RerankingServiceStub(LocalChannel(registry))


def request(config: RankingConfig) -> RerankRequest:
    candidates = [
        Candidate(product_id=id_, similarity={"identity": identity, "category": 0.0})
        for id_, identity in (("a", 0.9), ("b", 0.55), ("c", 0.4))
    ]
    return RerankRequest(
        config=config,
        results=[CandidateList(candidates=candidates)],
        products=[Product(id="a"), Product(id="b"), Product(id="c", category="Tea")],
        limit=10,
    )


METADATA = [("magpie-customer", "shop")]


def test_hits_get_their_probability_and_the_customers_cut_off(bundle: Path) -> None:
    app = application(bundle)
    stub = reranking(app)
    (plain,) = stub.Rerank(request(RankingConfig()), metadata=METADATA).results
    sigmoid = {"a": 10 * 0.9 - 5, "b": 10 * 0.55 - 5, "c": 2 * 0.4}
    assert {hit.product_id: hit.probability for hit in plain.hits} == pytest.approx(
        {id_: 1 / (1 + np.exp(-value)) for id_, value in sigmoid.items()}
    )
    fitted = app.ranking_configs._before_the_first_put("shop", "")
    (cut,) = stub.Rerank(request(fitted), metadata=METADATA).results
    assert [hit.product_id for hit in cut.hits] == ["a", "b", "c"]
    fitted.min_probability = 0.65
    (cut,) = stub.Rerank(request(fitted), metadata=METADATA).results
    assert [hit.product_id for hit in cut.hits] == ["a", "c"]


def test_candidates_pay_the_hubness_that_the_bundle_brings(bundle: Path) -> None:
    """Photos in general look like the first candidate."""
    photos = np.eye(8, dtype=np.float32)[:1]
    Hubness(application(bundle).first.bundle.embedder_card.sha256, photos, 1, 0.4, 0.0).save(bundle)
    asked = request(RankingConfig(fusion=Fusion(weights={"identity": 1})))
    for candidate, axis in zip(asked.results[0].candidates, (0, 1, 1), strict=True):
        candidate.identity = np.eye(8, dtype="<f4")[axis].tobytes()

    def ranked() -> list[tuple[str, float]]:
        (found,) = reranking(application(bundle)).Rerank(asked, metadata=METADATA).results
        return [(hit.product_id, hit.score) for hit in found.hits]

    assert ranked() == [("a", pytest.approx(0.9)), ("b", pytest.approx(0.55)), ("c", pytest.approx(0.4))]
    write_manifest(bundle, calibration="calibration.json", hubness=HUBNESS)
    assert ranked() == [("b", pytest.approx(0.55)), ("a", pytest.approx(0.5)), ("c", pytest.approx(0.4))]


def test_a_bundle_without_calibration_serves_without_probabilities(bundle: Path) -> None:
    write_manifest(bundle)
    path_of(bundle, "shop").unlink()
    stub = reranking(application(bundle))
    (plain,) = stub.Rerank(request(RankingConfig()), metadata=METADATA).results
    assert [hit.HasField("probability") for hit in plain.hits] == [False] * 3
    with pytest.raises(Exception, match="min_probability: the bundle in use has no calibration"):
        stub.Rerank(request(RankingConfig(min_probability=0.5)), metadata=METADATA)


def other_embedder(bundle: Path) -> None:
    path = bundle / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "embedder_sha256": "0" * 64}))


def no_file(bundle: Path) -> None:
    (bundle / "calibration.json").unlink()


def other_hubness(bundle: Path) -> None:
    Hubness("0" * 64, np.eye(8, dtype=np.float32), 1, 0.5, 0.0).save(bundle)
    write_manifest(bundle, calibration="calibration.json", hubness=HUBNESS)


def no_calibration(bundle: Path) -> None:
    write_manifest(bundle)


def unknown_space(bundle: Path) -> None:
    path_of(bundle, "shop").write_text('{"fusion": {"weights": {"colour": 1}}}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_embedder, "was fitted to an embedder"),
        (no_file, r"calibration\.json"),
        (other_hubness, r"hubness\.npz is of an embedder"),
        (no_calibration, r"shop/ranking\.json.*no calibration"),
        (unknown_space, r"shop/ranking\.json.*no such space"),
    ],
)
def test_what_does_not_fit_keeps_the_process_from_starting(bundle: Path, damage: Any, message: str) -> None:
    damage(bundle)
    with pytest.raises(FailedPrecondition, match=message):
        _ = application(bundle).public_registry


@pytest.mark.parametrize(("policy", "boxes"), [("all", 2), ("best", 1), ("whole", 1)])
def test_photos_are_searched_by_what_the_detector_s_card_says(bundle: Path, policy: str, boxes: int) -> None:
    rows, scores = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]]), np.array([[0.9], [0.8]])
    card = tiny_models.detector(bundle, rows, scores)
    assert card.detection is not None
    chosen = replace(card.detection, box_policy=policy, whole_image_share=0.25)  # type: ignore[arg-type]
    replace(card, detection=chosen).save(bundle / "detector.card.json")
    policies = application(bundle).first.query_policy
    found = [Detection(Box(0, 0, 0.4, 0.4), "product", 0.9), Detection(Box(0.5, 0.5, 1, 1), "product", 0.8)]
    assert len(policies.objects(found)) == boxes
    assert policies.shares(["product"]) == [0.25]
