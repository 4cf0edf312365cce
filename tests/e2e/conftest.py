"""A whole local system, and a shop to put into it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magpie.synthesis.backgrounds import background
from magpie.synthesis.products import FAMILIES, render
from magpie.synthesis.scene import SceneStyle, compose

ROOT = Path(__file__).parents[2]
# Gentle enough that a product is known again by any sound model.
GENTLE = SceneStyle(extent=(0.6, 0.8), rotation=5, perspective=0.03, light=0.1, cast=0.03, blur=0.3, noise=2)
# Compaction rounds vectors, which moves scores in the fourth digit: not while a test compares two answers.
COMPACTS_WHEN_TOLD = {"MAGPIE_COMPACT_SECONDS": "86400"}


@dataclass(frozen=True)
class LocalSystem:
    """Runs `magpie` commands against one home."""

    home: Path

    def run(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The finished command, whatever came of it."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            input=stdin,
            check=False,
            env=os.environ | COMPACTS_WHEN_TOLD,
        )

    def json(self, *arguments: str | Path, stdin: str = "") -> Any:
        """The answer of a command that must succeed."""
        result = self.run(*arguments, "--json", stdin=stdin)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A command that goes on while the test does something else."""
        return subprocess.Popen(
            self.command(*arguments, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def command(self, *arguments: str | Path) -> list[str]:
        """Its words."""
        return [sys.executable, "-m", "local.cli", "--home", str(self.home), *map(str, arguments)]

    def pids(self) -> dict[str, int]:
        """Process -> pid."""
        return {process["name"]: process["pid"] for process in self.json("status")["processes"]}

    def hits(self, photo: Path, customer: str, *arguments: str) -> list[str]:
        """Product ids of the first object's hits, best first."""
        found = self.json("search", photo, "--customer", customer, *arguments)
        return [hit["product_id"] for hit in found["objects"][0]["hits"]]


@pytest.fixture(scope="session")
def local_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """Up for all tests of the session, down and with nothing left behind after it."""
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT / "shared"), str(ROOT)))
    os.environ.pop("MAGPIE_REDIS_URL", None)
    system = LocalSystem(tmp_path_factory.mktemp("home"))
    system.json("up")
    yield system
    pids = system.pids()
    system.json("down")
    assert all(pid is not None for pid in pids.values())
    assert all(pid is None for pid in system.pids().values())


@dataclass(frozen=True)
class Shop:
    """A catalogue on disk; product ids are `FAMILY-SEED`."""

    catalogue: Path
    products: list[str]

    def photo(self, product_id: str) -> Path:
        """A phone photo of a product, as its file."""
        family, _, seed = product_id.rpartition("-")
        rng = np.random.default_rng(int(seed))
        path = self.catalogue.parent / f"photo-{product_id}.jpg"
        ground = background(rng, 640, 480)
        compose(rng, [render(family, int(seed))], ground, GENTLE).image.save(path, quality=90)
        return path


def make_shop(folder: Path, products: int, first_seed: int = 0) -> Shop:
    """Rendered products on white, with prices that grow from 10 by 1."""
    families = sorted(FAMILIES)
    ids = []
    with (folder / "catalogue.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["product_id", "image", "title", "category", "price", "colourful"])
        for number in range(products):
            family, seed = families[number % len(families)], first_seed + number
            ids.append(f"{family}-{seed}")
            picture = Image.new("RGB", (256, 256), "white")
            cutout = render(family, seed)
            picture.paste(cutout, mask=cutout.getchannel("A"))
            picture.save(folder / f"{ids[-1]}.jpg", quality=92)
            rows.writerow([ids[-1], f"{ids[-1]}.jpg", f"{family} {seed}", family, 10 + number, "true"])
    return Shop(folder / "catalogue.csv", ids)
