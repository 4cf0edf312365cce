"""A bundle takes the place of another, and whatever is killed on the way loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from magpie.errors import Aborted, FailedPrecondition, NotFound
from magpie.vision.bundle import Bundle
from tests.unit.training import tiny_release
from tests.unit.training.test_release_checks import released
from training.release.install import (
    alone,
    install,
    install_steps,
    interrupted,
    previous_of,
    recover,
    roll_back,
    roll_back_steps,
)

BEFORE = {"default": "2", "default.previous": "1"}
AFTER = {"default": "3", "default.previous": "2"}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Released bundles `1`, `2`, `3`."""
    folder = tmp_path_factory.mktemp("three")
    for version in "123":
        released(tiny_release.bundle(folder / version, version))
    return folder


@pytest.fixture
def current(three: Path, tmp_path: Path) -> Path:
    """Version 2 in place, version 1 before it."""
    place = tmp_path / "default"
    install(three / "1", place)
    install(three / "2", place)
    return place


def versions(current: Path) -> dict[str, str]:
    """Every folder beside the place -> the bundle's version."""
    return {path.name: Bundle.load(path).version for path in current.parent.iterdir()}


def killed_after(steps: Callable[[], Iterator[str]], count: int) -> None:
    """Takes `count` steps in a process of its own, which then kills itself."""

    def work() -> None:
        list(islice(steps(), count))
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_the_old_one_becomes_the_previous_one(three: Path, current: Path) -> None:
    assert versions(current) == BEFORE
    install(three / "3", current)
    assert versions(current) == AFTER
    assert not interrupted(current)
    assert (three / "3").is_dir()  # the candidate stays


@pytest.mark.parametrize("count", range(6))
def test_a_killed_release_is_ended_or_undone(three: Path, current: Path, count: int) -> None:
    steps = [*install_steps(three / "3", Path(shutil.copytree(current, current.parent / "try" / "default")))]
    shutil.rmtree(current.parent / "try")
    assert len(steps) == 3  # without an earlier one; here it is five
    killed_after(lambda: install_steps(three / "3", current), count)
    assert interrupted(current) == (count in (1, 2, 3, 4))
    recover(current)
    done = count >= 4
    expected = (
        {"default": "3", "default.previous": "2"} if done else {"default": "2", "default.previous": "1"}
    )
    assert versions(current) == expected
    assert recover(current) == []
    if not done:
        install(three / "3", current)
        assert versions(current) == AFTER


@pytest.mark.parametrize("count", range(4))
def test_a_killed_roll_back_is_ended(current: Path, count: int) -> None:
    killed_after(lambda: roll_back_steps(current), count)
    recover(current)
    expected = (
        {"default": "1", "default.previous": "2"} if count else {"default": "2", "default.previous": "1"}
    )
    assert versions(current) == expected


def test_a_copy_that_was_cut_short_is_dropped(current: Path) -> None:
    incoming = current.with_name("default.incoming")
    incoming.mkdir()
    (incoming / "embedder.onnx").write_bytes(b"half")
    assert interrupted(current)
    recover(current)
    assert versions(current) == BEFORE


def test_a_first_release_has_no_previous_one(three: Path, tmp_path: Path) -> None:
    place = tmp_path / "default"
    install(three / "1", place)
    assert versions(place) == {"default": "1"}
    with pytest.raises(NotFound, match=r"default\.previous"):
        roll_back(place)


def test_back_and_forth(current: Path) -> None:
    roll_back(current)
    assert versions(current) == {"default": "1", "default.previous": "2"}
    roll_back(current)
    assert versions(current) == BEFORE


def test_a_damaged_previous_one_is_not_put_back(current: Path) -> None:
    (previous_of(current) / "embedder.onnx").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match=r"embedder\.onnx was changed"):
        roll_back(current)
    assert versions(current) == BEFORE


def test_a_candidate_that_was_touched_never_gets_in(three: Path, current: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(three / "3", tmp_path / "elsewhere" / "3"))
    (spoilt / "embedder.onnx").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match=r"embedder\.onnx was changed"):
        install(spoilt, current)
    shutil.rmtree(spoilt.parent)
    assert versions(current) == BEFORE


def test_a_step_that_fails_leaves_all_as_it_was(three: Path, current: Path) -> None:
    """The folder where it says `.discarded` cannot be renamed over: it is not empty."""
    (current.parent / "default.discarded").mkdir()
    (current.parent / "default.discarded" / "full").touch()
    with pytest.raises(FailedPrecondition, match="is as it was"):
        install(three / "3", current)
    assert versions(current) == BEFORE


def test_one_release_at_a_time(current: Path) -> None:
    with alone(current), pytest.raises(Aborted, match="another release is at work"), alone(current):
        pass
    with alone(current):
        pass
    with pytest.raises(NotFound), alone(current / "nowhere" / "default"):
        pass
