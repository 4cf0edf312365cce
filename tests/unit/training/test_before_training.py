"""What training refuses and what it warns of: each names the file or class and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.tables.problems import BadFile, Problem
from training.datasets.before_training import NAMED, judge
from training.datasets.example import Example
from training.datasets.measured_picture import measure_all
from training.datasets.report import DataReport, report

PICTURES: dict[int, Image.Image] = {}


def picture(seed: int) -> Image.Image:
    """Blots of 8 px, sharp and each its own."""
    if seed not in PICTURES:
        blots = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        PICTURES[seed] = Image.fromarray(blots).resize((128, 128), Image.Resampling.NEAREST)
    return PICTURES[seed]


@pytest.fixture
def shop(tmp_path: Path) -> list[Example]:
    """Three products with a catalogue picture and two photos each, in two categories of one department."""
    examples = []
    for p, category in enumerate(["tea", "tea", "jam"]):
        for n in range(3):
            path = tmp_path / f"{p}-{n}.png"
            picture(10 * p + n).save(path)
            labels = {"category": category, "department": "food"}
            examples.append(Example(path, "shop", f"product-{p}", labels, catalogue=n == 0, split="train"))
    return examples


def more(folder: Path, seed: int, **known: object) -> Example:
    path = folder / f"more-{seed}.png"
    picture(seed).save(path)
    return Example(path, "shop", **known)  # type: ignore[arg-type]


def check(
    examples: Sequence[Example],
    development: Sequence[Example] = (),
    held_out: Sequence[Example] = (),
    **options: object,
) -> DataReport:
    """As a training does: measure, report, judge, refuse."""
    everything = [*examples, *development, *held_out]
    found = report(everything, *measure_all(example.path for example in everything))
    judged = judge(found, examples, development, held_out, **options)  # type: ignore[arg-type]
    if judged.refusals:
        raise BadFile("training data", [Problem(0, text) for text in judged.refusals])
    return judged


def refused(examples: Sequence[Example], development: Sequence[Example] = (), **options: object) -> str:
    with pytest.raises(BadFile) as caught:
        check(examples, development, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_good_data_pass_without_a_word(shop: list[Example]) -> None:
    found = check(shop)
    assert (found.warnings, found.refusals) == ((), ())
    assert found.readable(shop) == shop


def test_unreadable_pictures_are_all_named_or_left_out(shop: list[Example], tmp_path: Path) -> None:
    broken = []
    for n in range(NAMED + 3):
        path = tmp_path / f"broken-{n:02}.jpg"
        path.write_bytes(b"\xff\xd8\xff cut off" if n else b"")
        broken.append(Example(path, "shop", "product-0", {"category": "tea"}))
    message = refused([*shop, *broken])
    assert f"{NAMED + 3} pictures cannot be read" in message
    assert f"{tmp_path / 'broken-00.jpg'}: is empty" in message
    assert str(broken[NAMED - 1].path) in message
    assert str(broken[NAMED].path) not in message
    assert "and 3 more" in message
    assert "`skip_unreadable = true`" in message

    found = check([*shop, *broken], skip_unreadable=True)
    assert found.readable([*shop, *broken]) == shop
    assert [bad.picture for bad in found.unreadable] == [example.path for example in broken]
    assert any("left out that cannot be read" in warning for warning in found.warnings)


def test_a_class_that_unreadable_pictures_leave_empty_is_refused(shop: list[Example], tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    examples = [*shop, Example(path, "shop", None, {"category": "coffee", "department": "food"})]
    message = refused(examples, skip_unreadable=True)
    assert "no picture can be read of `category` coffee" in message
    assert '`without = { category = ["coffee"] }`' in message


def test_a_label_that_no_picture_has_is_refused_with_the_nearest(shop: list[Example]) -> None:
    assert "no picture has the label `categry`" in refused(shop, columns=["categry"])
    assert "did you mean `category`?" in refused(shop, columns=["categry"])


def test_a_label_column_that_is_all_unique_is_refused_if_it_is_used(shop: list[Example]) -> None:
    numbered = [
        Example(e.path, e.dataset, e.product, {**e.labels, "sku": f"sku-{n}"}, e.catalogue)
        for n, e in enumerate(shop)
    ]
    message = refused(numbered)
    assert "label column `sku` of shop has another value for each of its 9 pictures" in message
    assert 'leave it out with `labels = ["category", "department"]`' in message
    found = check(numbered, columns=["category"])
    assert found.warnings == ("label column `sku` of shop is all unique, and not used",)


def test_products_of_one_picture_are_left_out_but_some_need_two(shop: list[Example], tmp_path: Path) -> None:
    lone = more(tmp_path, 99, product="product-9", labels={"category": "tea", "department": "food"})
    (warning,) = check([*shop, lone]).warnings
    assert "1 product of shop with one picture only, left out of the triplets" in warning
    assert "add a photo of product-9" in warning

    catalogue = [example for example in shop if example.catalogue]
    message = refused(catalogue)
    assert "no product has two pictures (3 products of one each, such as `product-0`)" in message
    assert "add photos of them" in message
    check(catalogue, identity=False)


def test_a_category_of_one_picture_is_named(shop: list[Example], tmp_path: Path) -> None:
    lone = more(tmp_path, 99, labels={"category": "coffee", "department": "food"})
    (warning,) = check([*shop, lone]).warnings
    assert warning.startswith("`category` of shop: one picture only of coffee; add pictures")


def test_a_copy_of_a_held_out_picture_is_refused_unless_allowed(shop: list[Example], tmp_path: Path) -> None:
    smaller = tmp_path / "smaller.jpg"
    picture(11).resize((96, 96), Image.Resampling.BOX).save(smaller, quality=70)
    copy = Example(smaller, "shop", "product-1", {"category": "tea", "department": "food"}, split="val")
    other = more(tmp_path, 98, product="product-1", labels=copy.labels)
    for others in ({"development": [copy, other]}, {"held_out": [copy, other]}):
        message = refused(shop, **others)
        assert "1 development" in message or "1 held-out" in message
        assert f"{smaller} = {shop[4].path}" in message
        assert "`development.allow_near_duplicates = true`" in message
        found = check(shop, allow_near_duplicates=True, **others)  # type: ignore[arg-type]
        assert [group.pictures for group in found.near_duplicates] == [(shop[4].path, smaller)]
        assert found.across == found.near_duplicates
    # Copies that are all trained on, or all held out, leak nothing.
    check([*shop, copy])
    check([e for e in shop if e != shop[4]], [shop[4], copy])


def test_the_same_file_on_both_sides_is_refused(shop: list[Example]) -> None:
    assert f"{shop[2].path} = {shop[2].path}" in refused(shop, [shop[2]])


def test_copies_with_different_labels_are_named(shop: list[Example], tmp_path: Path) -> None:
    twin = more(tmp_path, 11, product="product-2", labels={"category": "jam", "department": "food"})
    (warning,) = check([*shop, twin]).warnings
    assert "of 1 photograph there are copies with different labels" in warning
    assert f"{shop[4].path} = {twin.path}" in warning


def test_everything_wrong_is_said_at_once(shop: list[Example], tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    message = refused([*shop, Example(path, "shop", "product-0")], [shop[1]], columns=["brand"])
    assert "3 problems" in message
    for part in ("cannot be read", "no picture has the label `brand`", "development picture"):
        assert part in message


def test_nothing_left_to_train_on_is_refused() -> None:
    assert "no picture is left to train on" in refused([])


def test_the_refusal_is_the_users_to_mend(shop: list[Example]) -> None:
    with pytest.raises(InvalidArgument):
        check(shop, columns=["brand"])
