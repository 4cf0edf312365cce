"""Every customer's attribute schema, kept in the process for a second."""

from __future__ import annotations

import time

from magpie.errors import Unavailable
from magpie.index.attribute_schema import AttributeSchema
from magpie.store.catalogue import Catalogue

FRESH_SECONDS = 1.0  # for so long a process uses a schema without asking Redis


class AttributeSchemas:
    """Reads through `catalogue`. Thread-safe."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._fresh: dict[str, tuple[AttributeSchema, float]] = {}  # customer -> schema, until when

    def current(self, customer: str) -> AttributeSchema:
        """The schema, at most FRESH_SECONDS late; while Redis is away the last one, or an empty one."""
        schema, until = self._fresh.get(customer, (AttributeSchema(), 0.0))
        if time.monotonic() < until:
            return schema
        try:
            return self.newest(customer)
        except Unavailable:
            self._fresh[customer] = (schema, time.monotonic() + FRESH_SECONDS)
            return schema

    def newest(self, customer: str) -> AttributeSchema:
        """The schema as it is. Raises Unavailable while Redis does not answer."""
        asked = time.monotonic()
        schema = self._catalogue.attributes(customer)
        self._fresh[customer] = (schema, asked + FRESH_SECONDS)
        return schema
