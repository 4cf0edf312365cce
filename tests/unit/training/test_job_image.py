"""training/Dockerfile, read instruction by instruction, since an image takes an engine to build.

What it copies is copied here, too, and the job's entry point is started from the copy alone.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def instructions() -> list[tuple[str, str]]:
    """(instruction, argument) of every line, continuations joined and comments left out."""
    text = (ROOT / "training" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], " ".join(line.split(maxsplit=1)[1].split())) for line in lines]


def of(kind: str) -> list[str]:
    return [argument for instruction, argument in instructions() if instruction == kind]


def copied() -> list[tuple[str, str]]:
    """(source, target) of everything that is copied."""
    pairs = []
    for argument in of("COPY"):
        *sources, target = shlex.split(argument)
        assert len(sources) == 1 or target.endswith("/")
        pairs += [(source, target + source if target.endswith("/") else target) for source in sources]
    return pairs


def ignored(path: str) -> bool:
    """By .dockerignore: the last pattern that matches the path or a folder above it decides."""
    decision = False
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        names = [pattern, pattern.removeprefix("**/"), "*/" + pattern.removeprefix("**/")]
        wanted = names if pattern.startswith("**/") else [pattern]
        if any(fnmatch.fnmatchcase(name, one) for name in above for one in wanted):
            decision = not line.startswith("!")
    return decision


def test_the_base_is_pinned_and_runs_the_python_that_the_package_supports() -> None:
    (base,) = of("FROM")
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
    assert version
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = re.findall(r"3\.(\d+)", required)
    assert version[1] == "3"
    assert int(low) <= int(version[2]) < int(high)


def test_torch_is_the_one_that_the_tests_run_on_and_the_rest_is_constrained() -> None:
    (torch,) = of("ARG")
    chosen = re.search(r"^TORCH \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert chosen
    assert torch == f"TORCH={chosen[1]}"
    installs = [line for line in of("RUN") if "pip install" in line]
    assert installs[0] == "pip install ${TORCH}"
    assert all("--constraint constraints.txt" in line for line in installs[1:])


def test_it_runs_as_nobody_in_particular_and_starts_the_job() -> None:
    users = [i for i, (instruction, _) in enumerate(instructions()) if instruction == "USER"]
    assert len(users) == 1
    assert instructions()[users[0]][1] not in ("root", "0")
    # Nothing is installed or copied after it: the code is not the job's to write.
    assert not {"RUN", "COPY", "ADD"} & {instruction for instruction, _ in instructions()[users[0] :]}
    assert of("ENTRYPOINT") == ['["python", "-m", "training.job.entry"]']
    assert not of("ADD")


@pytest.mark.parametrize("source", [source for source, _ in copied()])
def test_what_is_copied_is_there_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert not ignored(source)


def test_nothing_else_goes_to_the_engine() -> None:
    kept = {path.name for path in ROOT.iterdir() if not ignored(path.name)}
    assert kept <= {source.split("/")[0] for source, _ in copied()}
    for path in (
        ".venv/bin/python",
        ".training/run/checkpoint.pt",
        "photos/juice.jpg",
        "shared/magpie/__pycache__",
    ):
        assert ignored(path), path
    assert not ignored("training/job/entry.py")
    assert not ignored("shared/magpie/errors.py")


def test_the_entry_point_runs_from_what_is_copied(tmp_path: Path) -> None:
    for source, target in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
    # The checkout is on the path of this Python, too: what came from it, or from a room that is not copied,
    # shows in where the modules lie.
    script = (
        "import sys, runpy\n"
        "sys.argv = ['entry', '--help']\n"
        "try: runpy.run_module('training.job.entry', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "import training.job.trainer\n"
        "ours = {n: m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in\n"
        "        ('magpie', 'training', 'local', 'functions') and getattr(m, '__file__', None)}\n"
        "assert ours\n"
        "wrong = {n: f for n, f in ours.items() if not f.startswith(sys.path[0])}\n"
        "assert not wrong, wrong\n"
    )
    path = f"{tmp_path}:{tmp_path / 'shared'}"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path[:0] = {path.split(':')!r}\n{script}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "--run s3://..." in answer.stdout
