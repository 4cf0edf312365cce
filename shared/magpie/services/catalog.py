"""CatalogService: a customer's products, permission to upload their pictures, and how far these are."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from magpie.index.attribute_schema import ValueType
from magpie.rpc.context import CallContext
from magpie.store.catalogue import Catalogue
from magpie.store.upload_key import SHA256, encoded
from magpie.store.uploads import CONTENT_TYPES, MAX_BYTES, Uploads
from magpie.v1 import catalog_pb2, catalog_pb2_grpc
from magpie.v1.catalog_pb2 import Attribute
from magpie.v1.events_pb2 import IngestedImage
from magpie.v1.product_pb2 import AttributeValue, Product

MAX_PRODUCTS = 100  # a call
MAX_IMAGES = 50  # a product
MAX_ID_CHARACTERS = 128
MAX_SET_VALUES = 100  # an attribute
MAX_ID_BYTES = 255  # percent-encoded: a segment of the upload key, which becomes a file's name on some stores
_TYPES = {
    ValueType.TEXT: Attribute.TYPE_TEXT,
    ValueType.NUMBER: Attribute.TYPE_NUMBER,
    ValueType.FLAG: Attribute.TYPE_FLAG,
    ValueType.SET: Attribute.TYPE_SET,
}
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIELDS = frozenset(Product.DESCRIPTOR.fields_by_name)


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """`bundle` (`name@version`) decides which pictures count as missing: those without objects under it."""

    def __init__(self, catalogue: Catalogue, uploads: Uploads, bundle: str) -> None:
        self._catalogue = catalogue
        self._uploads = uploads
        self._bundle = bundle

    def UpsertProducts(  # type: ignore[override]  # our context on every transport
        self, request: catalog_pb2.UpsertProductsRequest, context: CallContext
    ) -> catalog_pb2.UpsertProductsResponse:
        customer = context.require_customer()
        check_products(request.products)
        upserted = self._catalogue.upsert_products(customer, request.products, self._bundle)
        return catalog_pb2.UpsertProductsResponse(products=upserted)

    def DeleteProducts(  # type: ignore[override]
        self, request: catalog_pb2.DeleteProductsRequest, context: CallContext
    ) -> catalog_pb2.DeleteProductsResponse:
        customer = context.require_customer()
        deleted, not_found = self._catalogue.delete_products(customer, _checked_ids(request.product_ids))
        return catalog_pb2.DeleteProductsResponse(deleted=deleted, not_found=not_found)

    def CreateUpload(  # type: ignore[override]
        self, request: catalog_pb2.CreateUploadRequest, context: CallContext
    ) -> catalog_pb2.CreateUploadResponse:
        customer = context.require_customer()
        _check_upload(request)
        if request.product_id:
            self._check_listed(customer, request.product_id, request.sha256)
            self._forget_failure(customer, request.product_id, request.sha256)
        upload = self._uploads.create(
            customer, request.product_id, request.sha256, request.content_type, request.size_bytes
        )
        return catalog_pb2.CreateUploadResponse(
            url=upload.url,
            fields=upload.fields,
            upload_key=upload.key,
            expires_in_seconds=upload.expires_in_seconds,
        )

    def GetIngestStatus(  # type: ignore[override]
        self, request: catalog_pb2.GetIngestStatusRequest, context: CallContext
    ) -> catalog_pb2.GetIngestStatusResponse:
        customer = context.require_customer()
        images = self._catalogue.states(customer, _checked_ids(request.product_ids))
        return catalog_pb2.GetIngestStatusResponse(images=images)

    def GetAttributes(  # type: ignore[override]
        self,
        request: catalog_pb2.GetAttributesRequest,  # noqa: ARG002 - it is empty
        context: CallContext,
    ) -> catalog_pb2.GetAttributesResponse:
        schema = self._catalogue.attributes(context.require_customer())
        return catalog_pb2.GetAttributesResponse(
            attributes=[
                Attribute(
                    name=name,
                    types=[
                        Attribute.TypeCount(
                            type=_TYPES[type_], products=schema.counts.get(name, {}).get(type_, 0)
                        )
                        for type_ in schema.types(name)
                    ],
                )
                for name in schema.names
            ],
            products=schema.products,
            unlearned=max(0, schema.products - schema.learned),
        )

    def _check_listed(self, customer: str, product_id: str, sha256: str) -> None:
        product = self._catalogue.products(customer, [product_id]).get(product_id)
        if product is None:
            raise NotFound(f"product_id: there is no product {product_id!r}: upsert it first")
        if sha256 not in product.images:
            raise FailedPrecondition(
                f"sha256: product {product_id!r} does not list {sha256}: upsert it with that picture first"
            )

    def _forget_failure(self, customer: str, product_id: str, sha256: str) -> None:
        """A picture that failed and comes again is waited for: its old failure is no news."""
        states = {image.sha256: image.state for image in self._catalogue.states(customer, [product_id])}
        if states.get(sha256) == catalog_pb2.ImageStatus.STATE_FAILED:
            image = IngestedImage(customer=customer, product_id=product_id, sha256=sha256, event_id="upload")
            self._catalogue.set_state(image, catalog_pb2.ImageStatus.STATE_AWAITING_UPLOAD)


def check_products(products: Sequence[Product]) -> None:
    """Raises InvalidArgument naming the first field that is wrong, as `products[3].price`."""
    if not 1 <= len(products) <= MAX_PRODUCTS:
        raise InvalidArgument("products", f"1 to {MAX_PRODUCTS} a call, got {len(products)}")
    rows: dict[str, int] = {}
    for row, product in enumerate(products):
        field = f"products[{row}]"
        _check_id(product.id, f"{field}.id")
        first = rows.setdefault(product.id, row)
        if first != row:
            raise InvalidArgument(
                f"{field}.id", f"{product.id!r} is that of products[{first}], too: each id once"
            )
        for name in ("price", "stock"):
            if product.HasField(name):
                _check_amount(getattr(product, name), f"{field}.{name}")
        for name, value in product.attributes.items():
            _check_attribute(name, value, f"{field}.attributes[{name!r}]")
        _check_images(product.images, f"{field}.images")


def _checked_ids(ids: Sequence[str]) -> list[str]:
    """The product ids, each once."""
    if not 1 <= len(ids) <= MAX_PRODUCTS:
        raise InvalidArgument("product_ids", f"1 to {MAX_PRODUCTS} a call, got {len(ids)}")
    for row, product_id in enumerate(ids):
        _check_id(product_id, f"product_ids[{row}]")
    return list(dict.fromkeys(ids))


def _check_id(product_id: str, field: str) -> None:
    if not 1 <= len(product_id) <= MAX_ID_CHARACTERS:
        raise InvalidArgument(field, f"must have 1 to {MAX_ID_CHARACTERS} characters, got {len(product_id)}")
    if any(unicodedata.category(character) == "Cc" for character in product_id):
        raise InvalidArgument(field, f"must not contain control characters, got {product_id!r}")
    size = len(encoded(product_id))
    if size > MAX_ID_BYTES:
        raise InvalidArgument(
            field, f"must have at most {MAX_ID_BYTES} bytes when percent-encoded, has {size}: {product_id!r}"
        )


def _check_amount(value: float, field: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(field, f"must be finite and at least 0, got {value:g}")


def _check_attribute(name: str, value: AttributeValue, field: str) -> None:
    if not _ATTRIBUTE.fullmatch(name):
        raise InvalidArgument(field, "names are letters, digits and _, and do not begin with a digit")
    if name in _FIELDS:
        raise InvalidArgument(field, f"`{name}` is a field of the product: choose another name")
    if value.WhichOneof("kind") is None:
        raise InvalidArgument(field, "needs a value: `text`, `number`, `flag` or `texts`")
    if not math.isfinite(value.number):
        raise InvalidArgument(field, f"must be finite, got {value.number:g}")
    if value.HasField("texts"):
        _check_set(value.texts.values, f"{field}.texts.values")


def _check_set(values: Sequence[str], field: str) -> None:
    if not 1 <= len(values) <= MAX_SET_VALUES:
        problem = f"a set has 1 to {MAX_SET_VALUES} texts, got {len(values)}"
        raise InvalidArgument(field, problem if values else f"{problem}: leave the attribute out")
    if "" in values:
        raise InvalidArgument(f"{field}[{list(values).index('')}]", "must not be empty")


def _check_images(images: Sequence[str], field: str) -> None:
    if len(images) > MAX_IMAGES:
        raise InvalidArgument(field, f"at most {MAX_IMAGES}, got {len(images)}")
    for row, sha256 in enumerate(images):
        _check_sha256(sha256, f"{field}[{row}]")


def _check_sha256(sha256: str, field: str) -> None:
    if not SHA256.fullmatch(sha256):
        raise InvalidArgument(
            field, f"must be the file's SHA-256 as 64 lower-case hexadecimal digits, got {sha256!r}"
        )


def _check_upload(request: catalog_pb2.CreateUploadRequest) -> None:
    if request.product_id:
        _check_id(request.product_id, "product_id")
    _check_sha256(request.sha256, "sha256")
    if request.content_type not in CONTENT_TYPES:
        raise InvalidArgument(
            "content_type", f"must be one of {', '.join(CONTENT_TYPES)}, got {request.content_type!r}"
        )
    if not 1 <= request.size_bytes <= MAX_BYTES:
        raise InvalidArgument(
            "size_bytes", f"must be 1 to {MAX_BYTES}, got {request.size_bytes}: shrink the picture"
        )
