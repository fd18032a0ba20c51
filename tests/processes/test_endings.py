"""The end of the interpreter: `atexit` handlers and threads that send then, also for the first time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.evidence import query, wake_folder
from tests.support.databases import ChannelDatabase
from tests.support.processes import ROOT

pytestmark = pytest.mark.processes

DEADLINE_S = 60

PROGRAM = """
import asyncio, atexit, logging, sys, threading
import django
from django.conf import settings

database, when, face, used = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["channels_sqlite"],
    DATABASES={"default": {}, "channels": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels_sqlite.layers.SqliteChannelLayer", "CONFIG": {}}},
)

def say():
    try:
        for number in range(3):
            if face == "sync":
                get_sync_channel_layer().send("jobs", {"n": number})
                get_sync_channel_layer().group_count("room")
            else:
                asyncio.run(get_channel_layer().send("jobs", {"n": number}))
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print("sent")

if when == "atexit":  # before the layer's own, and so run after it
    atexit.register(say)
django.setup()
logging.basicConfig(stream=sys.stdout)
from channels_sqlite import get_channel_layer, get_sync_channel_layer
if used == "used":
    get_sync_channel_layer().send("before", {"n": 0})
if when == "thread":
    def wait_and_say():
        threading.main_thread().join()
        say()
    threading.Thread(target=wait_and_say).start()
"""


def run(database: ChannelDatabase, when: str, face: str, used: str, folder: Path) -> str:
    """What the program prints; it must end by itself and well."""
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, str(program), str(database.path), when, face, used],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout.strip()


def sent(database: ChannelDatabase) -> int:
    return int(query(database, "SELECT count(*) FROM channels_sqlite_message WHERE queue = 'jobs'")[0][0])


@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("when", ["atexit", "thread"])
def test_the_facade_sends_until_the_very_end_and_leaves_nothing(
    when: str, used: str, database: ChannelDatabase, tmp_path: Path
) -> None:
    assert run(database, when, "sync", used, tmp_path) == "sent"
    assert sent(database) == 3
    assert query(database, "SELECT count(*) FROM channels_sqlite_process") == [(0,)]
    assert [name for name in wake_folder(database) if name not in ("housekeeping.lock", "checkpoint.lock")] == []


SET_UP = """
import asyncio, sys, threading
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["channels_sqlite"],
    DATABASES={"default": {}, "channels": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels_sqlite.layers.SqliteChannelLayer", "CONFIG": {}}},
)
django.setup()
from channels_sqlite import get_channel_layer, get_sync_channel_layer
"""

WAITING = """
def serve():
    async def wait():
        await asyncio.gather(*(get_channel_layer().receive(f"jobs{number}") for number in range(3)))
    asyncio.run(wait())

for target, args in ((serve, ()), (get_sync_channel_layer().receive, ("work",))):
    threading.Thread(target=target, args=args, daemon=True).start()
process = get_channel_layer()._here()
for _ in range(1000):
    if len(process.inbox.claims.listening()) == 4:
        break
    threading.Event().wait(0.01)
else:
    sys.exit("nobody waits")
"""


def ends_quietly(text: str, database: ChannelDatabase, folder: Path) -> None:
    """Run a program five times; it must end by itself, well, and without a word."""
    program = folder / "program.py"
    program.write_text(SET_UP + text, encoding="utf-8")
    for _ in range(5):
        finished = subprocess.run(
            [sys.executable, str(program), str(database.path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert (finished.returncode, finished.stderr) == (0, "")


def test_who_waits_in_threads_that_end_with_the_interpreter_prints_no_tracebacks(
    database: ChannelDatabase, tmp_path: Path
) -> None:
    """As a server's threads do, while closing takes its time on a slow disk."""
    ends_quietly(WAITING, database, tmp_path)
    assert query(database, "SELECT count(*) FROM channels_sqlite_process") == [(0,)]


ON_THEIR_WAY = """
async def first():
    layer = get_channel_layer()
    await layer.send("first", {"type": "first"})
    await layer.receive("first")

asyncio.run(first())
inbox = get_channel_layer()._here().inbox
here = threading.Semaphore(0)
again = threading.Semaphore(0)

def held_up(method):
    def call(*args):
        here.release()
        again.acquire()
        return method(*args)
    return call

inbox.take_or_wait = held_up(inbox.take_or_wait)
inbox.claims.take_one = held_up(inbox.claims.take_one)
shut = inbox.shut

def shutting(**options):
    shut(**options)
    again.release(2)

inbox.shut = shutting

def serve():
    asyncio.run(get_channel_layer().receive("jobs"))

for target, args in ((serve, ()), (get_sync_channel_layer().receive, ("work",))):
    threading.Thread(target=target, args=args, daemon=True).start()
for _ in range(2):
    if not here.acquire(timeout=20):
        sys.exit("nobody came")
"""


def test_who_is_about_to_wait_when_the_interpreter_ends_prints_no_traceback_either(
    database: ChannelDatabase, tmp_path: Path
) -> None:
    """A thread that has looked in vain, or stands in line, does not wait yet; that is up to chance."""
    ends_quietly(ON_THEIR_WAY, database, tmp_path)


@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("when", ["atexit", "thread"])
def test_the_async_layer_sends_or_says_that_the_interpreter_is_ending(
    when: str, used: str, database: ChannelDatabase, tmp_path: Path
) -> None:
    said = run(database, when, "async", used, tmp_path)
    if said == "sent":
        assert sent(database) == 3
    else:
        assert said.startswith("LayerClosedError the interpreter is ending")
        assert "get_sync_channel_layer()" in said
        assert sent(database) == 0
