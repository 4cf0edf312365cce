"""The main job through the whole system: real processes, real queues, the command line as users have it."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import time
import urllib.request
from pathlib import Path

import pytest
import redis

from local import ports
from local.customers import reading
from local.home import Home
from magpie.v1.catalog_pb2 import GetIngestStatusRequest, ImageStatus
from tests.e2e.conftest import LocalSystem, Shop, make_shop

WORKERS = ("detection-worker", "embedding-worker", "search-worker", "probe-worker")
PROCESSES = ("redis", "aws", *WORKERS, "compaction", "api")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, local_system: LocalSystem) -> Shop:
    """Fourteen products of as many kinds, indexed for `shop`."""
    shop = make_shop(tmp_path_factory.mktemp("shop"), 14)
    report = local_system.json("index", shop.catalogue, "--customer", "shop")
    assert (report["indexed"], report["unchanged"], report["failed"]) == (14, 0, [])
    assert report["seconds"] > 0
    return shop


def test_a_second_run_changes_nothing(local_system: LocalSystem, shop: Shop) -> None:
    report = local_system.json("index", shop.catalogue, "--customer", "shop")
    assert (report["indexed"], report["unchanged"], report["failed"]) == (0, 14, [])


def test_a_photo_finds_its_product(local_system: LocalSystem, shop: Shop) -> None:
    right = sum(local_system.hits(shop.photo(id_), "shop")[:1] == [id_] for id_ in shop.products[:8])
    assert right >= 6


def test_the_form_of_a_search(local_system: LocalSystem, shop: Shop) -> None:
    photo = shop.photo(shop.products[0])
    found = local_system.json("search", photo, "--customer", "shop", "-k", "3", "--explain")
    assert set(found) == {"query_id", "bundle", "objects", "timings_ms", "next_page_token"}
    assert {"detection", "embedding", "search", "reranking", "total"} <= set(found["timings_ms"])
    for object_ in found["objects"]:
        assert set(object_) == {"box", "label", "score", "hits", "facets"}
        x0, y0, x1, y1 = object_["box"]
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert len(object_["hits"]) == 3
        scores = [hit["score"] for hit in object_["hits"]]
        assert scores == sorted(scores, reverse=True)
        for hit in object_["hits"]:
            assert set(hit) == {"product_id", "score", "probability", "title", "reasons", "stands_for"}
            assert 0 < hit["probability"] < 1
            assert sum(hit["reasons"].values()) == pytest.approx(hit["score"], abs=1e-6)


def test_a_box_and_a_filter(local_system: LocalSystem, shop: Shop) -> None:
    photo = shop.photo(shop.products[0])
    found = local_system.json(
        "search", photo, "--customer", "shop", "--box", "0.1,0.2,0.9,0.95", "--filter", "price >= 20"
    )
    (object_,) = found["objects"]
    assert object_["box"] == pytest.approx([0.1, 0.2, 0.9, 0.95], abs=1e-4)
    assert sorted(hit["product_id"] for hit in object_["hits"]) == sorted(shop.products[10:])


def test_boxes_pages_and_what_is_similar(local_system: LocalSystem, shop: Shop) -> None:
    photo = shop.photo(shop.products[0])
    boxes = ("--box", "0.1,0.2,0.9,0.95", "--box", "0,0,1,1")
    found = local_system.json("search", photo, "--customer", "shop", *boxes, "-k", "14")
    assert [len(object_["hits"]) for object_ in found["objects"]] == [14, 14]
    first = local_system.json("search", photo, "--customer", "shop", *boxes, "-k", "9")
    second = local_system.json("search", "--customer", "shop", "--page", first["next_page_token"])
    assert second["next_page_token"] == ""
    whole = local_system.json("search", photo, "--customer", "shop", *boxes, "-k", "3", "--all-pages")
    for row in (0, 1):
        hits = first["objects"][row]["hits"] + second["objects"][row]["hits"]
        assert hits == found["objects"][row]["hits"] == whole["objects"][row]["hits"]
    arguments = ("similar", shop.products[0], "--customer", "shop", "--weight", "similar=1", "--explain")
    (object_,) = local_system.json(*arguments, "-k", "20")["objects"]
    assert sorted(hit["product_id"] for hit in object_["hits"]) == sorted(shop.products[1:])
    assert {term for hit in object_["hits"] for term in hit["reasons"]} == {"similar"}
    refused = local_system.run("similar", "none", "--customer", "shop")
    assert refused.stderr.startswith("error: NOT_FOUND: product_id: there is no product 'none'")


def test_a_filter_that_does_not_parse(local_system: LocalSystem, shop: Shop) -> None:
    result = local_system.run(
        "search", shop.photo(shop.products[0]), "--customer", "shop", "--filter", "price <", "--json"
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: INVALID_ARGUMENT: ")
    assert "position 7" in result.stderr


def test_the_page_stands_by_itself(local_system: LocalSystem, shop: Shop, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    local_system.json("search", shop.photo(shop.products[0]), "--customer", "shop", "-k", "4", "--html", page)
    html = page.read_text()
    assert html.count('<div class="picture"><img src="data:image/jpeg;base64,') >= 4
    assert "no picture" not in html
    assert "http" not in html


def test_config_changes_the_ranking_of_its_customer_alone(
    local_system: LocalSystem, shop: Shop, tmp_path: Path
) -> None:
    local_system.json("index", shop.catalogue, "--customer", "other")
    photo, last = shop.photo(shop.products[0]), shop.products[-1]
    before = local_system.hits(photo, "shop"), local_system.hits(photo, "other")
    assert before[0][0] != last
    config = local_system.json("config", "get", "--customer", "shop")
    config["boosts"] = [{"filter": f"id = '{last}'", "weight": 1.0, "name": "today"}]
    (tmp_path / "config.json").write_text(json.dumps(config))
    put = local_system.json("config", "put", tmp_path / "config.json", "--customer", "shop")
    assert int(put["version"]) == int(config["version"]) + 1
    assert local_system.hits(photo, "shop")[0] == last
    assert local_system.hits(photo, "other") == before[1]
    config["boosts"] = []
    local_system.json("config", "put", "-", "--customer", "shop", stdin=json.dumps(config))
    assert local_system.hits(photo, "shop") == before[0]


def test_a_config_that_is_no_good(local_system: LocalSystem, shop: Shop) -> None:
    for text, code in (
        ('{"boosts": [{"filter": "price <"}]}', "INVALID_ARGUMENT"),
        ("{", "is no ranking config"),
    ):
        result = local_system.run("config", "put", "-", "--customer", "shop", stdin=text)
        assert result.returncode == 1
        assert code in result.stderr


def test_deleted_products_are_gone_and_can_come_back(local_system: LocalSystem, tmp_path: Path) -> None:
    shop = make_shop(tmp_path, 5, first_seed=100)
    local_system.json("index", shop.catalogue, "--customer", "deleting")
    photo, id_ = shop.photo(shop.products[0]), shop.products[0]
    assert id_ in local_system.hits(photo, "deleting")
    answer = local_system.json("delete", id_, "none", "--customer", "deleting")
    assert answer == {"deleted": [id_], "not_found": ["none"]}
    assert sorted(local_system.hits(photo, "deleting")) == sorted(shop.products[1:])
    report = local_system.json("index", shop.catalogue, "--customer", "deleting")
    assert (report["indexed"], report["unchanged"]) == (1, 4)
    assert id_ in local_system.hits(photo, "deleting")


def test_a_compacted_index_answers_as_before_and_forgets_what_is_deleted(
    local_system: LocalSystem, tmp_path: Path
) -> None:
    shop = make_shop(tmp_path, 6, first_seed=400)
    local_system.json("index", shop.catalogue, "--customer", "compacted")
    photo, first = shop.photo(shop.products[0]), shop.products[0]
    before = local_system.hits(photo, "compacted")
    (entry,) = local_system.json("compact", "--customer", "compacted", "--force")["indexes"]
    assert entry["outcome"] in ("compacted", "unchanged")  # by its own schedule it may have been faster
    after = local_system.hits(photo, "compacted")
    assert (after[0], sorted(after)) == (before[0], sorted(before))
    (index,) = [i for i in local_system.json("status")["indexes"] if i["customer"] == "compacted"]
    assert index["generation"] >= 1
    assert index["changes"] == 0
    local_system.json("delete", first, "--customer", "compacted")
    rest = local_system.hits(photo, "compacted")
    assert sorted(rest) == sorted(shop.products[1:])
    local_system.json("compact", "--customer", "compacted", "--force")
    for _ in range(2):
        assert local_system.hits(photo, "compacted") == rest
        os.kill(local_system.pids()["api"], signal.SIGKILL)
        assert local_system.json("up")["started"] == ["api"]
    result = local_system.run("compact", "--customer", "nobody-at-all")
    assert result.returncode == 1
    assert "magpie index" in result.stderr


def test_a_bad_picture_fails_alone(local_system: LocalSystem, tmp_path: Path) -> None:
    shop = make_shop(tmp_path, 4, first_seed=200)
    truncated, text = tmp_path / f"{shop.products[1]}.jpg", tmp_path / f"{shop.products[2]}.jpg"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    text.write_text("no picture")
    for _ in range(2):  # again: they fail again, with the same reasons
        report = local_system.json("index", shop.catalogue, "--customer", "bad-pictures")
        assert report["indexed"] + report["unchanged"] == 2
        failed = {failure["product_id"]: failure for failure in report["failed"]}
        assert set(failed) == {shop.products[1], shop.products[2]}
        assert failed[shop.products[1]]["image"] == truncated.name
        assert "truncated" in failed[shop.products[1]]["reason"]
        assert failed[shop.products[2]]["reason"]
    parked = local_system.json("parked")["parked"]
    assert shop.products[1] in {event["product_id"] for event in parked}
    # Mended, it goes in.
    make_shop(tmp_path, 4, first_seed=200)
    report = local_system.json("index", shop.catalogue, "--customer", "bad-pictures")
    assert (report["indexed"], report["unchanged"], report["failed"]) == (2, 2, [])


def test_evaluate(local_system: LocalSystem, shop: Shop, tmp_path: Path) -> None:
    with (shop.catalogue.parent / "queries.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "product_id"])
        rows.writerows([shop.photo(id_).name, id_] for id_ in shop.products[:6])
    measured = local_system.json("evaluate", shop.catalogue.parent / "queries.csv", "--customer", "shop")
    assert measured["queries"] == 6
    assert 0 < measured["recall@1"] <= measured["recall@5"] <= measured["recall@10"] <= 1
    assert 0 < measured["ndcg@10"] <= 1
    assert 0 < measured["mrr"] <= 1
    assert set(measured["latency_ms"]) == {"total", "detection", "embedding", "search", "reranking"}
    for times in measured["latency_ms"].values():
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]


def test_unknown_customers_and_keys(local_system: LocalSystem, shop: Shop) -> None:
    result = local_system.run("search", shop.photo(shop.products[0]), "--customer", "nobody")
    assert result.returncode == 1
    assert result.stderr.startswith("error: UNAUTHENTICATED: ")
    assert "magpie index" in result.stderr
    (local_system.home / "keys" / "forger").write_text("mk_0123456789\n")
    result = local_system.run("search", shop.photo(shop.products[0]), "--customer", "forger")
    assert result.stderr.startswith("error: UNAUTHENTICATED: ")


def test_http_with_the_same_key(local_system: LocalSystem, shop: Shop) -> None:
    key = local_system.json("key", "shop")["key"]
    assert stat.S_IMODE((local_system.home / "keys" / "shop").stat().st_mode) == 0o600
    address = local_system.json("up")["http"]
    request = urllib.request.Request(
        f"{address}/magpie.v1.CatalogService/GetIngestStatus",
        json.dumps({"productIds": shop.products[:1]}).encode(),
        {"content-type": "application/json", "x-api-key": key},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        (image,) = json.load(answer)["images"]
    assert image["state"] == "STATE_INDEXED"


def test_data_outlives_a_restart(local_system: LocalSystem, shop: Shop) -> None:
    photo = shop.photo(shop.products[0])
    before = local_system.hits(photo, "shop")
    addresses = local_system.json("up")
    assert addresses["started"] == []
    stopped = local_system.json("down")["stopped"]
    assert sorted(stopped) == sorted(PROCESSES)
    result = local_system.run("search", photo, "--customer", "shop")
    assert result.returncode == 1
    assert "magpie up" in result.stderr
    again = local_system.json("up")
    assert sorted(again.pop("started")) == sorted(PROCESSES)
    assert again == {name: address for name, address in addresses.items() if name != "started"}
    assert local_system.hits(photo, "shop") == before


def test_two_systems_side_by_side_the_second_on_a_redis_of_ones_own(
    local_system: LocalSystem, shop: Shop, tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    second = LocalSystem(tmp_path / "second")
    port = ports.free_port()
    addresses = second.json("up", "--redis-url", redis_url, "--http-port", str(port))
    try:
        assert (addresses["redis"], addresses["http"]) == (redis_url, f"http://127.0.0.1:{port}")
        assert set(second.pids()) == set(PROCESSES) - {"redis"}
        assert set(second.pids().values()).isdisjoint(local_system.pids().values())
        result = second.run("search", shop.photo(shop.products[0]), "--customer", "shop")
        assert result.stderr.startswith("error: UNAUTHENTICATED: ")
        second.json("key", "shop")
        assert redis_client.keys("magpie:*")
    finally:
        second.json("down")
    assert redis_client.ping()


@pytest.fixture(scope="module")
def large_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """So many pictures that indexing takes some seconds."""
    return make_shop(tmp_path_factory.mktemp("large"), 120, first_seed=1000)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("process", PROCESSES)
def test_a_killed_process_loses_and_doubles_nothing(
    local_system: LocalSystem, large_shop: Shop, process: str
) -> None:
    customer = f"killed-{process}"
    indexing = local_system.start("index", large_shop.catalogue, "--customer", customer)
    wait_for_some(local_system, customer, large_shop)
    os.kill(local_system.pids()[process], signal.SIGKILL)
    assert indexing.poll() is None
    assert process in local_system.json("up")["started"]
    output, messages = indexing.communicate(timeout=200)
    assert indexing.returncode == 0, messages
    report = json.loads(output)
    assert (report["indexed"], report["unchanged"], report["failed"]) == (120, 0, [])
    again = local_system.json("index", large_shop.catalogue, "--customer", customer)
    assert (again["indexed"], again["unchanged"], again["failed"]) == (0, 120, [])
    # Every product is found, once. A search looks at the hundred nearest objects of each space: by thirties.
    photo = large_shop.photo(large_shop.products[0])
    for start in range(0, 120, 30):
        prices = f"price >= {10 + start} and price < {10 + start + 30}"
        hits = local_system.hits(photo, customer, "-k", "100", "--filter", prices)
        assert sorted(hits) == sorted(large_shop.products[start : start + 30])


def wait_for_some(local_system: LocalSystem, customer: str, shop: Shop) -> None:
    """Until a few pictures are indexed, with most still on their way."""
    home = Home(local_system.home)
    deadline = time.monotonic() + 60
    while not home.key(customer).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with reading(home, customer) as client:
        request = GetIngestStatusRequest(product_ids=shop.products[:100])
        while time.monotonic() < deadline:
            images = client.call(client.catalog.GetIngestStatus, request).images
            if sum(image.state == ImageStatus.STATE_INDEXED for image in images) >= 5:
                return
            time.sleep(0.02)
    pytest.fail("hardly anything was indexed within a minute")
