"""`python -m tests.bench.index`: indexes beside each other, at several sizes, under filters, written to.

What is done is not done again: .bench/index has a file for each engine and size, which says of which code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tests.bench.harness import OUT, machine
from tests.bench.index import page
from tests.bench.index.clustered_vectors import OBJECTS
from tests.bench.index.collection import make
from tests.bench.index.registry import SUBJECTS
from tests.bench.index.subject import Subject
from tests.bench.own_services import own_aws, own_redis

SIZES = (10_000, 100_000, 1_000_000)
RESULTS = OUT / "index"
SERVERS = {  # name -> the option that its URL is, and what starts it
    "redis": ("--redis", own_redis),
    "search": ("--redis", partial(own_redis, search=True)),
    "aws": ("--aws", own_aws),
}
BENCH = Path(__file__).parent
NOT_MEASURING = ("page.py", "__main__.py")
console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(word.replace("_", "")) for word in value.split(","))
    except ValueError as error:
        raise click.BadParameter("numbers of objects with commas between, such as 10000,100000") from error
    if min(sizes) < OBJECTS * OBJECTS:
        raise click.BadParameter(f"at least {OBJECTS * OBJECTS} objects")
    return sizes


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise click.BadParameter(f"no engine is called {', '.join(unknown)}: there are {', '.join(SUBJECTS)}")
    return names


@click.command(
    epilog="Example: python -m tests.bench.index --sizes 10000,100000 --engines compact,faiss-flat"
)
@click.option(
    "--sizes", callback=_numbers, default=",".join(map(str, SIZES)), show_default=True, help="Objects."
)
@click.option("--engines", callback=_names, default=",".join(SUBJECTS), show_default=True)
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of searching, for each figure.")
@click.option(
    "--patience",
    type=float,
    default=200.0,
    show_default=True,
    help="Leave an engine out where building would take more seconds, at the rate of the size before.",
)
@click.option("--again", is_flag=True, help="Measure also what is done.")
@click.option("--keep", is_flag=True, help="Keep the vectors in .bench.")
def main(
    sizes: Sequence[int], engines: Sequence[str], seconds: float, patience: float, again: bool, keep: bool
) -> None:
    """Measure, print the table; after a whole run also write docs/index-benchmark.md and its chart."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and folders go with it
    begin = time.perf_counter()
    for size in sizes:
        _measure(size, [SUBJECTS[name] for name in engines], seconds, patience, again, keep)
    results = [_done(SUBJECTS[name], size) for size in sizes for name in engines]
    page.print_table(console, [result for result in results if result is not None])
    everything = [
        _done(subject, size) for size in SIZES for subject in SUBJECTS.values() if _wanted(subject, size)
    ]
    if None in everything:
        console.print(f"{page.PAGE} stays as it is: it is written once all engines and sizes are measured.")
    else:
        page.write([result for result in everything if result is not None])
        console.print(f"Wrote {page.PAGE} and {page.CHART}.")
    console.print(f"{time.perf_counter() - begin:.0f} s")


def _measure(
    size: int, subjects: Sequence[type[Subject]], seconds: float, patience: float, again: bool, keep: bool
) -> None:
    waiting = []
    for subject in subjects:
        done, expected = _done(subject, size), _expected(subject, size)
        if not _wanted(subject, size):
            console.print(f"{subject.name}, {size:,}: not measured beyond {subject.largest:,} objects")
        elif done and "left_out" not in done and not again:
            console.print(f"{subject.name}, {size:,}: done before")
        elif expected > patience:
            reason = f"left out: building would take {expected / 60:.0f} minutes or more"
            console.print(page.summary(_write(subject, size, {"left_out": reason})))
        else:
            waiting.append(subject)
    if not waiting:
        return
    folder = OUT / f"vectors-{size}"
    try:
        with console.status(f"{size:,} objects") as status:
            make(folder, size, tell=lambda step: status.update(f"{size:,} objects: {step}"))
            for subject in waiting:
                outcome = _trial(subject, folder, seconds, status.update)
                console.print(page.summary(_write(subject, size, outcome)))
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _trial(subject: type[Subject], collection: Path, seconds: float, tell: Any) -> dict[str, Any]:
    folder = OUT / f"index-of-{subject.name}"
    shutil.rmtree(folder, ignore_errors=True)
    phases = ("build", "serve", "compact") if subject.compacts else ("build", "serve")
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        options = []
        for option, server in map(SERVERS.__getitem__, subject.needs):
            options += [option, stack.enter_context(server())]
        for phase in phases:
            tell(f"{subject.name}, {collection.name}: {phase}")
            command = [phase, subject.name, str(collection), str(folder), *options, "--seconds", str(seconds)]
            figures |= _in_its_own_process(command)
    return figures


def _in_its_own_process(command: Sequence[str]) -> dict[str, Any]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.index.on_one_core", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **threads},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed, see above")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _wanted(subject: type[Subject], size: int) -> bool:
    return subject.largest is None or size <= subject.largest


def _expected(subject: type[Subject], size: int) -> float:
    """Seconds of building, from the largest size below that is done; 0 where there is none."""
    smaller = [_done(subject, other) for other in SIZES if other < size]
    rates = [result["objects"] / result["build_s"] for result in smaller if result and "build_s" in result]
    return size / rates[-1] if rates else 0.0


def _path(subject: type[Subject], size: int) -> Path:
    return RESULTS / f"{subject.name}-{size}.json"


def _write(subject: type[Subject], size: int, outcome: dict[str, Any]) -> dict[str, Any]:
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {
        "engine": subject.name,
        "parameters": subject.parameters,
        "version": subject.version(),
        "objects": size - size % OBJECTS,
        **outcome,
        "code": _code(subject),
        "machine": machine(),
    }
    _path(subject, size).write_text(json.dumps(result, indent=2) + "\n")
    return result


def _done(subject: type[Subject], size: int) -> dict[str, Any] | None:
    """The figures, if they are of this code."""
    path = _path(subject, size)
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result if result["code"] == _code(subject) else None


def _code(subject: type[Subject]) -> str:
    """A digest of what is measured and of what measures."""
    files = [path for path in BENCH.glob("*.py") if path.name not in NOT_MEASURING]
    files += [
        path
        for source in subject.sources
        for path in Path(source).rglob("*.*")
        if path.suffix in (".py", ".lua")
    ]
    digest = hashlib.sha256(subject.version().encode())
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
