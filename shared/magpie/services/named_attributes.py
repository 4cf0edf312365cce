"""What a search request names must be there: attributes in its filter, facets and grouping."""

from __future__ import annotations

from typing import Protocol

from magpie.errors import InvalidArgument
from magpie.index.attribute_schema import AttributeSchema
from magpie.index.filter_check import check_filter, check_name, check_text_name
from magpie.ranking.facets import MAX_FACETS
from magpie.v1.visual_search_pb2 import SearchRequest


class Schemas(Protocol):
    """Where a customer's names and types come from."""

    def current(self, customer: str) -> AttributeSchema:
        """As it was at most a second ago, as far as it can be known."""

    def newest(self, customer: str) -> AttributeSchema:
        """As it is now."""


def check_names(request: SearchRequest, schemas: Schemas, customer: str) -> None:
    """Raises InvalidArgument for the first name that no product has, or has with another type."""
    if len(request.facets) > MAX_FACETS:
        raise InvalidArgument("facets", f"at most {MAX_FACETS}, got {len(request.facets)}")
    for row, name in enumerate(request.facets):
        if name in request.facets[:row]:
            raise InvalidArgument(f"facets[{row}]", f"`{name:.60}` stands there twice: each name once")
    if not (request.filter or request.facets or request.group_by):
        return
    try:
        _check_against(request, schemas.current(customer))
    except InvalidArgument:  # a product may have brought the name within the last second
        _check_against(request, schemas.newest(customer))


def _check_against(request: SearchRequest, schema: AttributeSchema) -> None:
    if request.filter:
        check_filter(request.filter, schema)
    for row, name in enumerate(request.facets):
        check_name(name, schema, f"facets[{row}]")
    if request.group_by:
        check_text_name(request.group_by, schema, "group_by")
