"""The hash model as a part of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magpie.errors import FailedPrecondition
from magpie.index.hash_card import HashCard
from magpie.index.hash_model import CARD, HashModel
from magpie.vision.bundle import MANIFEST, Bundle


def put_in_bundle(
    folder: Path, model: HashModel, training_data: Sequence[str], report: Mapping[str, Any]
) -> HashCard:
    """Write hash.npz and its card into the bundle, then name the card in its manifest.

    The card keeps of the report's table what was measured at the bits of the model, and the best at others.
    Killed at any moment, the bundle is either what it was or refused, never half of each. Raises
    FailedPrecondition if `folder` holds no bundle, or one whose embedder has other spaces.
    """
    bundle = Bundle.load(folder)
    for space, coder in model.coders.items():
        check_space(bundle, space, coder.card.dimension)
    rows = [row for row in report["table"] if row["best"] or row["at_bits_kept"]]
    card = model.save(folder, bundle.embedder_card.sha256, training_data, rows)
    path = folder / MANIFEST
    manifest = {**json.loads(path.read_text()), "hash": CARD}
    part = path.with_name(f"{MANIFEST}.part")
    part.write_text(json.dumps(manifest, indent=2) + "\n")
    part.replace(path)
    return card


def check_space(bundle: Bundle, space: str, dimension: int) -> None:
    """Raises FailedPrecondition unless the bundle's embedder has the space, of this dimension."""
    known = bundle.embedder_card.spaces
    if known.get(space) != dimension:
        raise FailedPrecondition(
            f"a coder is for space {space} of {dimension} dimensions, the bundle {bundle.id} has {known}"
        )
