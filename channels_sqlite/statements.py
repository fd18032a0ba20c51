"""Every SQL statement that runs while messages flow, and nothing else. The schema lives in the migrations."""

from __future__ import annotations

__all__ = [
    "BEGIN",
    "CHANNELS_WITH_WAITING",
    "CLAIM",
    "CLAIM_AND_DELETE",
    "CLIENTS_OF_GROUP",
    "COUNT_ADDRESSED",
    "COUNT_ROWS",
    "COUNT_WAITING",
    "DATA_VERSION",
    "DELETE_MEMBERSHIP",
    "DELETE_MESSAGE",
    "EXPIRED_MEMBERSHIPS",
    "EXPIRED_WAITING",
    "FLUSH",
    "FORGET",
    "FORGET_UNREAD",
    "FREE_SPACE",
    "GROUP_CHANNELS",
    "GROUP_SIZES",
    "INCREMENTAL_FROM_NOW_ON",
    "INSERT_MESSAGE",
    "JOIN",
    "LEAVE",
    "LISTEN",
    "LISTENERS",
    "LISTENERS_OF_EMPTY",
    "LISTENING",
    "LOCK",
    "LOWEST_CURSOR",
    "MEMBER",
    "MEMBERS",
    "NEWEST_ID",
    "NEWEST_ID_BEFORE",
    "OLDEST",
    "OLDEST_WAITING",
    "PROBES",
    "PROCESS",
    "PROCESSES",
    "PUBLISH",
    "READ_LOG",
    "REGISTER",
    "REINSERT",
    "RETIRE",
    "SKIP_IDS",
    "SPARE_MEMORY",
    "STARTED",
    "STRANGERS",
    "TOUCH_LAST",
    "UNCLAIM",
    "UNLISTEN",
    "UNREAD_QUEUES",
    "VACUUM",
    "VACUUM_STEP",
    "WAITING_CHANNELS",
]

# Takes the write lock at once, so that nothing read inside the transaction can be out of date when it is written.
BEGIN = "BEGIN IMMEDIATE"

# For a deferred transaction that somebody else has opened. Changes nothing, and takes the write lock as its first
# statement would: SQLite's busy handler waits for that lock only where the transaction has not read before
# (https://www.sqlite.org/c3ref/busy_handler.html).
LOCK = "DELETE FROM channels_sqlite_message WHERE 0"

# The largest id given so far, which never falls, not even when the rows are gone
# (https://www.sqlite.org/autoinc.html). No lock that a writer could hold up (WAL).
NEWEST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'channels_sqlite_message'"
# Parameters: number of ids. Skips ids, so that "rows since a count" also covers rows that were put back.
SKIP_IDS = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'channels_sqlite_message'"

# Changes whenever another connection has committed (https://www.sqlite.org/pragma.html#pragma_data_version).
DATA_VERSION = "PRAGMA data_version"

# Parameters: prefix, kind, state, queue, local, client, created_at, expires_at, payload. At most one index entry a row:
# normal channels in channels_sqlite_waiting, process-specific ones in channels_sqlite_addressed, broadcasts in none.
INSERT_MESSAGE = """
    INSERT INTO channels_sqlite_message
        (prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# Parameters: prefix, queue, now, limit. Index channels_sqlite_waiting alone, no row is read; the limit bounds the work,
# as nobody needs to know how far beyond its capacity a channel is.
COUNT_WAITING = """
    SELECT count(*) FROM (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = ? AND state = 0 AND expires_at > ? LIMIT ?
    )
"""
# Parameters: prefix, queue, after id, now, limit. Likewise, on channels_sqlite_addressed.
COUNT_ADDRESSED = """
    SELECT count(*) FROM (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = ? AND kind = 1 AND id > ? AND expires_at > ? LIMIT ?
    )
"""

# Parameters: prefix, JSON array of channels, now. For each channel one probe of channels_sqlite_waiting.
CHANNELS_WITH_WAITING = """
    SELECT value FROM json_each(?2) WHERE EXISTS (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ?1 AND queue = value AND state = 0 AND expires_at > ?3
    )
