"""A bundle with another detector: all else stays as it is in the bundle that it comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import MANIFEST, Bundle
from training.detection.export import CARD, export_detector

RECORD = "release.json"  # of the base's own release: the new bundle has none yet


def assemble(
    run_dir: Path, root: Path, base: Path, out: Path, *, name: str, version: str, teacher: Path | None = None
) -> dict[str, Any]:
    """Write a bundle to `out`, which appears whole or not at all; the detector's parity report.

    Raises FailedPrecondition if `out` exists or its name and version are those of `base`.
    """
    old = Bundle.load(base)
    if out.exists():
        raise FailedPrecondition(f"{out} exists already: choose another folder, or remove it")
    if f"{name}@{version}" == old.id:
        raise FailedPrecondition(
            f"{old.id} is the bundle that the embedder is taken from: objects of two detectors must not bear "
            "one name; choose another --version"
        )
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(base, partial)
    for path in (*partial.glob("detector.*"), partial / RECORD):
        path.unlink(missing_ok=True)
    report = export_detector(run_dir, root, partial, version, teacher=teacher)
    manifest = json.loads((partial / MANIFEST).read_text())
    manifest |= {"name": name, "version": version, "detector": CARD}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    Bundle.load(partial)
    partial.replace(out)
    return report
