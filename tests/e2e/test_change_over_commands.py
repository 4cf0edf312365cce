"""`magpie change-over` against a whole local system of its own, with tiny models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, LocalSystem
from tests.integration.changeover_system import CUSTOMER, NEW, OLD, make_bundle, picture

PRODUCTS = 5


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder that is a catalogue: a picture of one colour each."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(PRODUCTS):
        (folder / f"p{number}.jpg").write_bytes(picture(number))
    return folder


@pytest.fixture
def old_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSystem]:
    """Up with the old bundle alone; down after the test."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'shared'}:{ROOT}")
    monkeypatch.delenv("MAGPIE_REDIS_URL", raising=False)
    old = make_bundle(tmp_path / "old", "1", {"identity": 8, "category": 4, "similar": 5})
    monkeypatch.setenv("MAGPIE_BUNDLE", str(old))
    system = LocalSystem(tmp_path / "home")
    try:
        system.json("up")
        yield system
    finally:
        system.run("down")


def test_there_and_back_and_there_for_good(old_system: LocalSystem, pictures: Path, tmp_path: Path) -> None:
    shop = ("--customer", CUSTOMER)

    def change_over(step: str, *arguments: str | Path) -> dict[str, object]:
        answer = old_system.json("change-over", step, *shop, *arguments)
        assert isinstance(answer, dict)
        return answer

    def refused(*arguments: str | Path) -> str:
        result = old_system.run("change-over", *arguments, *shop)
        assert (result.returncode, result.stdout) == (1, "")
        return result.stderr

    def answers(bundle: str) -> bool:
        """Processes go by the old record for a second after a switch."""
        give_up = time.monotonic() + 10
        while True:
            found = old_system.json("search", pictures / "p3.jpg", *shop)
            assert found["objects"][0]["hits"][0]["product_id"] == "p3"
            if found["bundle"] == bundle or time.monotonic() > give_up:
                return bool(found["bundle"] == bundle)

    old_system.json("index", pictures, *shop)
    assert "magpie up --next-bundle" in refused("start")
    assert "magpie change-over start" in refused("status")

    new = make_bundle(tmp_path / "new", "2", {"identity": 12, "category": 6, "similar": 7})
    assert "changeover" in old_system.json("up", "--next-bundle", new)["started"]
    assert old_system.json("up")["started"] == []  # it is kept
    assert "known are tiny@1, tiny@2" in refused("start", "--to", "tiny@9")

    started = change_over("start", "--to", new, "--backlog", "2")
    assert (started["from_bundle"], started["to_bundle"], started["backlog"]) == (OLD, NEW, 2)
    ready = change_over("status", "--watch")
    assert (ready["state"], ready["done"], ready["total"]) == ("complete", PRODUCTS, PRODUCTS)
    assert ready["failures"] == []
    assert answers(OLD)

    verdict = change_over("switch", "--sample", "20")
    assert verdict["serving"] == NEW
    assert verdict["figures"]
    assert answers(NEW)
    assert change_over("rollback")["serving"] == OLD
    assert answers(OLD)

    queries = tmp_path / "queries.csv"
    rows = [f"{photo.name},{photo.stem}" for photo in pictures.iterdir()]
    queries.write_text("\n".join(["image,product_id", *(f"pictures/{row}" for row in rows)]))
    shown = old_system.run("change-over", "switch", *shop, "--queries", queries)
    assert shown.returncode == 0, shown.stderr
    assert "recall@1" in shown.stdout
    assert f"{NEW} serves {CUSTOMER} now" in shown.stderr
    assert change_over("drop")["dropped"] == OLD
    assert answers(NEW)
    assert f"{NEW} serves" in refused("start", "--to", NEW)
