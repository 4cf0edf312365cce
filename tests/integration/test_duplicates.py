"""The report of duplicates: real stages, Redis, S3 and gRPC; models whose `identity` is a mean colour."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from PIL import Image

from local.client import CallFailed, Client
from local.duplicates import Group, Pictures, describe, find_same_items, read_pictures, variants_of
from local.ports import free_port
from magpie.bootstrap import Application
from magpie.index.compact import CompactEngine
from magpie.index.compaction import compact
from magpie.probe.sampling import Answered, Sampler
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from magpie.rpc.context import CallContext
from magpie.services.by_bundle import ByBundle
from magpie.settings import Settings
from magpie.store.snapshots import Snapshots
from magpie.store.upload_key import UploadKey
from magpie.v1.duplicates_pb2 import (
    DescribeImagesRequest,
    FindSameItemsRequest,
    ImageOfProduct,
    ListFingerprintsRequest,
    SameItem,
)
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import FindCandidatesRequest
from magpie.vision.crop_store import CropStore, MemoryCropStore
from tests.random_codes import random_codes
from tests.unit.vision import tiny_models

# P(same) at cosines of 1, .999 and .997: .98, .5 and .0003; of `Tea` it is less everywhere.
IDENTITY = SpaceCalibration(
    Curve(4000.0, -3996.0, 100, 20), {"Tea": Curve(4000.0, -3998.0, 30, 9)}, 10.0, 0.3, 0.02
)


def made_bundle(folder: Path, *, calibrated: bool = True) -> Path:
    folder.mkdir()
    boxes, scores = np.array([[0, 0, 1, 1]]), np.array([[0.0]])  # it detects nothing: the whole image it is
    tiny_models.detector(folder, boxes, scores).save(folder / "detector.card.json")
    card = tiny_models.embedder(folder)
    card.save(folder / "embedder.card.json")
    manifest = {"name": "tiny", "version": "1", "detector": "detector.card.json"}
    manifest["embedder"] = "embedder.card.json"
    if calibrated:
        Calibration(card.sha256, {"identity": IDENTITY}).save(folder / "calibration.json")
        manifest["calibration"] = "calibration.json"
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


class System:
    """One process that serves all, over native gRPC."""

    def __init__(self, bundle: Path, redis_url: str, s3: Any, bucket: str, **parts: Any) -> None:
        self.arguments = (bundle, redis_url, s3, bucket)
        settings = {"MAGPIE_BUNDLE": str(bundle), "MAGPIE_REDIS_URL": redis_url, "MAGPIE_BUCKET": bucket}
        self.app = Application(Settings.from_environment(settings))
        self.app.s3 = s3
        for name, part in parts.items():  # in place of those that the application would make
            setattr(self.app, name, part)
        self._bucket = bucket
        self._crops: ByBundle[CropStore] = ByBundle([self.app.bundle.id], lambda _: MemoryCropStore())
        self._address = f"127.0.0.1:{free_port()}"
        self._server = self.app.native_server(self._address)
        self._clients: dict[str, Client] = {}

    def client(self, customer: str = "shop") -> Client:
        if customer not in self._clients:
            self._clients[customer] = Client(self._address, self.app.customers.create(customer))
        return self._clients[customer]

    def index(self, product_id: str, *files: bytes, customer: str = "shop", **fields: Any) -> None:
        """A product, and its pictures through the three stages."""
        shas = [hashlib.sha256(data).hexdigest() for data in files]
        product = Product(id=product_id, images=shas, **fields)
        self.app.catalogue.upsert_products(customer, [product], self.app.bundle.id)
        for sha256, data in zip(shas, files, strict=True):
            key = str(UploadKey(customer, product_id, sha256))
            self.app.s3.put_object(Bucket=self._bucket, Key=key, Body=data)
            image = IngestedImage(
                event_id=key, customer=customer, product_id=product_id, sha256=sha256, upload_key=key
            )
            context = CallContext(customer=customer)
            detected = self.app._detection(self._crops).DetectUploaded(ImageUploaded(image=image), context)
            embedded = self.app._embedding(self._crops).EmbedDetected(detected, context)
            assert self.app._search().IndexEmbedded(embedded, context).objects == 1

    def write(
        self,
        product_id: str,
        *angles: float,
        customer: str = "shop",
        more_images: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """A product with a picture whose objects' `identity` lies at some angles, and no fingerprint."""
        sha256 = hashlib.sha256(product_id.encode()).hexdigest()
        product = Product(id=product_id, images=[sha256, *more_images], **fields)
        self.app.catalogue.upsert_products(customer, [product], self.app.bundle.id)
        image = IngestedImage(event_id="e", customer=customer, product_id=product_id, sha256=sha256)
        identity = [np.array([math.cos(a), math.sin(a), *[0] * 6], "<f4") for a in angles]
        category = Vector(space="category", values=np.eye(1, 4, dtype="<f4").tobytes())
        objects = [
            EmbeddedObject(vectors=[Vector(space="identity", values=vector.tobytes()), category])
            for vector in identity
        ]
        event = ObjectsEmbedded(image=image, objects=objects, bundle=self.app.bundle.id)
        assert self.app.catalogue.write_objects(event) == len(angles)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._server.stop(None).wait()


