"""The first start: many processes open a new database at the same moment, before it is in WAL mode."""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes.children import open_and_use
from tests.processes.evidence import count_waiting, query, registered_clients
from tests.processes.herd import start_herd
from tests.support.databases import DOCUMENTED_OPTIONS, ChannelDatabase, fresh_file
from tests.support.processes import ProcessFactory

pytestmark = pytest.mark.processes

PROCESSES = 12
ROUNDS = 15
MEETING_S = 0.1
"""Within this all of them have heard where to meet."""


def fresh_file_not_in_wal_mode(folder: Path, name: str) -> Path:
    """As `migrate` makes it for an alias without OPTIONS."""
    path = fresh_file(folder, name)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, DOCUMENTED_OPTIONS], ids=["bare alias", "documented OPTIONS"])
async def test_twelve_processes_open_a_new_database_at_once(
    options: Mapping[str, object], tmp_path: Path, start_process: ProcessFactory
) -> None:
    database = ChannelDatabase(alias="channels", path=tmp_path / "none.sqlite3", options=options)
    herd = await start_herd(start_process, [(open_and_use, {})] * PROCESSES, database=database)
    assert await herd.hear_each() == ["ready"] * PROCESSES
    for number in range(ROUNDS):
        path = fresh_file_not_in_wal_mode(tmp_path, f"round-{number}.sqlite3")
        herd.tell(f"{path}|{time.monotonic() + MEETING_S}")
        assert await herd.hear_each() == ["sent"] * PROCESSES, f"in round {number}"
        opened = ChannelDatabase(alias="channels", path=path, options=options)
        assert query(opened, "PRAGMA journal_mode") == [("wal",)]
        assert count_waiting(opened) == PROCESSES
        assert registered_clients(opened) == set()
    herd.finish()
