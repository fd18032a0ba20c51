"""The locks that fail tests: they find what is against the order, and nothing else."""

import ast
import asyncio
import os
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

import channels_sqlite
from tests.support import inside, locks
from tests.support.locks import VARIABLE, CheckedLock, Order, take_violations

PACKAGE = Path(channels_sqlite.__file__).parent

RULES = Order(
    """
| `a.Outer.lock` | | `Middle.lock` | event loops try for it |
| `b.Middle.lock` | | `Inner.lock` | |
| `c.Inner.lock` | | | |
## Locks that are never waited for
| `d.Flag.lock` | held |
`concurrency.gate.Gate._lock`
"""
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is found stays here."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))


def look() -> list[str]:
    return [text.splitlines()[0] for text in take_violations()]


def make(name: str) -> CheckedLock:
    return CheckedLock(name, RULES)


def test_what_the_table_allows_passes(found: None) -> None:
    outer, middle, inner = make("a.Outer.lock"), make("b.Middle.lock"), make("c.Inner.lock")
    with outer, middle, inner:
        pass
    with outer, inner:  # by way of the one between
        pass
    with inner:
        pass
    assert look() == []


def test_an_order_turned_round_is_found(found: None) -> None:
    with make("c.Inner.lock"), make("a.Outer.lock"):
        pass
    assert look() == ["a.Outer.lock is waited for inside c.Inner.lock"]


def test_a_time_out_is_waiting_too(found: None) -> None:
    outer = make("a.Outer.lock")
    with make("c.Inner.lock"):
        assert outer.acquire(timeout=1)
    outer.release()
    assert look() == ["a.Outer.lock is waited for inside c.Inner.lock"]


def test_two_of_a_kind_have_no_order(found: None) -> None:
    with make("c.Inner.lock"), make("c.Inner.lock"):
        pass
    assert look() == ["c.Inner.lock is waited for inside c.Inner.lock"]


def test_trying_passes_against_the_order(found: None) -> None:
    outer = make("a.Outer.lock")
    with make("c.Inner.lock"):
        assert outer.acquire(blocking=False)
        outer.release()
    assert look() == []


def test_waiting_for_what_one_holds_is_found(found: None) -> None:
    lock = make("a.Outer.lock")
    with lock:
        assert not lock.acquire(timeout=0.01)
    assert look() == ["a.Outer.lock is waited for by its holder"]


def test_a_lock_that_another_thread_releases_is_held_no_more(found: None) -> None:
    outer, inner = make("a.Outer.lock"), make("c.Inner.lock")
    assert inner.acquire()
    thread = threading.Thread(target=inner.release)
    thread.start()
    thread.join()
    with outer:
        pass
    assert look() == []


def test_a_finalizer_that_comes_by_takes_what_nobody_else_has(found: None) -> None:
    class Dropped:
        def __init__(self) -> None:
            self.lock = make("a.Outer.lock")
            weakref.finalize(self, take, self.lock)

    def take(lock: CheckedLock) -> None:
        with lock:
            pass

    with make("c.Inner.lock"):
        Dropped()
    assert look() == []


def test_an_event_loop_that_waits_is_found_where_the_table_says_that_it_must_not(found: None) -> None:
    async def run() -> None:
        outer = make("a.Outer.lock")
        assert outer.acquire(blocking=False)
        outer.release()
        with make("b.Middle.lock"):
            pass
        with outer:
            pass

    asyncio.run(run())
    assert look() == ["a.Outer.lock is waited for by an event loop"]


def test_flags_are_only_tried_for(found: None) -> None:
    flag = make("d.Flag.lock")
    assert flag.acquire(blocking=False)
    with make("a.Outer.lock"):
        flag.release()
    assert look() == []
    assert flag.acquire()
    assert look() == ["d.Flag.lock is waited for"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_parents_lock_that_a_forked_child_waits_for_is_found(found: None) -> None:
    script = (
        "import os, tests.support.child\n"
        "from channels_sqlite.reports import Reports\n"
        "lock = Reports()._lock\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    assert lock.acquire(blocking=False)\n"
        "    lock.release()\n"
        "    with lock:\n"
        "        os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=locks.ROOT)
    assert look() == ["reports.Reports._lock is its parent's, and is waited for in a forked child"]


def test_a_lock_that_is_not_in_the_table_is_found(found: None) -> None:
    make("e.New.lock")
    assert look() == ["e.New.lock is not in locks.md"]


def test_the_table_has_the_locks_of_the_package() -> None:
    """By module, class and attribute. The test kit, which no server runs, has a lock of its own."""
    order = locks.order()
    assert {*order.inside, *order.flags, *order.bells} == {
        f"{module}.{owner.name}.{attribute}"
        for path in PACKAGE.rglob("*.py")
        if (module := ".".join(path.relative_to(PACKAGE).with_suffix("").parts)).partition(".")[0] != "testing"
        for owner in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(owner, ast.ClassDef)
        for attribute in re.findall(r"self\.(\w+)(?:: [^=\n]+)? = threading\.Lock\(\)", ast.unparse(owner))
    }


def test_every_lock_of_the_package_is_made_by_an_object_or_reentrant() -> None:
    """Others would not be checked."""
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "threading.Lock()" in line and not re.match(r"\s+self\.\w+(?:: [^=]+)? = ", line)
    ]
    assert elsewhere == ["testing/losses.py: lock = threading.Lock()"]
    assert isinstance(inside.making_of_layers(), CheckedLock)


def test_locks_are_renewed_in_forked_children_alone() -> None:
    """Elsewhere threads may hold the old one, or wait for it, while others take the new one."""
    in_a_child = {"abandon", "_after_fork_in_child"}
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {ast.unparse(node)} in {method.name}()"
        for path in PACKAGE.rglob("*.py")
        for method in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(method, ast.FunctionDef)
        for node in ast.walk(method)
        if (ast.unparse(node).endswith(".abandon()") and isinstance(node, ast.Call) and method.name not in in_a_child)
        or (
            isinstance(node, ast.Assign)
            and ast.unparse(node).startswith("self.")
            and ast.unparse(node.value) == "threading.Lock()"
            and method.name not in {"__init__", *in_a_child}
        )
    ]
    assert elsewhere == []


def test_the_package_makes_such_locks_here_and_in_processes_that_are_started(
    found: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locks.installed()
    script = (
        "import tests.support.child, threading\n"
        "from channels_sqlite.concurrency.gate import Gate\n"
        "from tests.support.locks import CheckedLock\n"
        "lock = Gate()._lock\n"
        "assert isinstance(lock, CheckedLock), lock\n"
        "assert not isinstance(threading.Lock(), CheckedLock)\n"
        "CheckedLock('e.New.lock')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=locks.ROOT)
    assert look() == ["e.New.lock is not in locks.md"]