"""

# Parameters: prefix, queue, now, limit. In the order of ids, which is the order of the sends. Index
# channels_sqlite_waiting; no payload is read.
OLDEST_WAITING = """
    SELECT id FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND state = 0 AND expires_at > ? ORDER BY id LIMIT ?
"""
# Parameters: id, of one that waits. One by one they cost less than in one statement with the look for them.
CLAIM = """
    UPDATE channels_sqlite_message SET state = 1 WHERE id = ? RETURNING id, expires_at, CAST(payload AS BLOB)
"""
CLAIM_AND_DELETE = """
    DELETE FROM channels_sqlite_message WHERE id = ? RETURNING id, expires_at, CAST(payload AS BLOB)
"""

# Parameters: id. The id keeps the message's place in the order.
UNCLAIM = "UPDATE channels_sqlite_message SET state = 0 WHERE id = ? AND state = 1"

# Parameters: id, prefix, queue, now, expires_at, payload. The counterpart of CLAIM_AND_DELETE.
REINSERT = """
    INSERT OR IGNORE INTO channels_sqlite_message
        (id, prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    VALUES (?, ?, 0, 0, ?, NULL, NULL, ?, ?, ?)
"""

# Parameters: after id, up to id, prefix, client. First the newest id and then the log, in one statement and so of one
# snapshot. A range of the primary key; the payload is the last column, so that rows for others cost no overflow pages.
# A broadcast is read only where this client has a member.
READ_LOG = """
    SELECT seq AS id, -1 AS kind, '' AS queue, NULL AS local, 0.0 AS expires_at, x'' AS payload
    FROM sqlite_sequence WHERE name = 'channels_sqlite_message' AND seq > ?1
    UNION ALL
    SELECT id, kind, queue, local, expires_at, CAST(payload AS BLOB) FROM channels_sqlite_message AS message
    WHERE id > ?1 AND id <= ?2 AND prefix = ?3 AND (
        client = ?4
        OR kind = 4
        OR (kind = 2 AND EXISTS (
            SELECT 1 FROM channels_sqlite_membership AS membership
            WHERE membership.prefix = ?3 AND membership.group_name = message.queue AND membership.client = ?4
        ))
    )
"""

# Parameters: time. Walks down the primary key from its end: what is looked for lies there.
NEWEST_ID_BEFORE = "SELECT id FROM channels_sqlite_message WHERE created_at < ? ORDER BY id DESC LIMIT 1"

# Parameters: prefix, group, client, channel, newest id, expires_at, now. A renewed membership keeps the id it joined
# at, one that had ended starts anew.
JOIN = """
    INSERT INTO channels_sqlite_membership (prefix, group_name, client, channel, joined_id, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (prefix, group_name, client, channel) DO UPDATE SET
        joined_id = CASE WHEN expires_at <= ?7 THEN excluded.joined_id ELSE joined_id END,
        expires_at = excluded.expires_at
    RETURNING joined_id
"""

# Parameters: prefix, group, client, channel. Unique index channels_sqlite_member.
LEAVE = """
    DELETE FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""

# Parameters: prefix, group, client, now. Unique index channels_sqlite_member.
MEMBERS = """
    SELECT channel, joined_id, expires_at FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND client = ? AND (expires_at IS NULL OR expires_at > ?)
"""

# Parameters: prefix, group. One probe of channels_sqlite_member per live process, however many members it has.
CLIENTS_OF_GROUP = """
    SELECT client FROM channels_sqlite_process AS process
    WHERE process.prefix = ?1 AND EXISTS (
        SELECT 1 FROM channels_sqlite_membership AS membership
        WHERE membership.prefix = ?1 AND membership.group_name = ?2 AND membership.client = process.client
    )
"""

# Parameters: prefix, group, client, channel. Unique index channels_sqlite_member.
MEMBER = """
    SELECT joined_id, expires_at FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""

# Parameters: prefix, group, now.
GROUP_CHANNELS = """
    SELECT channel FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY channel
"""

# Parameters: prefix, channel. Unique index channels_sqlite_listener.
LISTENERS = "SELECT client FROM channels_sqlite_listener WHERE prefix = ? AND channel = ?"
# Parameters: prefix, channel, now. The same where nothing waits on the channel, nobody elsewhere: for what waits they
# have been woken, and who claims sees whether more is there. One probe of channels_sqlite_waiting.
LISTENERS_OF_EMPTY = """
    SELECT client FROM channels_sqlite_listener WHERE prefix = ?1 AND channel = ?2 AND NOT EXISTS (
        SELECT 1 FROM channels_sqlite_message WHERE prefix = ?1 AND queue = ?2 AND state = 0 AND expires_at > ?3
    )
"""

# Parameters: prefix, channel, client.
LISTEN = "INSERT OR IGNORE INTO channels_sqlite_listener (prefix, channel, client) VALUES (?, ?, ?)"
UNLISTEN = "DELETE FROM channels_sqlite_listener WHERE prefix = ? AND channel = ? AND client = ?"

# Parameters: client, prefix, pid, machine, address, cursor, started_at.
REGISTER = """
    INSERT OR REPLACE INTO channels_sqlite_process
        (client, prefix, pid, machine, address, cursor, held, channels, started_at)
    VALUES (?, ?, ?, ?, ?, ?, 0, 0, ?)
"""

# Parameters: cursor, held, channels, client.
PUBLISH = "UPDATE channels_sqlite_process SET cursor = ?, held = ?, channels = ? WHERE client = ?"

# Parameters: client. Primary key.
PROCESS = """
    SELECT client, pid, machine, address, cursor, held, channels FROM channels_sqlite_process WHERE client = ?
"""
PROCESSES = "SELECT client, pid, machine, address, cursor, held, channels FROM channels_sqlite_process"

# Clients with members or listeners and without a registration, which comes first. Scans two indexes on client.
STRANGERS = """
    SELECT client FROM (
        SELECT client FROM channels_sqlite_membership UNION SELECT client FROM channels_sqlite_listener
    ) WHERE client <> '' AND client NOT IN (SELECT client FROM channels_sqlite_process)
"""

# Parameters: client, cursor. What a dead reader had not read: a range of the primary key from its cursor on.
FORGET_UNREAD = "DELETE FROM channels_sqlite_message WHERE id > ?2 AND kind IN (1, 3) AND client = ?1"
# Parameters: client.
FORGET = (
    "DELETE FROM channels_sqlite_membership WHERE client = ?",
    "DELETE FROM channels_sqlite_listener WHERE client = ?",
    "DELETE FROM channels_sqlite_process WHERE client = ?",
)

# Parameters: prefix.
FLUSH = (
    "DELETE FROM channels_sqlite_message WHERE prefix = ?",
    "DELETE FROM channels_sqlite_membership WHERE prefix = ?",
)

# Parameters: prefix, after id, limit. The low end of the log.
OLDEST = """
    SELECT id, kind, state, created_at, expires_at FROM channels_sqlite_message
    WHERE id > ?2 AND prefix = ?1 ORDER BY id LIMIT ?3
"""

# Parameters: id.
DELETE_MESSAGE = "DELETE FROM channels_sqlite_message WHERE id = ?"

# Parameters: prefix, now, limit. Scans channels_sqlite_waiting without reading rows and without the write lock.
EXPIRED_WAITING = """
    SELECT id FROM channels_sqlite_message INDEXED BY channels_sqlite_waiting
    WHERE prefix = ? AND state = 0 AND expires_at <= ? LIMIT ?
"""
# Parameters: id. An expired row leaves the index of what waits, and stays in the log until it is trimmed. SQLite stores
# 0 and 1 in the same space, so that the row is changed in place, also in a file that is full.
RETIRE = "UPDATE channels_sqlite_message SET state = 1 WHERE id = ?"

# Parameters: prefix, now, limit.
EXPIRED_MEMBERSHIPS = """
    SELECT id FROM channels_sqlite_membership WHERE prefix = ? AND expires_at <= ? LIMIT ?
"""
DELETE_MEMBERSHIP = "DELETE FROM channels_sqlite_membership WHERE id = ?"

# Parameters: prefix. The furthest that every registered reader has come; NULL without readers.
LOWEST_CURSOR = "SELECT min(cursor) FROM channels_sqlite_process WHERE prefix = ?"

# What `channels_status` reads. All take a snapshot and no lock; their cost is that of what they return, where no more
# is said.

# Parameters: prefix. Scans the table, without the payloads that have pages of their own: 40 ms for 100,000 rows.
COUNT_ROWS = "SELECT count(*) FROM channels_sqlite_message WHERE prefix = ?"
# Parameters: prefix, now. Scans channels_sqlite_waiting, which holds what waits and no more, and reads one row for each
# channel.
WAITING_CHANNELS = """
    SELECT queue, waiting, (SELECT created_at FROM channels_sqlite_message WHERE id = oldest) FROM (
        SELECT queue, count(*) AS waiting, min(id) AS oldest
        FROM channels_sqlite_message INDEXED BY channels_sqlite_waiting
        WHERE prefix = ? AND state = 0 AND expires_at > ? GROUP BY queue
    )
"""
# Parameters: prefix, now. For each registered reader a range of the primary key from its cursor on; the index of what
# was addressed would take in all that is kept.
UNREAD_QUEUES = """
    SELECT message.queue, count(*), min(message.created_at)
    FROM channels_sqlite_process AS process CROSS JOIN channels_sqlite_message AS message NOT INDEXED
    WHERE process.prefix = ?1 AND message.id > process.cursor AND message.client = process.client
        AND message.prefix = ?1 AND message.kind = 1 AND message.expires_at > ?2
    GROUP BY message.queue
"""
# Parameters: prefix, now. Scans the memberships of the prefix (index channels_sqlite_member).
GROUP_SIZES = """
    SELECT group_name, count(*) FROM channels_sqlite_membership
    WHERE prefix = ? AND (expires_at IS NULL OR expires_at > ?) GROUP BY group_name
"""
# Parameters: prefix.
STARTED = "SELECT client, started_at FROM channels_sqlite_process WHERE prefix = ?"
LISTENING = "SELECT client, channel FROM channels_sqlite_listener WHERE prefix = ? ORDER BY client, channel"

# What `channels_trim --vacuum` does.

# Reads the header of the file.
FREE_SPACE = """
    SELECT page_count, freelist_count, page_size, auto_vacuum
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size, pragma_auto_vacuum
"""
# Moves pages from the end of the file into free ones, where auto_vacuum is INCREMENTAL: 64 in 1 ms, measured with
# 1,000-byte rows. Part of a transaction; does its work as its rows are fetched.
VACUUM_STEP = "PRAGMA incremental_vacuum(64)"
# Writes what the file holds anew, in one transaction with the write lock: 4 ms for each MB of content, free pages cost
# nothing. The first makes it take up another auto_vacuum mode on its way, also in WAL mode.
INCREMENTAL_FROM_NOW_ON = "PRAGMA auto_vacuum=INCREMENTAL"
SPARE_MEMORY = "PRAGMA temp_store=FILE"
VACUUM = "VACUUM"

# Rewrites one row with what it holds. Its page makes the first frame of a reset WAL; see `housekeeping`.
TOUCH_LAST = """
    UPDATE channels_sqlite_message SET state = state WHERE id = (SELECT max(id) FROM channels_sqlite_message)
"""

# Fails with "no such table" or "no such column" where migrations are missing.
PROBES = (
    """
    SELECT id, prefix, kind, state, queue, local, client, created_at, expires_at, payload
    FROM channels_sqlite_message LIMIT 0
    """,
    "SELECT id, prefix, group_name, client, channel, joined_id, expires_at FROM channels_sqlite_membership LIMIT 0",
    """
    SELECT client, prefix, pid, machine, address, cursor, held, channels, started_at
    FROM channels_sqlite_process LIMIT 0
    """,
    "SELECT id, prefix, channel, client FROM channels_sqlite_listener LIMIT 0",
)
