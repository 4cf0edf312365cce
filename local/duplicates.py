"""What a catalogue has more than once: read page by page and joined here, each finding in one section."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from local.client import Client
from magpie.duplicates.linked_groups import linked_groups
from magpie.duplicates.re_encodings import re_encodings
from magpie.v1.duplicates_pb2 import (
    DescribedImage,
    DescribeImagesRequest,
    FindSameItemsRequest,
    ImageOfProduct,
    ListFingerprintsRequest,
    SameItem,
)
from magpie.v1.image_pb2 import Fingerprint

DESCRIBED = 100  # images a call

Image = tuple[str, str]  # product id, SHA-256
Progress = Callable[[int, int], None]  # products of this page, products in all


@dataclass(frozen=True)
class Link:
    """Two members of a group, and what links them."""

    one: Image
    other: Image
    bits: int = 0  # of 64, in which the hashes of re-encodings differ
    probability: float = 1.0  # of the same item
    similarity: float = 1.0  # in `identity`


@dataclass(frozen=True)
class Group:
    """Pictures of two or more products, each linked with each. No links: the same bytes."""

    images: list[Image]
    links: list[Link] = field(default_factory=list)  # the strongest first


@dataclass
class Pictures:
    """All pictures of a catalogue."""

    images: dict[str, list[str]] = field(default_factory=dict)  # product id -> SHA-256
    holders: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # SHA-256 -> product ids
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)  # SHA-256 ->
    lacking: int = 0  # pictures indexed by a release that made no fingerprints
    _alike: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )  # SHA-256 -> its re-encodings

    def same_bytes(self) -> list[Group]:
        """Of two products or more, those of most products first."""
        found = [
            Group([(id_, sha256) for id_ in ids]) for sha256, ids in self.holders.items() if len(ids) > 1
        ]
        return sorted(found, key=lambda group: (-len(group.images), group.images))

    def re_encoded(self) -> list[Group]:
        """Nearest first. A picture stands once for every product that lists it."""
        shas = list(self.fingerprints)
        links: dict[tuple[str, str], Link] = {}
        for row, other_row, bits in re_encodings([self.fingerprints[sha256] for sha256 in shas]):
            one, other = shas[row], shas[other_row]
            joined = self._joined_products(one, other)
            if joined is not None:
                links[one, other] = Link((joined[0], one), (joined[1], other), bits=bits)
                self._alike[one].add(other)
                self._alike[other].add(one)
        found = []
        for members in linked_groups({pair: -float(link.bits) for pair, link in links.items()}):
            within = sorted(
                (links[pair] for pair in _pairs_within(members, links)), key=lambda link: link.bits
            )
            images = [(id_, sha256) for sha256 in members for id_ in self.holders[sha256]]
            found.append(Group(images, within))
        return sorted(found, key=lambda group: (group.links[-1].bits, group.images))

    def same_item(self, pairs: Iterable[SameItem]) -> list[Group]:
        """Likeliest first, without what the other two tell. Call `re_encoded` before.

        Products that list the same pictures stand together.
        """
        together: dict[frozenset[str], list[str]] = defaultdict(list)
        for id_, shas in self.images.items():
            together[frozenset(shas)].append(id_)
        first = {id_: min(ids) for ids in together.values() for id_ in ids}  # who stands for all of them
        links: dict[tuple[str, str], Link] = {}
        for pair in sorted(pairs, key=lambda pair: pair.probability):  # the likeliest link stays
            one, other = (pair.one.product_id, pair.one.sha256), (pair.other.product_id, pair.other.sha256)
            ids = sorted((first.get(one[0], one[0]), first.get(other[0], other[0])))
            if not self._told(one[0], other[0]):
                links[ids[0], ids[1]] = Link(
                    one, other, probability=pair.probability, similarity=pair.similarity
                )
        found = []
        for members in linked_groups({ids: link.probability for ids, link in links.items()}):
            within = sorted(
                (links[ids] for ids in _pairs_within(members, links)), key=lambda k: -k.probability
            )
            shown: dict[str, str] = {}  # of each member, the picture of its strongest link
            for link in within:
                for id_, sha256 in (link.one, link.other):
                    shown.setdefault(first.get(id_, id_), sha256)
            images = [
                (id_, shown[member])
                for member in members
                for id_ in together.get(frozenset(self.images.get(member, ())), [member])
            ]
            found.append(Group(images, within))
        return sorted(found, key=lambda group: (-group.links[-1].probability, group.images))

    def _joined_products(self, one: str, other: str) -> tuple[str, str] | None:
        """Two products of which two re-encodings tell what equal bytes do not."""
        some, others = self.holders[one], self.holders[other]
        if set(some) <= set(others) or set(others) <= set(some):
            return None
        pairs = ((a, b) for a, b in product(some, others) if a != b and not self._share_bytes(a, b))
        return next(pairs, None)

    def _share_bytes(self, one: str, other: str) -> bool:
        return not set(self.images.get(one, ())).isdisjoint(self.images.get(other, ()))

    def _told(self, one: str, other: str) -> bool:
        """Whether two products have a picture in common, or one that was saved again."""
        theirs = self.images.get(other, ())
        return self._share_bytes(one, other) or any(
            not self._alike[sha256].isdisjoint(theirs)
            for sha256 in self.images.get(one, ())
            if sha256 in self._alike
        )


def read_pictures(client: Client, progress: Progress) -> Pictures:
    """Walk the whole catalogue. Raises CallFailed."""
    pictures = Pictures()
    request = ListFingerprintsRequest()
    while True:
        page = client.call(client.duplicates.ListFingerprints, request)
        of_page: dict[str, list[str]] = defaultdict(list)
        for listed in page.images:
            if listed.image.product_id in pictures.images:  # a walk may meet a product twice
                continue
            of_page[listed.image.product_id].append(listed.image.sha256)
            pictures.holders[listed.image.sha256].append(listed.image.product_id)
            pictures.lacking += listed.lacks_fingerprint
            if listed.HasField("fingerprint"):
                pictures.fingerprints[listed.image.sha256] = listed.fingerprint
        pictures.images |= of_page
        progress(page.products, page.total_products)
        if not page.next_page_token:
            return pictures
        request.page_token = page.next_page_token


def find_same_items(
    client: Client, min_probability: float, progress: Progress
) -> tuple[list[SameItem], bool]:
    """Walk the whole catalogue: each pair of products once, and whether the newest writes may be missing.

    Raises CallFailed.
    """
    best: dict[tuple[str, str], SameItem] = {}
    stale = False
    request = FindSameItemsRequest(min_probability=min_probability)
    while True:
        page = client.call(client.duplicates.FindSameItems, request)
        for pair in page.pairs:
            ids = (pair.one.product_id, pair.other.product_id)
            if ids not in best or best[ids].probability < pair.probability:
                best[ids] = pair
        stale |= page.stale
        progress(page.products, page.total_products)
        if not page.next_page_token:
            return list(best.values()), stale
        request.page_token = page.next_page_token


def describe(client: Client, groups: Iterable[Group], with_urls: bool) -> dict[Image, DescribedImage]:
    """What people see of all pictures of some groups. Raises CallFailed."""
    images = list(dict.fromkeys(image for group in groups for image in group.images))
    described = {}
    for start in range(0, len(images), DESCRIBED):
        asked = [ImageOfProduct(product_id=id_, sha256=sha) for id_, sha in images[start : start + DESCRIBED]]
        request = DescribeImagesRequest(images=asked, include_image_urls=with_urls)
        for shown in client.call(client.duplicates.DescribeImages, request).images:
            described[shown.image.product_id, shown.image.sha256] = shown
    return described


def variants_of(group: Group, described: Mapping[Image, DescribedImage]) -> str:
    """The group of variants to which all its products belong; empty: they do not."""
    names = {described[image].group if image in described else "" for image in group.images}
    return names.pop() if len(names) == 1 else ""


def _pairs_within(members: list[str], links: Mapping[tuple[str, str], object]) -> Iterator[tuple[str, str]]:
    """The pairs of a group's members, as `links` has them."""
    for row, member in enumerate(members):
        for earlier in members[:row]:
            yield (earlier, member) if (earlier, member) in links else (member, earlier)
