"""Imports run one way. This walks them (not by importing: by reading) and holds the rule.

functions, local -> bootstrap -> changeover -> services -> rpc, store, index, vision, ranking, ingest,
evaluation, synthesis -> domain. Training takes its part of the library and meets no function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "shared" / "magpie"

# What nothing else may lie below: the value types and the errors.
DOMAIN = {"magpie.errors", "magpie.geometry", "magpie.v1"}
ROOMS = (
    "rpc", "store", "index", "vision", "ranking", "duplicates", "ingest", "probe", "evaluation", "synthesis",
    "tables",
)  # fmt: skip
ADAPTERS = {f"magpie.{room}" for room in ROOMS}
# Each room, and what of ours it may import besides itself.
ALLOWED = {
    "magpie.errors": set(),
    "magpie.geometry": {"magpie.errors"},
    "magpie.settings": {"magpie.errors"},
    "magpie.v1": set(),
    **dict.fromkeys(ADAPTERS, DOMAIN | ADAPTERS),
    "magpie.services": DOMAIN | ADAPTERS,
    "magpie.changeover": DOMAIN | ADAPTERS | {"magpie.services"},
    "magpie.telemetry": {"magpie.errors", "magpie.rpc"},
    "magpie.bootstrap": DOMAIN
    | ADAPTERS
    | {"magpie.services", "magpie.changeover", "magpie.settings", "magpie.telemetry"},
    "functions": {"magpie.bootstrap", "magpie.errors", "magpie.settings"},
    "local": {"magpie", "functions"},
    "training": {"magpie.errors", "magpie.geometry", "magpie.vision", "magpie.ranking", "magpie.synthesis"}
    | {"magpie.evaluation", "magpie.index", "magpie.settings", "magpie.tables", "magpie.v1"},
    "layer": set(),
}
# The pure rooms: arithmetic on values, no AWS, no Redis, no gRPC.
PURE_ROOMS = ("geometry", "errors", "ranking", "duplicates", "evaluation", "synthesis", "tables")
PURE = tuple(f"magpie.{room}" for room in PURE_ROOMS)
OUTSIDE_WORLD = {"boto3", "botocore", "redis", "grpc", "connectrpc", "aws_lambda_powertools", "onnxruntime"}
TRAIN_ONLY = {"torch", "torchvision", "pytorch_metric_learning", "efficientnet_lite_pytorch", "onnx"}


def module_of(path: Path) -> str:
    """Dotted name of a file: shared/magpie/vision/nms.py -> magpie.vision.nms."""
    base = LIBRARY.parent if path.is_relative_to(LIBRARY) else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


def sources() -> list[Path]:
    """Every Python file that ships, generated code aside."""
    folders = (LIBRARY, ROOT / "functions", ROOT / "local", ROOT / "training", ROOT / "layer")
    return sorted(
        path for folder in folders for path in folder.rglob("*.py") if path.parent != LIBRARY / "v1"
    )


def imports(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            # The name may be a module or something in one: either way it lies in the right room.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lies_in(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> str:
    return next(room for room in ALLOWED if lies_in(module, room))


def ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in ("magpie", "functions", "local", "training", "tests", "layer")


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    module = module_of(path)
    if module in ("magpie", "functions"):
        assert not any(ours(name) for name in imports(path))
        return
    room = room_of(module)
    for name in imports(path):
        if ours(name):
            below = any(lies_in(name, allowed) for allowed in ALLOWED[room] | {room})
            assert below, f"{module} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_only_training_imports_torch_and_what_belongs_to_it(path: Path) -> None:
    if not lies_in(module_of(path), "training"):
        assert not TRAIN_ONLY & {name.split(".")[0] for name in imports(path)}


PURE_SOURCES = [path for path in sources() if module_of(path).startswith(PURE)]


@pytest.mark.parametrize("path", PURE_SOURCES, ids=module_of)
def test_pure_rooms_know_no_outside_world(path: Path) -> None:
    assert not OUTSIDE_WORLD & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=module_of)
def test_only_settings_reads_the_environment(path: Path) -> None:
    names = set(imports(path))
    reads = {"os.environ", "os.getenv"} & names or any(
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        for node in ast.walk(ast.parse(path.read_text()))
    )
    assert bool(reads) == (module_of(path) == "magpie.settings")


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_no_module_is_named_for_nothing(path: Path) -> None:
    assert path.stem not in ("utils", "util", "common", "helpers", "helper", "misc", "manager")


def test_the_walk_sees_imports_in_every_form(tmp_path: Path) -> None:
    source = tmp_path / "sample.py"
    source.write_text(
        "import a.b\nfrom c.d import e\ndef f():\n    import g\nif TYPE_CHECKING:\n    from h import i\n"
    )
    assert sorted(imports(source)) == ["a.b", "c.d.e", "g", "h.i"]
