"""DuplicateService: what a catalogue has more than once, told page by page.

A call is short, whatever the size of the catalogue, and nothing is kept between two of them: so a walk of
hours works behind any time limit, and searches go on beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.ranking.calibration import HIT_SPACE, Calibration
from magpie.rpc.context import CallContext
from magpie.rpc.status import errors_from_rpc
from magpie.services.search import MAX_LIMIT, MAX_QUERIES
from magpie.store.catalogue import Catalogue, Walked
from magpie.v1 import duplicates_pb2, duplicates_pb2_grpc
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.duplicates_pb2 import DescribedImage, FingerprintedImage, ImageOfProduct, SameItem
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.search_pb2 import Candidate, FindCandidatesRequest, FindCandidatesResponse
from magpie.v1.search_pb2_grpc import SearchServiceStub

MAX_FINGERPRINTED = 1000  # products a page
MAX_COMPARED = 100
DEFAULT_COMPARED = 20
MAX_DESCRIBED = 100  # images a call
DEFAULT_PROBABILITY = 0.9
_NEIGHBOURS = 50  # objects looked at of each object at first; where all are likely enough, MAX_LIMIT
_PRODUCTS_ASKED = (
    7  # for their objects, a call: so many of the longest ids, each character a quote, fit a filter
)

Item = TypeVar("Item")


class ImageAddresses(Protocol):
    """Where pictures of the catalogue can be fetched."""

    def image_url(self, customer: str, product_id: str, sha256: str) -> str:
        """A signed address, good for some minutes."""


class DuplicateServicer(duplicates_pb2_grpc.DuplicateServiceServicer):
    """`bundle` and `spaces` (name -> dimension) are those of the index that `search` answers from.

    Without a calibration nobody knows which similarity means the same item, and FindSameItems is refused.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        addresses: ImageAddresses,
        search: SearchServiceStub,
        bundle: str,
        spaces: Mapping[str, int],
        calibration: Calibration | None,
    ) -> None:
        self._catalogue = catalogue
        self._addresses = addresses
        self._search = search
        self._bundle = bundle
        self._spaces = spaces
        self._calibration = calibration

    def ListFingerprints(  # type: ignore[override]  # our context on every transport
        self, request: duplicates_pb2.ListFingerprintsRequest, context: CallContext
    ) -> duplicates_pb2.ListFingerprintsResponse:
        customer = context.require_customer()
        size = _page_size(request.page_size, MAX_FINGERPRINTED) or MAX_FINGERPRINTED
        page = self._catalogue.walk(customer, _cursor(request.page_token), size)
        images = [(product_id, sha256) for product_id, shas in page.images.items() for sha256 in shas]
        fingerprints = self._catalogue.fingerprints(customer, images)
        without = {id_ for (id_, _), found in zip(images, fingerprints, strict=True) if found is None}
        indexed = {
            (image.product_id, image.sha256)
            for image in self._catalogue.states(customer, sorted(without))
            if image.state == ImageStatus.STATE_INDEXED
        }
        return duplicates_pb2.ListFingerprintsResponse(
            images=[
                FingerprintedImage(
                    image=ImageOfProduct(product_id=image[0], sha256=image[1]),
                    fingerprint=found,
                    lacks_fingerprint=found is None and image in indexed,
                )
                for image, found in zip(images, fingerprints, strict=True)
            ],
            products=len(page.images),
            total_products=page.total,
            next_page_token=_token(page),
        )

    def FindSameItems(  # type: ignore[override]
        self, request: duplicates_pb2.FindSameItemsRequest, context: CallContext
    ) -> duplicates_pb2.FindSameItemsResponse:
        customer = context.require_customer()
        size = _page_size(request.page_size, MAX_COMPARED) or DEFAULT_COMPARED
        cursor = _cursor(request.page_token)
        compared = _Compared(self._checked_calibration(), self._checked_probability(request.min_probability))
        page = self._catalogue.walk(customer, cursor, size)
        for products in _parts(sorted(page.images), _PRODUCTS_ASKED):
            objects = self._objects(products, compared, context)
            for part in _parts(objects, MAX_QUERIES):
                self._compare(part, compared, context)
        return duplicates_pb2.FindSameItemsResponse(
            pairs=compared.pairs(),
            products=len(page.images),
            total_products=page.total,
            next_page_token=_token(page),
            stale=compared.stale,
        )

    def DescribeImages(  # type: ignore[override]
        self, request: duplicates_pb2.DescribeImagesRequest, context: CallContext
    ) -> duplicates_pb2.DescribeImagesResponse:
        customer = context.require_customer()
        if not 1 <= len(request.images) <= MAX_DESCRIBED:
            raise InvalidArgument("images", f"1 to {MAX_DESCRIBED} a call, got {len(request.images)}")
        ids = list(dict.fromkeys(image.product_id for image in request.images))
        products = self._catalogue.products(customer, ids)
        return duplicates_pb2.DescribeImagesResponse(
            images=[
                DescribedImage(
                    image=image,
                    title=products[image.product_id].title,
                    group=products[image.product_id].group,
                    image_url=self._addresses.image_url(customer, image.product_id, image.sha256)
                    if request.include_image_urls
                    else "",
                )
                for image in request.images
                if image.product_id in products and image.sha256 in products[image.product_id].images
            ]
        )

    def _checked_calibration(self) -> Calibration:
        if self._calibration is None:
            raise FailedPrecondition(
                f"bundle {self._bundle} has no calibration, without which no similarity tells how likely two "
                "products are the same: `magpie train calibration` fits one"
            )
        return self._calibration

    def _checked_probability(self, asked: float) -> float:
        if not 0 <= asked < 1:
            raise InvalidArgument("min_probability", f"must lie in (0, 1), got {asked:g}")
        highest = self._checked_calibration().highest(HIT_SPACE)
        if asked > highest:
            raise InvalidArgument(
                "min_probability",
                f"is {asked:g}, but the calibration of bundle {self._bundle} gives equal pictures "
                f"{highest:.3f} at the most",
            )
        return asked or DEFAULT_PROBABILITY

    def _objects(self, products: Sequence[str], compared: _Compared, context: CallContext) -> list[Candidate]:
        """All objects of some products, as the index has them.

        The filter names the products, so whatever the query, they are what is found.
        """
        names = ", ".join("'" + id_.replace("'", "''") + "'" for id_ in products)
        anything = np.eye(1, self._spaces[HIT_SPACE], dtype=np.float32)[0]
        found = self._find([anything], MAX_LIMIT, context, f"id in ({names})")
        objects = list(found.results[0].candidates)
        if len(objects) == MAX_LIMIT and len(products) > 1:  # there may be more of them
            half = len(products) // 2
            return [
                *self._objects(products[:half], compared, context),
                *self._objects(products[half:], compared, context),
            ]
        compared.learn(found)
        return objects

    def _compare(self, objects: Sequence[Candidate], compared: _Compared, context: CallContext) -> None:
        """Enter the objects of other products that are likely the same item as one of these."""
        queries = [np.frombuffer(object_.identity, "<f4") for object_ in objects]
        found = self._find(queries, _NEIGHBOURS, context)
        compared.learn(found)
        for object_, query, result in zip(objects, queries, found.results, strict=True):
            all_likely = compared.enter(object_, result.candidates)
            if all_likely and len(result.candidates) == _NEIGHBOURS:
                more = self._find([query], MAX_LIMIT, context)
                compared.learn(more)
                compared.enter(object_, more.results[0].candidates)

    def _find(
        self, queries: Sequence[NDArray[np.float32]], limit: int, context: CallContext, filter_: str = ""
    ) -> FindCandidatesResponse:
        """The nearest in `identity`. What the queries say in the other spaces weighs nothing."""
        others = [
            Vector(space=space, values=np.eye(1, dimension, dtype="<f4").tobytes())
            for space, dimension in self._spaces.items()
            if space != HIT_SPACE
        ]
        request = FindCandidatesRequest(
            queries=[
                EmbeddedObject(
                    vectors=[Vector(space=HIT_SPACE, values=query.astype("<f4").tobytes()), *others]
                )
                for query in queries
            ],
            bundle=self._bundle,
            filters=[filter_] if filter_ else [],
            limit_per_space=limit,
            weights={HIT_SPACE: 1.0},
            is_walk=True,
        )
        with errors_from_rpc():
            return self._search.FindCandidates(
                request, timeout=context.remaining(), metadata=context.outgoing()
            )


