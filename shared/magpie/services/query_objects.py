"""What a search looks for, by each of the ways in: a photo, a product, vectors made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from magpie.geometry import WHOLE_IMAGE
from magpie.index.vectors import vectors_of
from magpie.rpc.context import CallContext
from magpie.rpc.status import errors_from_rpc
from magpie.services.detection import MAX_OBJECTS, box_of
from magpie.services.stages import Stages
from magpie.services.stopwatch import Stopwatch
from magpie.v1 import image_pb2
from magpie.v1.detection_pb2 import DetectRequest, DetectResponse
from magpie.v1.embedding_pb2 import EmbedRequest, EmbedResponse
from magpie.v1.image_pb2 import DetectedObject, EmbeddedObject
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import GetObjectsRequest
from magpie.v1.visual_search_pb2 import EmbeddedQuery, SearchRequest
from magpie.vision.box_policy import IMAGE_LABEL, QUERY_LABEL

DEFAULT_OBJECTS = 5
_WHOLE = image_pb2.Box(**WHOLE_IMAGE._asdict())


@dataclass(frozen=True)
class QueryObjects:
    """At least one object with a vector in each space of the bundle."""

    objects: Sequence[EmbeddedObject]
    bundle: str  # whose models made the vectors, `name@version`
    like: Product | None = None  # the product that was asked for: no hit


class QueryObjectsReader:
    """Asks the stages `detection`, `embedding` and, for a product's vectors, `search`."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def read(
        self,
        request: SearchRequest,
        bundle: str,
        dimensions: Mapping[str, int],
        context: CallContext,
        clock: Stopwatch,
    ) -> QueryObjects:
        """Those of a request that was checked and has no page token. Raises what the stages raise.

        `bundle` is the one that serves the customer, `dimensions` its spaces: space -> dimension.
        """
        if request.product_id:
            with clock.stage("lookup"):
                return self._of_product(request.product_id, bundle, context)
        if request.HasField("embedded"):
            return _of_vectors(request.embedded, bundle, dimensions)
        with clock.stage("detection"):
            detected = self._detect(request, bundle, context)
        with clock.stage("embedding"):
            embedded = self._embed(request.image, detected, bundle, context)
        return QueryObjects(embedded.objects, embedded.bundle)

    def _of_product(self, product_id: str, bundle: str, context: CallContext) -> QueryObjects:
        """The whole of its first picture in the index.

        A shop puts first the picture that shows the product best; later ones show details, wearers, tables of
        sizes, which other products' pictures resemble for no good reason. The whole picture, because every
        picture in the index has that one object, so that alike is compared with alike.
        """
        request = GetObjectsRequest(product_id=product_id, bundle=bundle)
        with errors_from_rpc():
            found = self._stages.search.GetObjects(
                request, timeout=context.remaining(), metadata=context.outgoing()
            )
        chosen = next((each for each in found.objects if each.object.box == _WHOLE), found.objects[0])
        if chosen.object.box == _WHOLE:
            chosen.object.label = IMAGE_LABEL  # the index does not keep labels for good
        return QueryObjects([chosen], bundle, found.product)

    def _detect(self, request: SearchRequest, bundle: str, context: CallContext) -> DetectResponse:
        detect = DetectRequest(
            image=request.image,
            max_objects=request.max_objects or DEFAULT_OBJECTS,
            boxes=[request.box] if request.HasField("box") else request.boxes,
            bundle=bundle,
        )
        with errors_from_rpc():
            return self._stages.detection.Detect(
                detect, timeout=context.remaining(), metadata=context.outgoing()
            )

    def _embed(
        self, image: image_pb2.Image, detected: DetectResponse, bundle: str, context: CallContext
    ) -> EmbedResponse:
        """By the crops that detection kept; with the photo itself only if those are gone already."""
        request = EmbedRequest(image=detected.image, objects=detected.objects, bundle=bundle)
        try:
            with errors_from_rpc():
                return self._stages.embedding.Embed(
                    request, timeout=context.remaining(), metadata=context.outgoing()
                )
        except NotFound:
            request.image.CopyFrom(image)
            with errors_from_rpc():
                return self._stages.embedding.Embed(
                    request, timeout=context.remaining(), metadata=context.outgoing()
                )


def _of_vectors(query: EmbeddedQuery, bundle: str, dimensions: Mapping[str, int]) -> QueryObjects:
    """Raises InvalidArgument naming the vector that is no good, FailedPrecondition for another bundle."""
    if not query.bundle:
        raise InvalidArgument("embedded.bundle", "must name the bundle whose models made the vectors")
    if query.bundle != bundle:
        raise FailedPrecondition(
            f"embedded.bundle: the vectors are of {query.bundle}, in use is {bundle}: "
            "embed with the models of that one"
        )
    if not 1 <= len(query.objects) <= MAX_OBJECTS:
        raise InvalidArgument("embedded.objects", f"needs 1 to {MAX_OBJECTS}, got {len(query.objects)}")
    return QueryObjects(
        [
            _given(each, f"embedded.objects[{row}]", bundle, dimensions)
            for row, each in enumerate(query.objects)
        ],
        query.bundle,
    )


def _given(
    embedded: EmbeddedObject, field: str, bundle: str, dimensions: Mapping[str, int]
) -> EmbeddedObject:
    """One of the caller's, labelled as a box of the caller's is."""
    sizes = {space: len(vector) for space, vector in vectors_of(embedded, field).items()}
    if sizes != dimensions:
        raise InvalidArgument(
            f"{field}.vectors", f"{bundle} has the dimensions {dict(dimensions)}, got {sizes}"
        )
    box = _WHOLE
    if embedded.object.HasField("box"):
        box = embedded.object.box
        box_of(box, f"{field}.object.box")
    given = DetectedObject(box=box, label=QUERY_LABEL, score=1.0)
    return EmbeddedObject(object=given, vectors=embedded.vectors)
