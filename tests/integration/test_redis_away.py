"""A real Redis that goes away and comes back, while one process serves on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image as PillowImage

from local import redis_server
from local.ports import free_port
from magpie.bootstrap import Application
from magpie.errors import Unavailable
from magpie.index import live_index as live_index_module
from magpie.ranking.config import validate
from magpie.rpc.context import CallContext
from magpie.rpc.registry import unobserved
from magpie.settings import Settings
from magpie.store import customers as customers_module
from magpie.store import last_known as last_known_module
from magpie.store import ranking_configs as ranking_configs_module
from magpie.store import serving as serving_module
from magpie.store.customers import Customers
from magpie.store.last_known import ASK_AGAIN_SECONDS, AWAY_SECONDS
from magpie.store.ranking_configs import RankingConfigs
from magpie.store.redis_connection import connect
from magpie.v1.detection_pb2 import DetectRequest
from magpie.v1.embedding_pb2 import EmbedRequest
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Image
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import RankingConfig
from magpie.v1.visual_search_pb2 import SearchRequest
from magpie.v1.visual_search_pb2_grpc import VisualSearchServiceStub
from tests.unit.vision import tiny_models

SEARCH = "/magpie.v1.VisualSearchService/Search"


class Server:
    """A redis-server that can be stopped and started; what was written is on its disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(redis_server.command(self._port, self._folder), stdout=log)
        give_up = time.monotonic() + 10
        while redis_server.probe(self.url):
            assert time.monotonic() < give_up, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Returns when it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=10)
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Server(folder)
    server.start()
    yield server
    server.stop()


class Clock:
    """Stands in for `time` of one module, and can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """As time.monotonic, later by `ahead`."""
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(last_known_module, "time", clock)
    monkeypatch.setattr(customers_module, "time", clock)
    monkeypatch.setattr(ranking_configs_module, "time", clock)
    monkeypatch.setattr(serving_module, "time", clock)
    monkeypatch.setattr(live_index_module, "time", clock)
    return clock


def test_a_known_key_holds_while_redis_is_away_and_no_longer_than_it_may(
    server: Server, clock: Clock
) -> None:
    customers = Customers(connect(server.url))
    key, never_used = customers.create("shop"), customers.create("shop")
    assert customers.customer_of(key) == "shop"
    server.stop()
    for ahead in (0, AWAY_SECONDS / 2, AWAY_SECONDS - 1):
        clock.ahead = ahead
        assert customers.customer_of(key) == "shop"
    for unknown in (never_used, "mk_x"):
        with pytest.raises(Unavailable, match="try again"):
            customers.customer_of(unknown)
    clock.ahead = AWAY_SECONDS + ASK_AGAIN_SECONDS + 1
    with pytest.raises(Unavailable):
        customers.customer_of(key)
    server.start()
    assert customers.customer_of(key) == customers.customer_of(never_used) == "shop"


def test_a_key_that_was_revoked_meanwhile_ends_when_redis_is_back(server: Server, clock: Clock) -> None:
    here, there = Customers(connect(server.url)), Customers(connect(server.url))
    key = there.create("shop")
    assert here.customer_of(key) == "shop"
    server.stop()
    clock.ahead = 100
    assert here.customer_of(key) == "shop"
    server.start()
    assert there.revoke(key)
    clock.ahead += ASK_AGAIN_SECONDS + 0.1
    assert here.customer_of(key) is None
    server.stop()
    assert_unavailable(lambda: here.customer_of(key))


def assert_unavailable(call: Callable[[], object]) -> None:
    with pytest.raises(Unavailable):
        call()


class Switch:
    """An S3 client that can be away."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise Unavailable("S3 does not answer")
        return getattr(self._s3, name)


def config_of(text: str) -> RankingConfig:
    return validate(RankingConfig(filter=text), ("identity",))


def test_the_ranking_config_comes_from_s3_while_redis_is_away_and_from_memory_without_both(
    server: Server, s3: Any, bucket: str, clock: Clock
) -> None:
    switch = Switch(s3)
    configs = RankingConfigs(switch, bucket, connect(server.url))
    fresh_process = RankingConfigs(s3, bucket, connect(server.url))
    configs.put("shop", config_of("price < 5"))
    server.stop()
    clock.ahead = 2
    assert configs.current("shop").filter == "price < 5"
    assert fresh_process.current("shop").filter == "price < 5"
    assert fresh_process.current("other").filter == ""
    assert_unavailable(lambda: fresh_process.put("shop", config_of("price < 6")))
    assert fresh_process.get("shop").filter == "price < 5"
    switch.away = True
    for ahead in (10, AWAY_SECONDS - 10):
        clock.ahead = ahead
        assert configs.current("shop").filter == "price < 5"
    assert_unavailable(lambda: configs.current("other"))
    clock.ahead = 2 * AWAY_SECONDS
    assert_unavailable(lambda: configs.current("shop"))
    server.start()
    switch.away = False
    assert configs.current("shop").filter == "price < 5"