@pytest.fixture
def system(
    tmp_path: Path, redis_client: redis.Redis, redis_url: str, s3: Any, bucket: str
) -> Iterator[System]:
    del redis_client  # emptied
    started = System(made_bundle(tmp_path / "bundle"), redis_url, s3, bucket)
    yield started
    started.close()


def nothing(_step: int, _total: int) -> None:
    """Progress that nobody looks at."""


def pattern(seed: int, colour: tuple[int, int, int]) -> Image.Image:
    """Blocks around a mean colour: every seed another picture, every colour another `identity`."""
    blocks = np.random.default_rng(seed).normal(size=(6, 6, 1))
    blocks -= blocks.mean()
    pixels = np.asarray(colour) + 25 * np.kron(blocks, np.ones((40, 40, 1)))
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RED, GREEN, BLUE = (190, 90, 90), (90, 190, 90), (90, 90, 190)


def sections(client: Client, min_probability: float = 0.9) -> dict[str, list[Group]]:
    pictures = read_pictures(client, nothing)
    return {
        "exact": pictures.same_bytes(),
        "re-encoded": pictures.re_encoded(),
        "same-item": pictures.same_item(find_same_items(client, min_probability, nothing)[0]),
    }


def products(groups: list[Group]) -> list[list[str]]:
    return [sorted(product_id for product_id, _ in group.images) for group in groups]


def test_each_kind_is_told_once_and_apart(system: System) -> None:
    first = file(pattern(1, RED))
    again = file(pattern(1, RED), "JPEG", quality=60)
    system.index("original", first)
    system.index("copy", first, title="A copy")
    system.index("saved-again", again)
    system.index("other-side", file(pattern(2, RED)))
    system.index("leaf", file(pattern(3, GREEN)))
    system.index("sky", file(pattern(4, BLUE)))

    found = sections(system.client())
    assert products(found["exact"]) == [["copy", "original"]]
    assert products(found["re-encoded"]) == [["copy", "original", "saved-again"]]
    (link,) = found["re-encoded"][0].links
    assert link.bits <= 6
    # The other side shows the red item, too. The other three have been told of one another already.
    assert sorted(products(found["same-item"])) == [
        ["copy", "original", "other-side"],
        ["other-side", "saved-again"],
    ]
    for group in found["same-item"]:
        (link,) = group.links
        assert "other-side" in {link.one[0], link.other[0]}
        assert link.probability > 0.9
        assert link.similarity > 0.999
    described = describe(system.client(), found["exact"], with_urls=True)
    copy = next(shown for shown in described.values() if shown.image.product_id == "copy")
    assert copy.title == "A copy"
    assert system.client().fetch(copy.image_url) == first


