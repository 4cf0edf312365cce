"""What boxes do to search, with an embedder that sees nothing but the mean colour."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from magpie.geometry import Box
from magpie.ranking.config import default_config
from magpie.ranking.hubness import Hubness
from magpie.ranking.rank import rank
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate
from magpie.vision.box_policy import QueryPolicy
from magpie.vision.detector import Detection
from magpie.vision.model_card import InputSpec
from training.datasets.composites import CompositeSource
from training.detection.retrieval import (
    BETTER_OF,
    CATALOGUES,
    POLICIES,
    TRUE,
    Cut,
    SearchResult,
    default_scores,
    measure_search,
)
from training.detection.searched_pictures import Picture, Shop, drawn_photos, grocery_photos

SPEC = InputSpec("image", 32, 127.0, 128.0, 127)
RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)
CORNER = Box(0.0, 0.0, 0.5, 0.5)
OTHER_CORNER = Box(0.5, 0.5, 1.0, 1.0)


def mean_colour(tensor):
    vectors = tensor.mean(axis=(2, 3)) + 1.0
    return {"identity": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}


def plain(colour):
    return Image.new("RGB", (40, 40), colour)


def with_corner(colour, ground, other=None):
    image = Image.new("RGB", (80, 80), ground)
    image.paste(colour, (0, 0, 40, 40))
    if other:
        image.paste(other, (40, 40, 80, 80))
    return image


def shop(photo, product, truth=None):
    catalogue = [Picture(lambda c=c: plain(c), frozenset([n])) for n, c in (("red", RED), ("blue", BLUE))]
    boxes = None if truth is None else np.array([truth], np.float32)
    return Shop("drawn", [Picture(lambda: photo, frozenset([product]), "d", boxes)], catalogue)


def find(*boxes):
    """Boxes in large pictures, none in the catalogue's."""
    return lambda image: [Detection(b, "product", 0.9) for b in boxes] if image.width == 80 else []


def test_a_box_finds_what_the_whole_photo_does_not():
    result = measure_search(shop(with_corner(RED, BLUE), "red"), find(CORNER), mean_colour, SPEC)
    assert result.recall("whole image") == 0.0
    assert result.recall("best box") == result.recall("all boxes") == 1.0
    assert result.recall("best box + 75% whole") == 0.0
    assert result.best == "all boxes"
    assert result.boxed == 1.0


def test_a_box_of_another_thing_loses_what_the_whole_photo_finds():
    photo = with_corner(RED, BLUE)
    result = measure_search(shop(photo, "blue"), find(CORNER), mean_colour, SPEC)
    assert result.recall("best box") == 0.0
    assert result.recall("whole image") == 1.0
    assert result.best == "whole image"


def test_any_box_may_find_it_where_all_are_asked():
    photo = with_corner(GREEN, (127, 127, 127), other=RED)
    result = measure_search(shop(photo, "red"), find(CORNER, OTHER_CORNER), mean_colour, SPEC)
    assert result.recall("all boxes") == 1.0


def test_without_boxes_every_policy_is_the_whole_photo():
    result = measure_search(shop(with_corner(RED, BLUE), "red"), find(), mean_colour, SPEC)
    assert result.boxed == 0.0
    assert {result.recall(name, by) for name in (*POLICIES, BETTER_OF) for by in CATALOGUES} == {0.0}


def test_true_boxes_stand_beside_where_they_are_known():
    known = shop(with_corner(RED, BLUE), "red", truth=CORNER)
    result = measure_search(known, find(OTHER_CORNER), mean_colour, SPEC)
    assert (result.recall(TRUE), result.recall("all boxes")) == (1.0, 0.0)
    unknown = measure_search(shop(with_corner(RED, BLUE), "red"), find(CORNER), mean_colour, SPEC)
    assert TRUE not in unknown.hits


DIMENSIONS = {"identity": 5, "category": 3, "similar": 2}


def objects(rng, count):
    """Space -> unit vectors of so many objects."""
    drawn = {space: rng.normal(size=(count, size)) for space, size in DIMENSIONS.items()}
    return {space: v / np.linalg.norm(v, axis=1, keepdims=True) for space, v in drawn.items()}


def test_the_objects_of_a_policy_are_those_that_serving_would_make():
    rng = np.random.default_rng(0)
    cut = Cut(objects(rng, 1), objects(rng, 3), objects(rng, 0))
    best, all_, catalogued = (
        cut.asked(QueryPolicy(0.3, "best")), cut.asked(QueryPolicy(0.3)), cut.catalogued("both")
    )  # fmt: skip
    for space in DIMENSIONS:
        mixed = 0.7 * cut.boxes[space][0] + 0.3 * cut.whole[space][0]
        assert best[space] == pytest.approx((mixed / np.linalg.norm(mixed))[None])
        assert len(all_[space]) == 3
        expected = np.concatenate([cut.boxes[space][:2], cut.whole[space]])
        assert catalogued[space] == pytest.approx(expected)
    assert cut.asked(QueryPolicy(boxes="whole")) is cut.whole
    empty = Cut(cut.whole, objects(rng, 0), cut.truth)
    for policy in POLICIES.values():
        assert empty.asked(policy) is cut.whole
    assert empty.catalogued("boxes") is cut.whole


