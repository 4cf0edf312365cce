"""A bundle with another detector: all else stays as it is in the bundle that it comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from magpie.vision.bundle import MANIFEST, Bundle
from training.detection.export import CARD, export_detector
from training.new_bundle import new_bundle

RECORD = "release.json"  # of the base's own release: the new bundle has none yet


def assemble(
    run_dir: Path, root: Path, base: Path, out: Path, *, name: str, version: str, teacher: Path | None = None
) -> dict[str, Any]:
    """Write a bundle to `out`, which appears whole or not at all; the detector's parity report.

    Raises FailedPrecondition if `out` exists or its name and version are those of `base`.
    """
    old = Bundle.load(base)
    made = "objects of two detectors"
    with new_bundle(old, out, f"{name}@{version}", taken="embedder", made=made) as partial:
        shutil.copytree(base, partial, dirs_exist_ok=True)
        for path in (*partial.glob("detector.*"), partial / RECORD):
            path.unlink(missing_ok=True)
        report = export_detector(run_dir, root, partial, version, teacher=teacher)
        manifest = json.loads((partial / MANIFEST).read_text())
        manifest |= {"name": name, "version": version, "detector": CARD}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return report
