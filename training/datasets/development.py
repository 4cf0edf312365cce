"""Parts of the training pictures that no training sees: a development split, and products left out whole.

The reported split is for reporting. What is tuned (rates, epochs, thresholds) is tuned on a development split
that is carved out of the training pictures here, and what a model does with products that it has never seen
is measured on products that left the training pictures with all they have.

Who goes where follows from a hash of names and the seed, not from the order of the files or the number of
them: another picture changes the side of a few others at most.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from magpie.errors import InvalidArgument
from training.datasets.example import Example

MIN_TRAINING = 2  # pictures of a product or category that stay: a pair to learn from
_STRATA = ("category", "label")  # label columns, the first that a picture without a product has

Stratum = tuple[str, ...]


def split_development(
    examples: Sequence[Example],
    share: float,
    seed: int,
    alike: Mapping[Path, str] | None = None,
    visits: Mapping[Path, str] | None = None,
) -> tuple[list[Example], list[Example]]:
    """(train, dev), each in the order given: about `share` of the photos of every product go to dev.

    Catalogue pictures stay in train, and so do MIN_TRAINING pictures of every product. Photos of one source,
    or of one visit where no source is named (`visits`, see there), go to the same side. Pictures without a
    product are divided per category, those of one source all to the same side: dev then measures new people.
    `alike` names the groups of near-duplicates (`near_duplicates.alike`), which are not torn apart.
    Raises InvalidArgument if `share` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise InvalidArgument("development", f"the share must lie in [0, 1), got {share}")
    alike, visits = alike or {}, visits or {}
    chosen = set[Path]()
    if share > 0:
        chosen |= _photos_of_products(
            [e for e in examples if e.product is not None], share, seed, {**alike, **visits}
        )
        chosen |= _whole_sources([e for e in examples if e.product is None], share, seed, alike)
        torn = {alike[e.path] for e in examples if e.path in alike and e.path not in chosen}
        chosen = {path for path in chosen if alike.get(path) not in torn}
    train = [example for example in examples if example.path not in chosen]
    return train, [example for example in examples if example.path in chosen]


def leave_out_products(
    examples: Sequence[Example], count: int, seed: int
) -> tuple[list[Example], list[Example], tuple[str, ...]]:
    """(kept, left out, names of the products left out): `count` products, with every picture of theirs.

    Raises InvalidArgument if no product would be left.
    """
    products = sorted({example.product for example in examples if example.product is not None})
    if not 0 <= count < max(len(products), 1):
        raise InvalidArgument(
            "leave_out_products", f"must be less than the number of products, {len(products)}; got {count}"
        )
    order = np.random.default_rng(seed).permutation(len(products))
    names = {products[row] for row in order[:count]}
    kept = [example for example in examples if example.product not in names]
    return kept, [example for example in examples if example.product in names], tuple(sorted(names))


def _photos_of_products(
    examples: Sequence[Example], share: float, seed: int, together: Mapping[Path, str]
) -> set[Path]:
    """Of each product the photos or visits with the lowest hashes, as many as bring dev near its share."""
    products = defaultdict[tuple[str, str | None], list[Example]](list)
    for example in examples:
        products[example.dataset, example.product].append(example)
    chosen = set[Path]()
    for (dataset, product), pictures in products.items():
        photos = [example for example in pictures if not example.catalogue]
        # Rounded up or down by the product's own hash, so that small products add up to `share`.
        room = int(share * len(photos) + _place(seed, dataset, product))
        spare = len(pictures) - MIN_TRAINING
        room = min(room, spare)
        units = defaultdict[tuple[str, str], list[Path]](list)
        for example in sorted(photos, key=lambda e: str(e.path)):
            # Files of one name (in several folders) share a place; the group's or path's order decides.
            group = example.source or together.get(example.path, "")
            units[(group, "") if group else (example.path.name, str(example.path))].append(example.path)
        for _, unit in sorted(units.items(), key=lambda item: _place(seed, dataset, product, item[0][0])):
            if abs(room - len(unit)) < room and len(unit) <= spare:
                chosen.update(unit)
                room, spare = room - len(unit), spare - len(unit)
    return chosen


def _whole_sources(
    examples: Sequence[Example], share: float, seed: int, alike: Mapping[Path, str]
) -> set[Path]:
    """Sources in the order of their hashes, each taken if it brings the categories nearer to their shares."""
    units = defaultdict[tuple[str, str, str], list[Example]](list)
    for example in sorted(examples, key=lambda e: str(e.path)):
        if not example.catalogue:
            name = example.source or alike.get(example.path) or example.path.name
            whole = "" if example.source or example.path in alike else str(example.path)
            units[example.dataset, name, whole].append(example)
    total = Counter(_stratum(example) for example in examples)
    lacking = {stratum: share * count for stratum, count in total.items()}  # pictures that dev still wants
    left = dict(total)  # pictures that train still has
    chosen = set[Path]()
    for _, unit in sorted(units.items(), key=lambda item: _place(seed, *item[0][:2])):
        counts = Counter(_stratum(example) for example in unit)
        gain = sum(abs(lacking[s]) - abs(lacking[s] - n) for s, n in counts.items())
        if gain > 0 and all(left[s] - n >= MIN_TRAINING for s, n in counts.items()):
            chosen.update(example.path for example in unit)
            for stratum, count in counts.items():
                lacking[stratum] -= count
                left[stratum] -= count
    return chosen


def _stratum(example: Example) -> Stratum:
    for column in _STRATA:
        if column in example.labels:
            return (example.dataset, column, example.labels[column])
    return (example.dataset, *(text for item in sorted(example.labels.items()) for text in item))


def _place(seed: int, *names: str | None) -> float:
    """A number in [0, 1) that is as good as drawn, and always the same for the same names."""
    text = "\0".join([str(seed), *(name or "" for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
