from __future__ import annotations

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.box_policy import WHOLE, CataloguePolicy, QueryPolicy
from magpie.vision.detector import Detection

FOUND = [Detection(Box(0, 0, 0.5, 0.5 + n / 10), "product", 0.9 - n / 10) for n in range(3)]


def test_the_catalogue_always_holds_the_whole_image() -> None:
    assert CataloguePolicy().objects([]) == [WHOLE]
    assert CataloguePolicy().objects(FOUND) == [*FOUND[:2], WHOLE]
    assert CataloguePolicy(max_boxes=0).objects(FOUND) == [WHOLE]
    assert (WHOLE.box, WHOLE.label, WHOLE.score) == (WHOLE_IMAGE, "image", 0)


def test_queries_hold_the_whole_image_only_where_nothing_was_found() -> None:
    assert QueryPolicy().objects(FOUND) == FOUND
    assert QueryPolicy().objects([]) == [WHOLE]


def test_only_detected_boxes_are_mixed_with_the_whole_image() -> None:
    assert QueryPolicy(0.25).shares(["product", "query", "image"]) == [0.25, 0, 0]
    assert QueryPolicy().shares(["product"]) == [0]
