"""The result page: complete, escaped, and without requests to anywhere."""

from __future__ import annotations

import html.parser
import io
from pathlib import Path

import pytest
from PIL import Image

from local.client import UploadFailed
from local.result_page import render
from magpie.errors import UndecodableImage
from magpie.v1.image_pb2 import Box, DetectedObject
from magpie.v1.reranking_pb2 import Hit, Reason
from magpie.v1.visual_search_pb2 import ObjectHits, SearchResponse


class Links(html.parser.HTMLParser):
    """Everything that the page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo <1>.jpg"
    Image.new("RGB", (400, 300), "orange").save(path)
    return path


def response() -> SearchResponse:
    reasons = [
        Reason(term="identity", value=0.6, note="0.8 x 0.75"),
        Reason(term="boost: <new>", value=-0.15),
    ]
    hits = [
        Hit(
            product_id="p1",
            title="A <b>title</b>",
            score=0.45,
            reasons=reasons,
            image_url="http://there",
            probability=0.876,
        ),
        Hit(product_id="p2", score=0.4, image_url="http://gone", stands_for=["p3"]),
    ]
    found = DetectedObject(box=Box(x0=0.1, y0=0.2, x1=0.5, y1=0.9), label="product", score=0.9)
    whole = DetectedObject(box=Box(x1=1, y1=1), label="image", whole_image=True)
    return SearchResponse(
        query_id="q_1",
        objects=[ObjectHits(object=found, hits=hits), ObjectHits(object=whole)],
        timings_ms={"total": 12.0, "detection": 7.0},
    )


def fetch(url: str) -> bytes:
    if url != "http://there":
        raise UploadFailed("gone")
    buffer = io.BytesIO()
    Image.new("RGBA", (900, 600), (255, 0, 0, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_page_asks_for_nothing_from_elsewhere(photo: Path) -> None:
    page = render(photo, response(), "shop", fetch)
    links = Links(page).found
    assert sum(link.startswith("data:image/jpeg;base64,") for link in links) == 4  # photo, 2 crops, 1 hit
    assert all(link.startswith(("data:image/jpeg;base64,", "#object-")) for link in links)
    assert "url(" not in page
    assert "@import" not in page


def test_what_stands_on_the_page(photo: Path) -> None:
    page = render(photo, response(), "shop", fetch)
    assert "left: 10.000%; top: 20.000%; width: 40.000%; height: 70.000%" in page
    assert "A &lt;b&gt;title&lt;/b&gt;" in page
    assert "<b>title" not in page
    assert "photo &lt;1&gt;.jpg" in page
    assert "boost: &lt;new&gt;" in page
    assert '<i style="width: 100.0%">' in page
    assert '<i class="below" style="width: 25.0%">' in page
    assert page.count("with probability") == 1  # the other hit has none
    assert "the same product with probability 0.88" in page
    assert "no picture" in page
    assert "and 1 like it: p3" in page
    assert "nothing was detected" in page
    assert "No product passed" in page


def test_a_photo_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"text")
    with pytest.raises(UndecodableImage):
        render(tmp_path / "x.jpg", response(), "shop", fetch)
