"""`python -m tests.bench [NAME ...]`: each bench in a process of its own, so that memory is its own."""

from __future__ import annotations

import subprocess
import sys

BENCHES = ("decode", "detection", "embedding", "search", "codes", "reranking", "end_to_end", "ingest")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench is called {', '.join(unknown)}: there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    failed = [
        name
        for name in names or BENCHES
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
