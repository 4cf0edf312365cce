"""The report's sections and page: complete, escaped, and without requests to anywhere."""

from __future__ import annotations

import html.parser
import io

from PIL import Image as Picture

from local.client import UploadFailed
from local.duplicate_sections import EXACT, RE_ENCODED, SAME_ITEM, Section, section, section_json
from local.duplicates import Group, Image, Link
from local.duplicates_page import GROUPS, PRODUCTS, render
from magpie.v1.duplicates_pb2 import DescribedImage, ImageOfProduct

A, B, C = (f"p<{name}>" for name in "abc")


def described(*images: Image, group: str = "") -> dict[Image, DescribedImage]:
    return {
        image: DescribedImage(
            image=ImageOfProduct(product_id=image[0], sha256=image[1]),
            title=f"The <b>{image[0]}</b>",
            group=group,
            image_url="http://there",
        )
        for image in images
    }


def fetch(url: str) -> bytes:
    if url != "http://there":
        raise UploadFailed("gone")
    buffer = io.BytesIO()
    Picture.new("RGB", (40, 30), "red").save(buffer, "PNG")
    return buffer.getvalue()


class Links(html.parser.HTMLParser):
    """Everything that the page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_a_group_is_told_by_its_weakest_link() -> None:
    images = [(A, "1" * 64), (B, "2" * 64), (C, "3" * 64)]
    links = [Link(images[0], images[1], bits=0), Link(images[0], images[2], bits=4)]
    shown = section(RE_ENCODED, [Group(images, links)], described(*images))
    assert shown.groups[0].weakest == "4"
    (group,) = section_json(shown)
    assert [product["product_id"] for product in group["products"]] == [A, B, C]
    assert [link["bits"] for link in group["links"]] == [0, 4]
    assert group["links"][1]["other"] == {"product_id": C, "image": "3" * 64}
    links = [Link(images[0], images[1], probability=0.96456, similarity=0.91234)]
    shown = section(SAME_ITEM, [Group(images[:2], links)], described(*images))
    assert shown.groups[0].weakest == "0.96"
    assert section_json(shown)[0]["links"][0]["probability"] == 0.9646


def test_variants_come_last_and_products_that_are_gone_stand_by_their_id() -> None:
    variants, others = [(A, "1" * 64), (B, "1" * 64)], [(C, "2" * 64), ("gone", "2" * 64)]
    known = described(*variants, group="shirt") | described(others[0], group="shirt")
    shown = section(EXACT, [Group(variants), Group(others)], known)
    assert [group.variants_of for group in shown.groups] == ["", "shirt"]
    assert [group["variants_of"] for group in section_json(shown)] == [None, "shirt"]
    assert section_json(shown)[0]["products"][1] == {
        "product_id": "gone", "title": "", "group": "", "image": "2" * 64
    }  # fmt: skip


def test_the_page() -> None:
    images = [(A, "1" * 64), (B, "1" * 64)]
    known = described(*images, group="a <group>")
    known[images[1]].image_url = "http://gone"
    sections = [
        section(EXACT, [Group(images)], known),
        section(RE_ENCODED, [], known),
        Section(SAME_ITEM, [], "there is no <calibration>"),
    ]
    page = render("shop", 7, sections, ["3 pictures <lack> it"], fetch)
    links = Links(page).found
    assert sum(link.startswith("data:image/jpeg;base64,") for link in links) == 1
    assert [link for link in links if not link.startswith("data:")] == ["#exact", "#re-encoded", "#same-item"]
    assert "url(" not in page
    assert "<b>p" not in page
    assert "The &lt;b&gt;p&lt;a&gt;&lt;/b&gt;" in page
    assert "variants of a &lt;group&gt;" in page
    assert "no picture" in page
    assert "None." in page
    assert "there is no &lt;calibration&gt;" in page
    assert "3 pictures &lt;lack&gt; it" in page


def test_a_long_report_shows_its_beginning_and_says_so() -> None:
    images = [(f"p{number}", "1" * 64) for number in range(PRODUCTS + 5)]
    groups = [Group(images), *(Group([(A, f"{n:064}"), (B, f"{n:064}")]) for n in range(GROUPS))]
    page = render("shop", 1, [section(EXACT, groups, {})], [], fetch)
    assert f"The first {GROUPS} of {GROUPS + 1}." in page
    assert "and 5 more" in page
    assert page.count("<article>") == PRODUCTS + 2 * (GROUPS - 1)
