"""The main job: a twelve-megapixel phone JPEG over native gRPC against 100 k objects, one client and two.

The peer is the plain recipe of `peer.py` on the same photo and as many vectors, in process.
"""

from __future__ import annotations

import sys

from local.customers import reading, writing
from magpie.bootstrap import application
from magpie.v1.image_pb2 import Image
from magpie.v1.visual_search_pb2 import SearchRequest, SearchResponse
from tests.bench.harness import Row, measure, percentile, report
from tests.bench.local_system import local_system, memory
from tests.bench.peer import SPACE, PlainRecipe
from tests.bench.photos import phone_photo
from tests.bench.stock import fill

CUSTOMER = "bench"
OBJECTS = 100_000
SECONDS = 15.0


def main(objects: int = OBJECTS) -> None:
    photo = phone_photo()
    request = SearchRequest(image=Image(content=photo))
    with (
        local_system() as (home, system),
        writing(home, CUSTOMER) as first,
        reading(home, CUSTOMER) as second,
    ):
        app = application()
        bundle = app.bundle
        vectors = fill(app.catalogue, CUSTOMER, bundle.id, bundle.embedder_card.spaces, objects)
        answers: list[SearchResponse] = []

        def search() -> None:
            answers.append(first.call(first.visual_search.Search, request))

        rows = [measure("one client", search, seconds=SECONDS, note=f"{len(photo) / 1e6:.1f} MB JPEG")]
        rows += stages(answers)
        rows.append(
            measure(
                "two clients",
                search,
                clients=[lambda: second.call(second.visual_search.Search, request)],
                seconds=SECONDS,
            )
        )
        found = len(answers[-1].objects)
        served_by = memory(system)
    peer = PlainRecipe(bundle, vectors[SPACE], app.settings.threads)
    rows.append(measure("plain recipe", lambda: peer.search(photo), seconds=SECONDS, note="peer: in process"))
    image = peer.decode(photo)
    vector = peer.embed(image)
    rows.append(measure("  its decoding", lambda: peer.decode(photo)))
    rows.append(measure("  its embedding", lambda: peer.embed(image)))
    rows.append(measure("  its search", lambda: peer.nearest(vector)))
    report(
        "end_to_end",
        rows,
        objects_indexed=objects,
        objects_in_photo=found,
        memory_mb=served_by,
        bundle=bundle.id,
    )


def stages(answers: list[SearchResponse]) -> list[Row]:
    """What the api says of its stages, over the same calls."""
    found = []
    for stage in ("detection", "embedding", "search", "reranking", "total"):
        times = [answer.timings_ms[stage] for answer in answers]
        p50, p95, p99 = (round(percentile(times, p), 3) for p in (50, 95, 99))
        found.append(Row(f"  {stage}", len(times), p50, p95, p99, 0.0, "as the api measures it"))
    return found


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
