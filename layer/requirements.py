"""Print the runtime dependencies of a pyproject.toml: the Lambda layer holds exactly these."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    sys.stdout.write("\n".join(project["dependencies"]) + "\n")