def test_what_is_deleted_or_withdrawn_leaves_the_report(system: System, redis_client: redis.Redis) -> None:
    picture, other = file(pattern(1, RED)), file(pattern(5, GREEN))
    saved_again = file(pattern(1, RED), "JPEG", quality=60)
    system.index("a", picture)
    system.index("b", picture, other)
    system.index("c", saved_again)
    system.index("d", file(pattern(2, RED)))
    found = sections(system.client())
    assert products(found["exact"]) == [["a", "b"]]
    assert products(found["re-encoded"]) == [["a", "b", "c"]]
    assert products(found["same-item"]) == [
        ["a", "d"],
        ["b", "d"],
        ["c", "d"],
    ]  # a and b share but one picture
    assert redis_client.hlen("magpie:{shop}:fingerprints") == 5

    system.app.catalogue.upsert_products(
        "shop", [Product(id="b", images=[hashlib.sha256(other).hexdigest()])], system.app.bundle.id
    )
    system.app.catalogue.delete_products("shop", ["c", "d"])
    assert sections(system.client()) == {"exact": [], "re-encoded": [], "same-item": []}
    assert redis_client.hlen("magpie:{shop}:fingerprints") == 2
    system.app.catalogue.delete_products("shop", ["a", "b"])
    assert redis_client.exists("magpie:{shop}:fingerprints") == 0


def test_customers_do_not_see_one_another(system: System) -> None:
    picture = file(pattern(1, RED))
    system.index("p", picture, title="ours")
    system.index("p", picture, customer="rival", title="theirs")
    system.index("q", file(pattern(1, RED), "JPEG", quality=60), customer="rival")
    system.index("r", file(pattern(2, RED)), customer="rival")
    assert sections(system.client()) == {"exact": [], "re-encoded": [], "same-item": []}
    theirs = sections(system.client("rival"))
    assert products(theirs["re-encoded"]) == [["p", "q"]]
    assert products(theirs["same-item"]) == [["p", "r"], ["q", "r"]]
    asked = [ImageOfProduct(product_id=id_, sha256=hashlib.sha256(picture).hexdigest()) for id_ in ("p", "q")]
    client = system.client()
    shown = client.call(client.duplicates.DescribeImages, DescribeImagesRequest(images=asked)).images
    assert [image.title for image in shown] == ["ours"]


def test_pictures_of_one_product_are_no_duplicates_of_one_another(system: System) -> None:
    system.index("p", file(pattern(1, RED)), file(pattern(1, RED), "JPEG", quality=60), file(pattern(2, RED)))
    assert sections(system.client()) == {"exact": [], "re-encoded": [], "same-item": []}


def test_a_product_with_a_picture_and_its_copy_is_told_of_by_the_bytes_alone(system: System) -> None:
    first, again = file(pattern(1, RED)), file(pattern(1, RED), "JPEG", quality=60)
    system.index("both", first, again)
    system.index("one", first)
    found = sections(system.client())
    assert products(found["exact"]) == [["both", "one"]]
    assert found["re-encoded"] == found["same-item"] == []


def test_a_link_names_two_products_that_nothing_else_joins(system: System) -> None:
    first, again = file(pattern(1, RED)), file(pattern(1, RED), "JPEG", quality=60)
    system.index("both", first, again)
    system.index("one", first)
    system.index("other", again)
    (group,) = sections(system.client())["re-encoded"]
    (link,) = group.links
    assert {link.one[0], link.other[0]} == {"one", "other"}


def test_variants_are_told_as_such(system: System) -> None:
    picture = file(pattern(1, RED))
    for id_, group in (("s", "shirt"), ("m", "shirt"), ("cap", "")):
        system.index(id_, picture, group=group)
    system.index("x", file(pattern(9, GREEN)), group="hat")
    system.index("y", file(pattern(9, GREEN)), group="hat")
    groups = sections(system.client())["exact"]
    described = describe(system.client(), groups, with_urls=False)
    assert [(len(group.images), variants_of(group, described)) for group in groups] == [(3, ""), (2, "hat")]
    assert all(not shown.image_url for shown in described.values())


def test_pictures_of_an_earlier_release_are_counted(system: System) -> None:
    system.write("old", 0.0)
    system.index("new", file(pattern(1, RED)))
    system.app.catalogue.upsert_products("shop", [Product(id="coming", images=["0" * 64])], "tiny@1")
    pictures = read_pictures(system.client(), nothing)
    assert pictures.lacking == 1
    assert sorted(pictures.images) == ["coming", "new", "old"]
    assert len(pictures.fingerprints) == 1


