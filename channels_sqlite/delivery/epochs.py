"""Which epoch the positions of a layer's histories belong to, and when another one begins.

Ids of one epoch never come back, and nothing that was sent in it is lost, but what trimming takes, which says so. Where
that may not be so any more, another epoch begins: after another boot (a power cut may have taken the last commits, with
`synchronous=NORMAL`), in another file (a copy, or a new one), and where the database knows less than its users were
told (see `processes.given_ids`). That is looked for once for each file that is opened, and the last at each use.

Threads: everything may be called from any thread that may use the store.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from channels_sqlite.histories import EPOCH_CHARACTERS, Position
from channels_sqlite.processes.given_ids import GivenIds
from channels_sqlite.processes.liveness import machine_id
from channels_sqlite.storage.history import EpochRow
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Epochs", "copy_of"]

NO_EPOCH = "0" * EPOCH_CHARACTERS
COPY = "@"  # begins `local` of a row for a normal member, before the id of what is kept: in no name


class Epochs:
    """The epoch of one layer, as one process knows it."""

    def __init__(self) -> None:
        self.given = GivenIds()
        # The identity of the open file, as an object, once it was seen to be the one where the epoch began.
        self._seen_in: object = None

    def make_sure(self, transaction: Transaction) -> EpochRow | None:
        """Have what is sent now belong to an epoch that is sound; return it where it was looked at."""
        if (
            transaction.file is not None
            and transaction.file is self._seen_in
            and not transaction.entered
            and self.given.largest() <= transaction.newest
        ):
            return None
        store = transaction.store
        known = self.given.open(store.file(), make=True)
        largest = self.given.largest()
        row = store.epoch()
        place = _place_of(store)
        if row is None or row.place != place or not known or largest > transaction.newest:
            if row is not None or largest > transaction.newest:
                # Those of other prefixes have lost as much. Ids that may have been given are not given again.
                store.forget_epochs()
                transaction.newest = max(transaction.newest, largest) + 1
                store.skip_to(transaction.newest)
            row = self.begin(transaction, place)
        if not transaction.in_users_block:
            before, self._seen_in = self._seen_in, transaction.file
            transaction.undo.append(lambda: setattr(self, "_seen_in", before))
        return row

    def begin(self, transaction: Transaction, place: str) -> EpochRow:
        """Begin another epoch: positions from before, and of what was sent until now, do not say what was missed."""
        row = EpochRow(secrets.token_hex(EPOCH_CHARACTERS // 2), place, transaction.newest)
        transaction.store.begin_epoch(row)
        return row

    @contextmanager
    def snapshot(self, store: Store) -> Iterator[EpochRow | None]:
        """Have all that is read in the block be of one moment, and give its epoch; None asks for a `make_sure`."""
        known = self.given.open(store.file(), make=False)
        largest = self.given.largest()  # noted after a commit, so that a later look at the database finds as much
        with store.snapshot():
            row = store.epoch()
            sound = known and row is not None and row.place == _place_of(store) and largest <= store.newest_id()
            yield row if sound else None

    def current(self, store: Store) -> str:
        """Return the epoch of what the store has now."""
        row = store.epoch()
        return NO_EPOCH if row is None else row.epoch

    def told(self, store: Store, row_id: int) -> None:
        """Note that somebody is about to be told of an id."""
        if not self.given.is_open:
            self.given.open(store.file(), make=False)
        self.given.note(row_id)

    def position_of_copy(self, store: Store, local: str) -> str:
        """Return the position of what a row for a normal member is a copy of, by its `local`; "" where it is none.

        It is about to be told.
        """
        if not local.startswith(COPY):
            return ""
        kept_id = int(local.removeprefix(COPY))
        self.told(store, kept_id)
        return str(Position(self.current(store), kept_id))


def copy_of(position: str | int) -> str | None:
    """Return what `local` says of a row for a normal member: of the position, or of the id of what is kept."""
    return f"{COPY}{str(position).rpartition('-')[2]}" if position else None


def _place_of(store: Store) -> str:
    """Return where a file is: the boot, and the device and the inode."""
    boot = machine_id().partition("/")[0]
    path = store.file()
    if not path:
        return f"{boot}/memory"
    try:
        status = os.stat(path)
    except OSError:  # it was removed, and is about to be opened anew
        return f"{boot}/nowhere"
    return f"{boot}/{status.st_dev}/{status.st_ino}"