class _Compared:
    """The likeliest pair of objects of each two products."""

    def __init__(self, calibration: Calibration, min_probability: float) -> None:
        self._calibration = calibration
        self._min_probability = min_probability
        self._best: dict[tuple[str, str], SameItem] = {}
        self._categories: dict[str, str] = {}  # product id -> category
        self.stale = False

    def learn(self, found: FindCandidatesResponse) -> None:
        """What an answer tells of products, before its candidates are entered."""
        self.stale |= found.stale
        self._categories.update((product.id, product.category) for product in found.products)

    def enter(self, object_: Candidate, neighbours: Sequence[Candidate]) -> bool:
        """Returns whether all neighbours are likely enough, so that there may be more."""
        similarities = np.array([neighbour.similarity[HIT_SPACE] for neighbour in neighbours])
        theirs = [self._categories[neighbour.product_id] for neighbour in neighbours]
        own = self._categories[object_.product_id]
        probabilities = np.minimum(
            self._calibration.probability(HIT_SPACE, similarities, theirs),
            self._calibration.probability(HIT_SPACE, similarities, own),
        )
        likely = probabilities >= self._min_probability
        for row in np.flatnonzero(likely).tolist():
            neighbour = neighbours[row]
            if neighbour.product_id != object_.product_id:
                self._keep(object_, neighbour, float(similarities[row]), float(probabilities[row]))
        return bool(likely.all())

    def _keep(self, some: Candidate, other: Candidate, similarity: float, probability: float) -> None:
        first, second = sorted((some, other), key=lambda candidate: candidate.product_id)
        pair = (first.product_id, second.product_id)
        known = self._best.get(pair)
        if known is None or known.probability < probability:
            self._best[pair] = SameItem(
                one=ImageOfProduct(product_id=first.product_id, sha256=first.image_sha256),
                other=ImageOfProduct(product_id=second.product_id, sha256=second.image_sha256),
                similarity=similarity,
                probability=probability,
            )

    def pairs(self) -> list[SameItem]:
        """Likeliest first."""
        return sorted(
            self._best.values(), key=lambda p: (-p.probability, p.one.product_id, p.other.product_id)
        )


def _page_size(asked: int, largest: int) -> int:
    if not 0 <= asked <= largest:
        raise InvalidArgument("page_size", f"must lie in [1, {largest}], got {asked}")
    return asked


def _cursor(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdecimal() and 0 < int(token) < 1 << 64):
        raise InvalidArgument("page_token", f"must be empty or a `next_page_token`, got {token!r}")
    return int(token)


def _token(page: Walked) -> str:
    return str(page.cursor) if page.cursor else ""


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
