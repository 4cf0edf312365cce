"""One self-contained page: the groups of each section, their pictures side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from local.duplicate_sections import Section
from local.page import picture, template

GROUPS = 200  # of a section; a page of more opens slowly
PRODUCTS = 12  # of a group


def render(
    customer: str,
    images: int,
    sections: Sequence[Section],
    notes: Sequence[str],
    fetch: Callable[[str], bytes],
) -> str:
    """HTML that asks for nothing from elsewhere. A picture that cannot be fetched is left out."""
    return template("duplicates_page.html.j2").render(
        customer=customer,
        images=images,
        notes=notes,
        sections=[
            {
                "kind": section.kind.name,
                "title": section.kind.title,
                "about": section.kind.about,
                "measure": section.kind.measure,
                "missing": section.missing,
                "count": len(section.groups),
                "groups": [
                    {
                        "weakest": group.weakest,
                        "variants_of": group.variants_of,
                        "more": max(0, len(group.products) - PRODUCTS),
                        "products": [
                            {
                                "product_id": shown.image.product_id,
                                "title": shown.title,
                                "image": shown.image.sha256,
                                "picture": picture(shown.image_url, fetch),
                            }
                            for shown in group.products[:PRODUCTS]
                        ],
                    }
                    for group in section.groups[:GROUPS]
                ],
            }
            for section in sections
        ],
    )
