"""The report's sections as people and programs read them: groups with their products and weakest links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.duplicates import Group, Image, Link, variants_of
from magpie.v1.duplicates_pb2 import DescribedImage, ImageOfProduct


@dataclass(frozen=True)
class Kind:
    """What a section tells."""

    name: str  # as --kind takes it
    title: str
    about: str
    measure: str  # of a link; empty: there are no links
    figure: Callable[[Link], str]  # the measure for people
    figures: Callable[[Link], dict[str, Any]]  # and for programs


@dataclass(frozen=True)
class ShownGroup:
    """A group with what people see of its pictures."""

    group: Group
    products: list[DescribedImage]
    weakest: str  # the measure of its weakest link; empty: there are no links
    variants_of: str  # the one group of variants of all its products; empty: they are no variants


@dataclass(frozen=True)
class Section:
    """All groups of one kind; variants of one another come last."""

    kind: Kind
    groups: list[ShownGroup]
    missing: str = ""  # why there is no such section


EXACT = Kind(
    "exact",
    "Exact",
    "The same file, byte for byte, listed by several products.",
    "",
    lambda _: "",
    lambda _: {},
)
RE_ENCODED = Kind(
    "re-encoded",
    "Re-encoded",
    "One picture saved again: smaller, as a worse JPEG, or a little cut. Few bits of their hashes differ.",
    "bits of 64",
    lambda link: str(link.bits),
    lambda link: {"bits": link.bits},
)
SAME_ITEM = Kind(
    "same-item",
    "Same item",
    "Different pictures that show the same product, as the bundle's calibration judges.",
    "probability",
    lambda link: f"{link.probability:.2f}",
    lambda link: {"probability": round(link.probability, 4), "similarity": round(link.similarity, 4)},
)
KINDS = {kind.name: kind for kind in (EXACT, RE_ENCODED, SAME_ITEM)}


def section(kind: Kind, groups: Sequence[Group], described: Mapping[Image, DescribedImage]) -> Section:
    """`described` as `describe` tells it; pictures that went meanwhile have no title."""
    shown = [
        ShownGroup(
            group,
            [described.get(image) or _unknown(image) for image in group.images],
            kind.figure(group.links[-1]) if group.links else "",
            variants_of(group, described),
        )
        for group in groups
    ]
    return Section(kind, sorted(shown, key=lambda group: bool(group.variants_of)))


def section_json(shown: Section) -> list[dict[str, Any]]:
    """Its groups as JSON."""
    return [
        {
            "products": [
                {
                    "product_id": product.image.product_id,
                    "title": product.title,
                    "group": product.group,
                    "image": product.image.sha256,
                }
                for product in group.products
            ],
            "variants_of": group.variants_of or None,
            "links": [
                {"one": _image(link.one), "other": _image(link.other), **shown.kind.figures(link)}
                for link in group.group.links
            ],
        }
        for group in shown.groups
    ]


def _image(image: Image) -> dict[str, str]:
    return {"product_id": image[0], "image": image[1]}


def _unknown(image: Image) -> DescribedImage:
    return DescribedImage(image=ImageOfProduct(product_id=image[0], sha256=image[1]))
