"""One self-contained page: a photo with its boxes, and the hits of each object with pictures and reasons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from local.page import PICTURE_SIDE, data_uri, picture, template
from magpie.v1.image_pb2 import Box
from magpie.v1.visual_search_pb2 import SearchResponse
from magpie.vision.decode import decode

STAGES = ("detection", "embedding", "lookup", "search", "reranking", "total")
PHOTO_SIDE = 1280  # px, longer side
# Told apart by those who see colours differently, on light and on dark ground (Okabe and Ito, 2008).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2")


def render(photo: Path, response: SearchResponse, customer: str, fetch: Callable[[str], bytes]) -> str:
    """HTML that asks for nothing from elsewhere. A picture that cannot be fetched is left out.

    Raises UndecodableImage if the photo is none.
    """
    pixels = Image.fromarray(decode(photo.read_bytes(), PHOTO_SIDE).pixels)
    objects = [
        {
            "number": number,
            "colour": COLOURS[(number - 1) % len(COLOURS)],
            "label": "whole image" if found.object.whole_image else found.object.label,
            "score": found.object.score,
            "box": _percent(found.object.box),
            "crop": data_uri(_region(pixels, found.object.box), PICTURE_SIDE),
            "hits": [
                {
                    "product_id": hit.product_id,
                    "title": hit.title or hit.product_id,
                    "score": hit.score,
                    "probability": hit.probability if hit.HasField("probability") else None,
                    "picture": picture(hit.image_url, fetch),
                    "stands_for": list(hit.stands_for),
                    "reasons": _bars(hit.reasons),
                }
                for hit in found.hits
            ],
        }
        for number, found in enumerate(response.objects, start=1)
    ]
    return template("result_page.html.j2").render(
        photo=data_uri(pixels, PHOTO_SIDE),
        name=photo.name,
        customer=customer,
        objects=objects,
        timings={stage: response.timings_ms[stage] for stage in STAGES if stage in response.timings_ms},
        bundle=response.bundle,
        config_version=response.ranking_config_version,
        query_id=response.query_id,
    )


def _percent(box: Box) -> dict[str, float]:
    return {
        "left": 100 * box.x0,
        "top": 100 * box.y0,
        "width": 100 * (box.x1 - box.x0),
        "height": 100 * (box.y1 - box.y0),
    }


def _bars(reasons: object) -> list[dict[str, object]]:
    """The longest bar belongs to the largest term."""
    terms = list(reasons)  # type: ignore[call-overload]
    largest = max((abs(reason.value) for reason in terms), default=0.0) or 1.0
    return [
        {
            "term": reason.term,
            "value": reason.value,
            "note": reason.note,
            "width": 100 * abs(reason.value) / largest,
        }
        for reason in terms
    ]


def _region(pixels: Image.Image, box: Box) -> Image.Image:
    width, height = pixels.size
    return pixels.crop(
        (
            int(box.x0 * width),
            int(box.y0 * height),
            max(int(box.x0 * width) + 1, round(box.x1 * width)),
            max(int(box.y0 * height) + 1, round(box.y1 * height)),
        )
    )
