"""When the growth of the WAL is nobody's fault: while a stopped process keeps it from being emptied, and just after."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.endurance import watching
from tests.endurance.project import database_path
from tests.endurance.watching import BACK_S, LOCKS_EVERY_S, READER_BYTES, WAL_BOUND_BYTES, WalWatch

MIB = 2**20


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[WalWatch, Callable[..., None]]:
    """A watch, and what lets it look at a WAL of so many MiB, while a reader is stopped or not, some seconds later."""
    now = [1000.0]
    crew: Any = SimpleNamespace(members={})
    held: set[int] = set()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watching, "bytes_held", lambda shared, pids: held if pids else set())
    wal = Path(f"{database_path(tmp_path)}-wal")
    wal.parent.mkdir(parents=True, exist_ok=True)
    watch = WalWatch(tmp_path)

    def look(mib: int, *, stopped: bool = False, after_s: float = LOCKS_EVERY_S + 0.01) -> None:
        now[0] += after_s
        held.clear()
        member = SimpleNamespace(slot=SimpleNamespace(name="reader"), pid=os.getpid(), stopped_at=now[0] - 1)
        crew.members = {1: member} if stopped else {}
        if stopped:
            held.add(READER_BYTES[0])
        with wal.open("ab") as file:
            file.truncate(mib * MIB)
        watch.poll(crew)

    return watch, look


def test_a_wal_past_its_bound_is_told(look: tuple[WalWatch, Callable[..., None]]) -> None:
    watch, at = look
    at(60)
    assert watch.over == ""
    at(70)
    assert watch.over.startswith("70.0 MiB")
    assert watch.largest_bytes == 70 * MIB > WAL_BOUND_BYTES


def test_while_a_reader_is_stopped_it_may_grow_and_has_some_time_to_come_back(
    look: tuple[WalWatch, Callable[..., None]],
) -> None:
    watch, at = look
    at(20)
    at(100, stopped=True)
    at(110)
    assert (watch.over, watch.largest_excused_bytes) == ("", 110 * MIB)
    at(0)
    at(70)
    assert watch.over.startswith("70.0 MiB"), "it had come back"


def test_growth_below_the_bound_meanwhile_leaves_the_time_to_come_back(
    look: tuple[WalWatch, Callable[..., None]],
) -> None:
    watch, at = look
    at(20)
    at(62, stopped=True)
    at(63)
    at(70)  # the reader has gone on, and nobody was at a checkpoint yet
    assert watch.over == ""
    at(70, after_s=BACK_S)
    assert watch.over.startswith("70.0 MiB"), "but not for ever"