def test_a_config_that_was_put_while_redis_was_away_does_not_vanish_when_it_is_back(
    server: Server, s3: Any, bucket: str, clock: Clock
) -> None:
    configs = RankingConfigs(s3, bucket, connect(server.url))
    old = configs.put("shop", config_of("price < 5"))
    # On S3 alone, as from a writer who lost Redis in the middle.
    new = config_of("price < 6")
    other = RankingConfigs(s3, bucket, connect(server.url))
    server.stop()
    other._replace("shop", old, other._in_force("shop", "")[1], versioned(new, 2))
    clock.ahead = 10
    assert configs.current("shop").filter == "price < 6"
    server.start()  # its cache has the old one
    clock.ahead = 20
    assert configs.current("shop").filter == "price < 6"
    assert RankingConfigs(s3, bucket, connect(server.url)).current("shop").filter == "price < 6"


def versioned(config: RankingConfig, version: int) -> RankingConfig:
    config.version = version
    return config


def photo(colour: tuple[int, int, int]) -> bytes:
    buffer = BytesIO()
    PillowImage.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def app(
    server: Server, local_aws: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Application:
    """The api of tiny models."""
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    models = tmp_path / "bundle"
    models.mkdir()
    boxes, scores = np.array([[0, 0, 1, 1]]), np.array([[0.5]])
    tiny_models.detector(models, boxes, scores).save(models / "detector.card.json")
    tiny_models.embedder(models, {"identity": 8, "category": 4, "similar": 4}).save(
        models / "embedder.card.json"
    )
    manifest = {"name": "tiny", "version": "1", "detector": "detector.card.json"}
    (models / "bundle.json").write_text(json.dumps({**manifest, "embedder": "embedder.card.json"}))
    environment = {"MAGPIE_BUNDLE": str(models), "MAGPIE_REDIS_URL": server.url, "MAGPIE_BUCKET": bucket}
    settings = Settings.from_environment({**environment, "AWS_ENDPOINT_URL": local_aws})
    return Application(settings, observe=lambda _: unobserved)


def add_product(app: Application, picture: bytes) -> None:
    stages = app.stages
    metadata = CallContext(customer="shop").outgoing()
    detected = stages.detection.Detect(DetectRequest(image=Image(content=picture)), metadata=metadata)
    embedded = stages.embedding.Embed(
        EmbedRequest(image=detected.image, objects=detected.objects), metadata=metadata
    )
    app.catalogue.upsert_products("shop", [Product(id="red", images=["a"])], embedded.bundle)
    image = IngestedImage(event_id="e", customer="shop", product_id="red", sha256="a")
    event = ObjectsEmbedded(image=image, objects=embedded.objects, bundle=embedded.bundle)
    assert app.catalogue.write_objects(event) == 1


def over_http(app: Application, key: str, body: bytes) -> tuple[int, dict[str, str], Any]:
    """POST to the WSGI app: status, headers, JSON."""
    answered: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        answered.update(status=int(status.split(maxsplit=1)[0]), headers={k.lower(): v for k, v in headers})

    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": SEARCH,
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_API_KEY": key,
        "SERVER_NAME": "test",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
    }
    content = b"".join(app.http_app()(environ, start_response))
    return answered["status"], answered["headers"], json.loads(content)


def test_searches_go_on_say_that_they_are_stale_and_recover(
    app: Application, server: Server, clock: Clock
) -> None:
    key, never_used = app.customers.create("shop"), app.customers.create("shop")
    add_product(app, photo((200, 30, 30)))
    address = f"127.0.0.1:{free_port()}"
    native = app.native_server(address)
    with grpc.insecure_channel(address) as channel:
        search = VisualSearchServiceStub(channel).Search

        def ask(api_key: str = key) -> tuple[list[str], bool]:
            request = SearchRequest(image=Image(content=photo((200, 30, 30))))
            answer = search(request, metadata=[("x-api-key", api_key)], timeout=20)
            return [hit.product_id for found in answer.objects for hit in found.hits], answer.stale

        assert ask() == (["red"], False)
        server.stop()
        for ahead in (1, 20, 300):  # nothing that is known is younger than it is taken for good
            clock.ahead = ahead
            assert ask() == (["red"], True)
        body = b'{"image": {"content": "iVBORw0KGgo="}}'
        status, headers, answer = over_http(app, never_used, body)
        assert (status, headers["retry-after"], answer["code"]) == (503, "1", "unavailable")
        assert "try again" in answer["message"]
        with pytest.raises(grpc.RpcError) as failed:
            ask(never_used)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ("grpc-retry-pushback-ms", "1000") in {
            (m.key, m.value) for m in failed.value.trailing_metadata()
        }
        server.start()
        clock.ahead += ASK_AGAIN_SECONDS + 1
        assert ask() == (["red"], False)
        assert ask(never_used) == (["red"], False)
        app.catalogue.delete_products("shop", ["red"])
        assert ask() == ([], False)
    native.stop(None).wait()
