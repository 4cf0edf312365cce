"""An ingest for tests of change-overs: tiny bundles, real Redis, real S3, real queues, no processes.

`python -m tests.integration.changeover_system STEP ...` does one change-over and kills itself at a step.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis
from PIL import Image

from local import resources
from local.home import BUCKET
from local.lambda_context import LambdaContext
from magpie.bootstrap import Application
from magpie.changeover.checkpoint import Checkpoint, Step, go_on
from magpie.changeover.operator import ChangeOverOperator
from magpie.changeover.re_embedding import ReEmbedding
from magpie.ingest.parking import STAGES
from magpie.rpc.context import CallContext
from magpie.services.bundle_search import BundleSearch
from magpie.settings import Settings
from magpie.store.compaction_leases import CompactionLeases
from magpie.store.upload_key import UploadKey
from magpie.v1 import catalog_pb2, image_pb2, product_pb2, visual_search_pb2
from magpie.v1.events_pb2 import ObjectsEmbedded
from tests.unit.vision import tiny_models

OLD, NEW = "tiny@1", "tiny@2"
CUSTOMER = "shop"


def make_bundle(folder: Path, version: str, spaces: dict[str, int]) -> Path:
    """A whole bundle of tiny models: one object, the whole picture, known by its mean colour."""
    folder.mkdir()
    boxes, scores = np.array([[0, 0, 1, 1]]), np.array([[0.5]])
    tiny_models.detector(folder, boxes, scores).save(folder / "detector.card.json")
    tiny_models.embedder(folder, spaces).save(folder / "embedder.card.json")
    models = {"detector": "detector.card.json", "embedder": "embedder.card.json"}
    (folder / "bundle.json").write_text(json.dumps({"name": "tiny", "version": version, **models}))
    return folder


def picture(number: int) -> bytes:
    """A picture of one colour, far from those of other numbers; a JPEG."""
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.new("RGB", (48, 40), tuple(int(v) for v in rng.integers(0, 256, 3))).save(file, "JPEG", quality=95)
    return file.getvalue()


def sha256(data: bytes) -> str:
    """As the catalogue knows a picture."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class System:
    """The parts of `magpie up`, driven by hand."""

    redis_url: str
    aws_url: str
    old: Path
    new: Path
    reached: Checkpoint = go_on
    _apps: dict[str, Application] = field(default_factory=dict)

    def app(self, stage: str = "api", **changed: Any) -> Application:
        """A stage's process; the api's without one."""
        if stage not in self._apps or changed:
            queues = resources.queues(self.aws_url)
            settings = Settings(
                redis_url=self.redis_url,
                bucket=BUCKET,
                bundle=changed.get("bundle", self.old),
                next_bundle=changed.get("next_bundle", self.new),
                next_queue_url=queues.after(stage) if stage in STAGES else queues.work["detection"],
                parking_queue_url=queues.parked.get(stage, ""),
                max_receives=2,
                threads=1,
                s3_addressing="path",
            )
            if changed:
                return Application(settings)
            self._apps[stage] = Application(settings)
        return self._apps[stage]

    @property
    def operator(self) -> ChangeOverOperator:
        """As the composition root makes it, told where to die."""
        app = self.app()
        search = BundleSearch(app.stages, app.ranking_configs)
        return ChangeOverOperator(
            app.change_overs,
            app.catalogue,
            app.uploads,
            search,
            app.models,
            [app.snapshots],
            CompactionLeases(app.redis),
            self.reached,
        )

    @property
    def sender(self) -> ReEmbedding:
        """The same of the background."""
        app = self.app()
        return ReEmbedding(app.change_overs, app.sqs, app.settings.next_queue_url, self.reached)

    def upsert(self, customer: str, product_id: str, *pictures: bytes, upload: bool = True) -> None:
        """A product, and its pictures in the bucket, whose events S3 sends."""
        context = CallContext.of_call((), None, customer)
        product = product_pb2.Product(id=product_id, images=[sha256(data) for data in pictures])
        request = catalog_pb2.UpsertProductsRequest(products=[product])
        self.app().public_registry.invoke("/magpie.v1.CatalogService/UpsertProducts", request, context)
        for data in pictures if upload else ():
            key = str(UploadKey(customer, product_id, sha256(data)))
            self.app().s3.put_object(Bucket=BUCKET, Key=key, Body=data)

    def delete(self, customer: str, product_id: str) -> None:
        """A product with its pictures."""
        context = CallContext.of_call((), None, customer)
        request = catalog_pb2.DeleteProductsRequest(product_ids=[product_id])
        self.app().public_registry.invoke("/magpie.v1.CatalogService/DeleteProducts", request, context)

    def search(self, customer: str, data: bytes, app: Application | None = None) -> tuple[str, list[str]]:
        """The bundle that answered, and the products that it found."""
        request = visual_search_pb2.SearchRequest(image=image_pb2.Image(content=data), limit=100)
        context = CallContext.of_call((), None, customer)
        path = "/magpie.v1.VisualSearchService/Search"
        answer: Any = (app or self.app()).public_registry.invoke(path, request, context)
        return answer.bundle, [hit.product_id for object_ in answer.objects for hit in object_.hits]

    def states(self, customer: str, *product_ids: str) -> list[int]:
        """What the ledger says of the products' pictures."""
        return [status.state for status in self.app().catalogue.states(customer, product_ids)]

    def pump(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run the stages until their queues are empty."""
        idle = 0
        while idle < 3 and not until():
            moved = sum(self._batch(stage) for stage in STAGES)
            idle = 0 if moved else idle + 1
            if not moved:
                time.sleep(0.1)

    def embed_all(self, customer: str = CUSTOMER) -> None:
        """The whole background, to the end."""
        for _ in range(100):
            sent = self.sender.step(customer)
            self.pump()
            progress = self.operator.status(customer)
            if not sent and not progress.waiting + progress.on_their_way:
                return
        raise AssertionError(f"nothing moves: {progress}")

    def _batch(self, stage: str) -> int:
        queue = resources.queues(self.aws_url).work[stage]
        sqs = self.app().sqs
        answer = sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=0,
            MessageSystemAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return 0
        records = [
            {"messageId": m["MessageId"], "body": m["Body"], "attributes": m["Attributes"]} for m in messages
        ]
        server = getattr(self.app(stage), f"{stage}_server")()
        failed = server.handle({"Records": records}, LambdaContext(f"magpie-{stage}", 30))
        again = {item["itemIdentifier"] for item in failed["batchItemFailures"]}
        for message in messages:
            receipt = message["ReceiptHandle"]
            if message["MessageId"] in again:
                sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=receipt, VisibilityTimeout=0)
            else:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=receipt)
        return len(messages)


def index_of(client: redis.Redis, bundle: str, customer: str = CUSTOMER) -> dict[bytes, list[Any]]:
    """Image -> boxes and vectors, whichever upload they came from."""
    rows: Any = client.hgetall(f"magpie:{{{customer}}}:objects:{bundle}")
    return {
        image: [
            (o.object.SerializeToString(), [(v.space, v.values) for v in o.vectors])
            for o in ObjectsEmbedded.FromString(value).objects
        ]
        for image, value in rows.items()
    }


def main() -> None:
    """One change-over, from wherever it stands to its end, without searches; SIGKILL at STEP."""
    deadly, system = Step[sys.argv[1]], System(*sys.argv[2:4], *map(Path, sys.argv[4:6]))

    def reached(step: Step) -> None:
        if step is deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    system.reached = reached
    change_over(system)


def change_over(system: System) -> None:
    """All of it. Begun, half done or done by somebody who died: it goes on from there."""
    serving, record = system.app().change_overs.serving(CUSTOMER), system.app().change_overs.find(CUSTOMER)
    if serving == OLD:
        system.operator.start(CUSTOMER, NEW, backlog=4)
        system.embed_all()
        system.operator.switch(CUSTOMER)
        record = system.app().change_overs.find(CUSTOMER)
    if record is not None:
        system.operator.drop(CUSTOMER)


if __name__ == "__main__":
    main()