def test_scores_are_those_that_ranking_gives():
    """Each pair by the ranking that serves, hubness included."""
    rng = np.random.default_rng(3)
    asked, held, references = objects(rng, 2), objects(rng, 4), objects(rng, 6)
    hubness = Hubness("sha", references["identity"].astype(np.float32), 2, 0.5, 0.1)
    held = {space: vectors.astype(np.float32) for space, vectors in held.items()}
    scores = default_scores(asked, held, hubness)
    for a in range(2):
        for h in range(4):
            candidate = Candidate(
                product_id="p",
                similarity={space: float(asked[space][a] @ held[space][h]) for space in DIMENSIONS},
                identity=held["identity"][h].tobytes(),
            )
            (hit,) = rank(default_config(), [candidate], {"p": Product(id="p")}, 1, hubness=hubness)
            assert scores[a, h] == pytest.approx(hit.score, abs=1e-6)


def test_spaces_that_have_no_default_weight_count_evenly():
    one, other = ({"a": np.eye(2)[[row]], "b": np.eye(2)[[0]]} for row in (0, 1))
    assert default_scores(one, other) == pytest.approx(0.5)


def test_the_hits_equal_a_naive_loop_over_objects():
    rng = np.random.default_rng(1)
    colours, grounds = ([tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(9)] for _ in range(2))
    corners = [Box(*(0.25 * np.array([x, y, x + 2, y + 2]))) for x, y in ((0, 0), (2, 2), (1, 1))]

    def boxes_in(image):
        count = int(np.asarray(image)[0, 0, 0]) % 4
        return [Detection(box, "product", 0.5) for box in corners[:count]]

    photos = [
        Picture(lambda a=a, b=b: with_corner(a, b), frozenset([str(n)]), "odd" if n % 2 else "even")
        for n, (a, b) in enumerate(zip(colours, grounds, strict=True))
    ]
    catalogue = [Picture(lambda c=c: plain(c), frozenset([str(n)])) for n, c in enumerate(colours)]
    result = measure_search(Shop("s", photos, catalogue), boxes_in, mean_colour, SPEC)

    def vectors_of(image, boxes):
        return [
            mean_colour_of(image.crop(tuple(round(v * image.width) for v in box)))
            for box in [detection.box for detection in boxes] or [Box(0, 0, 1, 1)]
        ]

    def mean_colour_of(image):
        vector = (np.asarray(image, np.float32).mean(axis=(0, 1)) - 127) / 128 + 1
        return vector / np.linalg.norm(vector)

    expected = []
    for number, photo in enumerate(photos):
        image = photo.load()
        asked = vectors_of(image, boxes_in(image))
        best = max(
            range(len(catalogue)),
            key=lambda place: max(one @ mean_colour_of(catalogue[place].load()) for one in asked),
        )
        expected.append(best == number)
    assert result.hits["all boxes"]["whole"].tolist() == expected
    assert result.recall("all boxes", "whole", "odd") == pytest.approx(np.mean(expected[1::2]))


def test_the_difference_of_two_policies_has_an_interval():
    hits = {name: dict.fromkeys(CATALOGUES, np.zeros(40, bool)) for name in POLICIES}
    hits["best box"] = dict.fromkeys(CATALOGUES, np.arange(40) < 10)
    result = SearchResult("s", hits, [""] * 40, 1.0)
    value, low, high = result.difference("best box", "all boxes")
    assert (result.best, value) == ("best box", 0.25)
    assert 0 < low < 0.25 < high


def test_drawn_scenes_know_their_products_and_where_they_are():
    first, again = drawn_photos(6), drawn_photos(6)
    assert len(first.catalogue) == 60
    for one, other in zip(first.photos, again.photos, strict=True):
        assert one.load().tobytes() == other.load().tobytes()
        assert one.truth is not None
        assert len(one.products) <= len(one.truth)
        assert one.group in ("one product", "several")


def test_a_scene_s_labels_are_the_cutouts_that_were_drawn():
    """A scene of one flat colour, so that the box shows which cut-out it is."""
    cutouts = [Image.new("RGBA", (40, 40), (*colour, 255)) for colour in (RED, GREEN, BLUE)]
    source = CompositeSource([], cutouts, [])
    for seed in range(8):
        scene = source.draw_named(np.random.default_rng(seed))
        unnamed = source.draw(np.random.default_rng(seed))
        assert unnamed.boxes == pytest.approx(scene.boxes)
        assert not unnamed.labels.any()
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            x, y = ((box[:2] + box[2:]) / 2 * scene.image.size).astype(int)
            if len(scene.boxes) == 1:
                assert int(np.argmax(scene.image.getpixel((int(x), int(y))))) == label


def test_groceries_are_read_by_department(tmp_path):
    folder = tmp_path / "grocery-store"
    folder.mkdir()
    plain(RED).save(folder / "red.png")
    with_corner(RED, BLUE).save(folder / "photo.png")
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "split", "kind", "product", "department", "category"])
        rows.writerow(["red.png", "gallery", "iconic", "red", "Fruit", "c"])
        rows.writerow(["photo.png", "val", "natural", "red", "Fruit", "c"])
    found = grocery_photos(tmp_path)
    assert [(p.products, p.group, p.truth) for p in found.photos] == [(frozenset(["red"]), "Fruit", None)]
    assert len(found.catalogue) == 1
