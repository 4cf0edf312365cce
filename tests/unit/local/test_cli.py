"""The command line without a running system: help, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "up",
    "down",
    "status",
    "index",
    "search",
    "similar",
    "attributes",
    "evaluate",
    "duplicates",
    "config",
    "delete",
    "key",
    "parked",
    "probe",
    "replay",
    "compact",
    "change-over",
]


def magpie(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local.cli", *map(str, arguments)]
    root = Path(__file__).parents[3]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": "", "PYTHONPATH": f"{root / 'shared'}:{root}"},
        check=False,
    )


def test_help_shows_every_command_and_each_shows_examples() -> None:
    overview = magpie("--help")
    assert overview.returncode == 0
    for command in COMMANDS:
        assert command in overview.stdout
        one = magpie(command, "--help")
        assert one.returncode == 0
        assert "Examples:" in one.stdout, command
        assert f"magpie {command}" in one.stdout.partition("Examples:")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["search"],
        ["probe", "--last", "0"],
        ["probe", "--queries", __file__],
        ["search", __file__],
        ["search", __file__, "--customer", "My Shop"],
        ["search", __file__, "--customer", "c", "--box", "0,0,1"],
        ["search", __file__, "--customer", "c", "--box", "0.5,0,0.2,1"],
        ["search", __file__, "--customer", "c", "-k", "0"],
        ["search", "--customer", "c"],
        ["search", __file__, "--customer", "c", "--page", "token"],
        ["search", "--customer", "c", "--page", "token", "-k", "3"],
        ["search", __file__, "--customer", "c", "--weight", "similar"],
        ["similar", "--customer", "c"],
        ["index", "no-such-file.csv", "--customer", "c"],
        ["index", "migrate"],
        ["index", "migrate", "--to", "nowhere"],
        ["index", "migrate", "--to", "redis", "--drop"],
        ["duplicates"],
        ["duplicates", "--customer", "c", "--kind", "near"],
        ["duplicates", "--customer", "c", "--min-probability", "1"],
    ],
)
def test_what_is_not_understood_exits_with_2(arguments: list[str]) -> None:
    result = magpie(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")


def test_index_migrate_stands_beside_index() -> None:
    one = magpie("index", "migrate", "--help")
    assert one.returncode == 0
    assert "magpie index migrate --to redis" in one.stdout.partition("Examples:")[2]
    assert "magpie index migrate" in magpie("index", "--help").stdout


def test_without_a_running_system(tmp_path: Path) -> None:
    result = magpie("search", __file__, "--customer", "c", "--home", tmp_path, "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "magpie up" in result.stderr
    assert str(tmp_path) in result.stderr


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["up", "--home", "file/home"], "file/home"),
        (["status", "--home", "file/home"], "file/home/run.json"),
    ],
)
def test_a_path_that_cannot_be_is_named(arguments: list[str], made: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = magpie(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {made}: Not a directory\n"


def test_the_home_may_stand_before_or_after_the_command(tmp_path: Path) -> None:
    for arguments in (("--home", tmp_path, "status", "--json"), ("status", "--home", tmp_path, "--json")):
        answer = json.loads(magpie(*arguments).stdout)
        assert answer == {
            "home": str(tmp_path),
            "running": False,
            "processes": [],
            "queues": {},
            "indexes": [],
        }


def test_problems_of_a_catalogue_come_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("product_id,image,price\np,none.jpg,cheap\n,none.jpg,1\n")
    result = magpie("index", tmp_path / "c.csv", "--customer", "c", "--json", "--home", tmp_path / "none")
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert "4 problems, nothing of it was used" in lines[0]
    assert sum("line 2:" in line for line in lines) == 2
    assert sum("line 3:" in line for line in lines) == 2
    assert not (tmp_path / "none").exists()
