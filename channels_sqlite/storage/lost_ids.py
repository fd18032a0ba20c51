"""A database that knows less than its users were told of; see `processes.given_ids`.

Whoever opens one looks before anybody writes there: ids that were lost must not be given again to other messages, which
would then look like those that a client has seen.
"""

from __future__ import annotations

import logging
import sqlite3

from channels_sqlite.processes.given_ids import GivenIds
from channels_sqlite.storage.store import Store

__all__ = ["give_up_lost_ids", "skip_lost_ids"]

logger = logging.getLogger(__name__)


def skip_lost_ids(connection: sqlite3.Connection, store: Store, path: str, patience_s: float) -> None:
    """Look for a loss in the file at `path`, and wait for the write lock so long where there is one.

    `connection` is that of `store`, and has a busy time-out of 0. Raises sqlite3.Error.
    """
    given = GivenIds()
    try:
        if not path or not given.open(path, make=False):
            return
        largest = given.largest()  # noted after a commit, so that a later look at the database finds as much
        if largest <= store.newest_id():
            return
        connection.execute(f"PRAGMA busy_timeout={int(patience_s * 1000)}")
        try:
            store.begin()
            if largest > store.newest_id():  # nobody else has seen to it meanwhile
                give_up_lost_ids(store, largest)
            store.commit()
        finally:
            store.rollback()
            connection.execute("PRAGMA busy_timeout=0")
    finally:
        given.close()


def give_up_lost_ids(store: Store, largest: int) -> int:
    """Have all positions be of the past, and give no id up to `largest` again; return the newest id then."""
    lost = largest - store.newest_id()
    if lost > 0:
        logger.warning(
            "the database has lost its last commits, or an older copy took its place: it lacks %d ids that were given; "
            "who comes back to a history is told that messages may be missing",
            lost,
        )
    # Those of other prefixes have lost as much.
    store.forget_epochs()
    newest = max(store.newest_id(), largest) + 1
    store.skip_to(newest)
    return newest
