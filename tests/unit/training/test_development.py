"""The development split and the products left out: who goes where, and that it stays so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from magpie.errors import InvalidArgument
from training.datasets.development import MIN_TRAINING, leave_out_products, split_development
from training.datasets.example import Example


def shop(products: int = 30, photos: int = 20) -> list[Example]:
    """`photos` photos and one catalogue picture of each product."""
    return [
        Example(Path(f"/pictures/{p}/{n}.jpg"), "shop", f"product-{p}", {"category": "tea"}, catalogue=n == 0)
        for p in range(products)
        for n in range(photos + 1)
    ]


def people(senders: int = 200, pictures: int = 5) -> list[Example]:
    """Photos of two categories without products; `pictures` of each sender."""
    return [
        Example(
            Path(f"/people/{s}-{n}.jpg"),
            "people",
            labels={"category": "hat" if (s + n) % 4 == 0 else "shoe"},
            source=f"sender-{s}",
        )
        for s in range(senders)
        for n in range(pictures)
    ]


def test_every_product_gives_its_share_and_keeps_its_catalogue_pictures() -> None:
    examples = shop()
    train, dev = split_development(examples, 0.15, seed=3)
    assert sorted(train + dev, key=lambda e: e.path) == sorted(examples, key=lambda e: e.path)
    assert not any(example.catalogue for example in dev)
    assert set(Counter(example.product for example in dev).values()) == {3}  # .15 of 20
    assert split_development(list(reversed(examples)), 0.15, seed=3)[1] == list(reversed(dev))
    assert split_development(examples, 0.15, seed=4)[1] != dev
    assert split_development(examples, 0.0, seed=3) == (examples, [])


def test_small_products_add_up_to_the_share() -> None:
    examples = shop(products=400, photos=4)
    dev = split_development(examples, 0.1, seed=0)[1]
    assert len(dev) == pytest.approx(0.1 * 4 * 400, rel=0.2)
    assert max(Counter(example.product for example in dev).values()) == 1


@pytest.mark.parametrize("photos", [1, 2, 3])
def test_a_product_keeps_a_pair_to_learn_from(photos: int) -> None:
    train, dev = split_development(shop(photos=photos), 0.9, seed=0)
    assert min(Counter(example.product for example in train).values()) >= min(MIN_TRAINING, photos + 1)
    assert bool(dev) == (photos > 1)


def test_another_picture_moves_at_most_one_other() -> None:
    examples = shop()
    before = {example.path for example in split_development(examples, 0.15, seed=1)[1]}
    more = [*examples, Example(Path("/pictures/7/new.jpg"), "shop", "product-7", {"category": "tea"})]
    after = {example.path for example in split_development(more, 0.15, seed=1)[1]}
    assert len(before ^ after) <= 2
    assert all("/7/" in str(path) for path in before ^ after)


def test_where_the_pictures_lie_does_not_matter() -> None:
    examples = shop()
    moved = [
        Example(
            Path("/elsewhere") / e.path.relative_to("/pictures"), "shop", e.product, e.labels, e.catalogue
        )
        for e in examples
    ]
    names = [[e.path.parts[-2:] for e in split_development(s, 0.2, seed=5)[1]] for s in (examples, moved)]
    assert names[0] == names[1]


def test_sources_stay_whole_and_categories_get_their_share() -> None:
    examples = people()
    train, dev = split_development(examples, 0.2, seed=0)
    assert not {e.source for e in train} & {e.source for e in dev}
    total, given = (Counter(e.labels["category"] for e in part) for part in (examples, dev))
    for category, count in total.items():
        assert given[category] == pytest.approx(0.2 * count, abs=5)


def test_a_source_with_most_of_the_pictures_stays_in_train() -> None:
    examples = [
        Example(Path(f"/p/{n}.jpg"), "d", labels={"label": "hat"}, source="agency" if n < 90 else f"s{n}")
        for n in range(100)
    ]
    dev = split_development(examples, 0.05, seed=0)[1]
    assert len(dev) == 5
    assert "agency" not in {example.source for example in dev}


def test_near_duplicates_are_not_torn_apart() -> None:
    examples = shop()
    alike = {e.path: f"group-{e.product}-{int(e.path.stem) // 3}" for e in examples if not e.catalogue}
    train, dev = split_development(examples, 0.3, seed=0, alike=alike)
    assert dev
    assert not {alike.get(e.path) for e in train} & {alike[e.path] for e in dev}


def test_left_out_products_take_all_their_pictures_with_them() -> None:
    examples = shop()
    kept, out, names = leave_out_products(examples, 7, seed=2)
    assert len(set(names)) == 7
    assert {e.product for e in out} == set(names)
    assert len(out) == 7 * 21
    assert len(kept) == 23 * 21
    assert sum(e.catalogue for e in out) == 7
    assert leave_out_products(list(reversed(examples)), 7, seed=2)[2] == names
    assert leave_out_products(examples, 7, seed=3)[2] != names
    assert leave_out_products(examples, 0, seed=2) == (examples, [], ())


def test_shares_and_counts_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"share must lie in \[0, 1\), got 1"):
        split_development(shop(), 1.0, seed=0)
    with pytest.raises(InvalidArgument, match="number of products, 30; got 30"):
        leave_out_products(shop(), 30, seed=0)
