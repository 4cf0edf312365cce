"""Embedding: all crops of a photo in one run of the model, 1 to 10 objects; the peer runs them one by one."""

from __future__ import annotations

from functools import partial

import numpy as np

from magpie.settings import Settings
from magpie.vision.bundle import Bundle
from magpie.vision.embedder import Embedder
from magpie.vision.preprocess import Pixels
from tests.bench.harness import measure, report


def main() -> None:
    bundle = Bundle.load(Settings.from_environment().bundle)
    size = bundle.embedder_card.input.size
    squares = np.random.default_rng(0).integers(0, 256, (10, size, size, 3), np.uint8)
    rows = []
    for threads in (1, 2):
        embedder = Embedder(bundle.embedder_card, bundle.folder, threads)
        threads_used = f"{threads} thread(s)"
        for count in (1, 3, 5, 10):
            embed = partial(embedder.embed, squares[:count])
            rows.append(measure(f"{count} object(s), {threads_used}", embed, items=count))
        alone = partial(one_by_one, embedder, squares[:5])
        rows.append(measure(f"5 object(s), {threads_used}", alone, items=5, note="peer: one by one"))
    report("embedding", rows, bundle=bundle.id)


def one_by_one(embedder: Embedder, squares: Pixels) -> None:
    for square in squares:
        embedder.embed(square[None])


if __name__ == "__main__":
    main()
