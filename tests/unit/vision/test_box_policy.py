from __future__ import annotations

from pathlib import Path

import pytest

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.box_policy import WHOLE, CataloguePolicy, QueryPolicy
from magpie.vision.detector import Detection
from magpie.vision.model_card import BoxPolicy, DetectionSpec, ModelCard

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


@pytest.mark.parametrize(("boxes", "searched"), [("all", FOUND), ("best", FOUND[:1]), ("whole", [WHOLE])])
def test_the_detector_s_card_says_what_is_searched_by(boxes: BoxPolicy, searched: list[Detection]) -> None:
    spec = DetectionSpec(("product",), 0.5, 0.5, 10, box_policy=boxes, whole_image_share=0.25)
    policy = QueryPolicy.of(spec)
    assert policy.objects(FOUND) == searched
    assert policy.objects([]) == [WHOLE]
    assert policy.shares(["product", "image"]) == [0.25, 0]


def test_a_card_that_says_nothing_searches_by_all_boxes_alone() -> None:
    assert QueryPolicy.of(DetectionSpec(("product",), 0.5, 0.5, 10)) == QueryPolicy() == QueryPolicy.of(None)
    assert QueryPolicy().objects(FOUND) == FOUND


@pytest.mark.parametrize("wrong", [{"box_policy": "none"}, {"whole_image_share": 1.0}])
def test_a_policy_that_there_is_not_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetectionSpec(("product",), 0.5, 0.5, 10, **wrong)  # type: ignore[arg-type]


def test_a_card_from_before_there_was_a_choice_loads_and_serves_as_ever() -> None:
    card = ModelCard.load(Path("bundles/default/detector.card.json"))
    assert QueryPolicy.of(card.detection) == QueryPolicy()