def test_a_long_catalogue_is_walked_in_pages(system: System) -> None:
    for start in range(0, 2600, 100):
        batch = [
            Product(id=f"{n:04}", images=[hashlib.sha256(b"%d" % (n // 2)).hexdigest(), f"{n:064x}"])
            for n in range(start, start + 100)
        ]
        system.app.catalogue.upsert_products("shop", batch, "tiny@1")
    client = system.client()
    steps: list[tuple[int, int]] = []
    pictures = read_pictures(client, lambda step, total: steps.append((step, total)))
    assert len(steps) >= 3
    assert sum(step for step, _ in steps) >= 2600
    assert {total for _, total in steps} == {2600}
    assert len(pictures.images) == 2600
    assert sorted(products(pictures.same_bytes())) == [[f"{n:04}", f"{n + 1:04}"] for n in range(0, 2600, 2)]
    page = client.call(client.duplicates.ListFingerprints, ListFingerprintsRequest(page_size=10))
    assert page.next_page_token
    assert page.products < 100


def test_items_are_compared_in_pages_and_each_pair_is_found(system: System) -> None:
    """Some objects at random angles, against all pairs of them."""
    angles = np.random.default_rng(0).uniform(0, math.pi, (150, 2))
    for number, of_product in enumerate(angles):
        category = "Tea" if number % 3 else ""
        system.write(f"{number:03}", *of_product, category=category, more_images=["0" * 64])
    steps: list[int] = []
    pairs, stale = find_same_items(system.client(), 0.5, lambda step, _total: steps.append(step))
    assert not stale
    assert len(steps) > 3
    exact = {}
    for one in range(150):
        for other in range(one + 1, 150):
            cosine = np.cos(angles[one][:, None] - angles[other][None, :]).max()
            offset = -3998 if one % 3 or other % 3 else -3996  # either is Tea: the curve that gives less
            exact[f"{one:03}", f"{other:03}"] = 1 / (1 + math.exp(-max(-30, 4000 * cosine + offset)))
    found = {(pair.one.product_id, pair.other.product_id): pair.probability for pair in pairs}
    # The curve is so steep that the rounding of a float32 shows at the edge.
    assert len(found) > 100
    assert {pair for pair, probability in exact.items() if probability > 0.51} <= found.keys()
    assert found.keys() <= {pair for pair, probability in exact.items() if probability > 0.49}
    assert all(found[pair] == pytest.approx(exact[pair], abs=0.01) for pair in found)


def test_a_snapshot_tells_the_same(system: System, s3: Any, bucket: str, tmp_path: Path) -> None:
    system.index("a", file(pattern(1, RED)))
    system.index("b", file(pattern(1, RED), "JPEG", quality=60))
    for number in range(30):
        system.write(f"{number:02}", number / 10, number / 10 + 0.003)
    system.write("twin", 1.0)
    before = sections(system.client())
    assert products(before["re-encoded"]) == [["a", "b"]]
    assert ["10", "twin"] in products(before["same-item"])

    catalogue, bundle = system.app.catalogue, system.app.bundle.id
    snapshots = Snapshots(s3, bucket, tmp_path / "snapshots")
    dimensions = system.app.bundle.embedder_card.spaces
    model = random_codes(dimensions)
    for title in ("one", "another"):  # the catalogue lets go of its vectors with the second
        catalogue.upsert_products("shop", [Product(id="any", title=title)], bundle)
        compacted = compact(catalogue, snapshots, model, "shop", bundle)
        assert compacted is not None
    assert compacted.archived > 0
    again = System(*system.arguments, engine=CompactEngine(catalogue, snapshots))
    after = sections(again.client())
    again.close()
    assert after["exact"] == before["exact"]
    assert after["re-encoded"] == before["re-encoded"]
    assert products(after["same-item"]) == products(before["same-item"])


def test_the_recall_probe_leaves_the_walk_out(system: System) -> None:
    class Sink:
        taken = 0

        def offer(self, answered: Answered) -> None:
            del answered
            self.taken += 1

    sink = Sink()
    sampled = System(*system.arguments, sampler=Sampler(1.0, sink))
    sampled.write("a", 0.0)
    sampled.write("b", 0.0)
    assert len(find_same_items(sampled.client(), 0.9, nothing)[0]) == 1
    assert sink.taken == 0
    objects = sampled.app.stored_vectors.of_product("shop", "tiny@1", "a")
    request = FindCandidatesRequest(queries=objects, bundle="tiny@1")
    sampled.app._search().FindCandidates(request, CallContext(customer="shop"))
    assert sink.taken == 1
    sampled.close()


def test_more_products_that_look_alike_than_are_looked_at_first(system: System) -> None:
    for number in range(70):
        system.write(f"{number:02}", 0.0)
    system.write("other", 1.0)
    pairs, _ = find_same_items(system.client(), 0.9, nothing)
    assert len(pairs) == 70 * 69 // 2
    pictures = read_pictures(system.client(), nothing)
    (group,) = pictures.same_item(pairs)
    assert len(group.images) == 70


def test_products_of_more_objects_than_one_answer_holds(system: System) -> None:
    for name in "abc":
        system.write(name, *np.linspace(0, 1, 400))
    pairs, _ = find_same_items(system.client(), 0.9, nothing)
    assert [(p.one.product_id, p.other.product_id) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_ids_of_all_kinds(system: System) -> None:
    ids = ["it's", '"', "a, b", "'" * 85, "ä" * 40, "or 1 = 1", "\\"]
    for id_ in ids:
        system.write(id_, 0.0)
    pairs, _ = find_same_items(system.client(), 0.9, nothing)
    assert {id_ for pair in pairs for id_ in (pair.one.product_id, pair.other.product_id)} == set(ids)
    assert len(pairs) == len(ids) * (len(ids) - 1) // 2


def test_without_a_calibration_there_is_no_such_section(
    tmp_path: Path, redis_client: redis.Redis, redis_url: str, s3: Any, bucket: str
) -> None:
    del redis_client
    system = System(made_bundle(tmp_path / "plain", calibrated=False), redis_url, s3, bucket)
    try:
        system.index("p", file(pattern(1, RED)))
        with pytest.raises(CallFailed, match="FAILED_PRECONDITION: bundle tiny@1 has no calibration"):
            find_same_items(system.client(), 0.9, nothing)
        assert len(read_pictures(system.client(), nothing).fingerprints) == 1
    finally:
        system.close()


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        (
            "ListFingerprints",
            ListFingerprintsRequest(page_size=1001),
            "page_size: must lie in .1, 1000., got",
        ),
        (
            "ListFingerprints",
            ListFingerprintsRequest(page_token="x"),
            "page_token: must be empty or a `next_",
        ),
        ("ListFingerprints", ListFingerprintsRequest(page_token="1" * 30), "page_token: "),
        ("FindSameItems", FindSameItemsRequest(page_size=-1), "page_size: must lie in .1, 100., got -1"),
        ("FindSameItems", FindSameItemsRequest(page_token="-1"), "page_token: "),
        ("FindSameItems", FindSameItemsRequest(min_probability=1), r"min_probability: must lie in \(0, 1\)"),
        ("FindSameItems", FindSameItemsRequest(min_probability=math.nan), "min_probability: must lie in"),
        (
            "FindSameItems",
            FindSameItemsRequest(min_probability=0.99),
            "min_probability: is 0.99, but the calibration of bundle tiny@1 gives equal pictures 0.982",
        ),
        ("DescribeImages", DescribeImagesRequest(), "images: 1 to 100 a call, got 0"),
        ("DescribeImages", DescribeImagesRequest(images=[ImageOfProduct()] * 101), "images: 1 to 100 a call"),
    ],
)
def test_a_request_that_is_no_good(system: System, method: str, request_: Any, message: str) -> None:
    client = system.client()
    with pytest.raises(CallFailed, match=f"INVALID_ARGUMENT: {message}"):
        client.call(getattr(client.duplicates, method), request_)


def test_nobody_is_told_anything(system: System) -> None:
    system.client()
    stranger = Client(system._address, "mk_nobody")
    with stranger, pytest.raises(CallFailed, match="UNAUTHENTICATED"):
        read_pictures(stranger, nothing)


def test_a_chain_of_likeness_is_no_group() -> None:
    pictures = Pictures(images={id_: [id_] for id_ in "abc"})
    pairs = [
        SameItem(
            one=ImageOfProduct(product_id=one, sha256=one),
            other=ImageOfProduct(product_id=other, sha256=other),
            probability=probability,
        )
        for one, other, probability in (("a", "b", 0.95), ("b", "c", 0.92))
    ]
    groups = pictures.same_item(pairs)
    assert products(groups) == [["a", "b"], ["b", "c"]]
    assert [group.links[-1].probability for group in groups] == [0.95, 0.92]
