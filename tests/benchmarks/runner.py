"""Runs one repetition of a scenario over a layer: a fresh store, fresh processes, and an end by force when it hangs."""

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, TypeVar

from .board import NoticeBoard
from .layers import Candidate
from .measures import Account, Effort, Outcome, Run, count_faults
from .scenarios import Role, Scenario
from .stores import copy_tree
from .worker import Assignment

__all__ = ["run_once"]

_LINE_LIMIT_BYTES = 2**28
_CLOSING_LIMIT_S = 10.0
_PROCESS_START_LIMIT_S = 10.0
_KILL_LIMIT_S = 10.0


class _WorkerError(Exception):
    """A worker said what went wrong, or ended without a word."""


@dataclass(frozen=True)
class _Answer:
    """What came back: the accounts by role and index, and a remark when closing went wrong after the work was done."""

    accounts: dict[tuple[str, int], Account]
    remark: str = ""


def run_once(scenario: Scenario, candidate: Candidate, repetition: int, effort: Effort, folder: Path) -> Run:
    """Return what came out; a hang or an error is an outcome, not an exception.

    The time limit leaves a slow layer ten times the effort's seconds (two minutes more at most), the time that the
    scenario allows for its start, and ten seconds for each process: a busy machine needs that.
    """
    if scenario.base is not None and not candidate.keeps_unread:
        remark = "it keeps no unread messages"
        return Run(
            scenario=scenario.key,
            layer=candidate.key,
            repetition=repetition,
            outcome="left out",
            remark=remark,
            seconds=0.0,
        )
    effort = dataclasses.replace(effort, seconds=effort.seconds * scenario.stretch)
    starting_s = scenario.start_limit_s + _PROCESS_START_LIMIT_S * scenario.processes
    limit_s = starting_s + min(10 * effort.seconds, effort.seconds + 120)
    start_s = time.perf_counter()
    outcome: Outcome = "failed"
    remark = ""
    accounts: dict[tuple[str, int], Account] = {}
    try:
        with TemporaryDirectory(dir=folder) as run_folder:
            # A server that runs as another user must be able to pass.
            Path(run_folder).chmod(0o711)
            stored = _store_backlog(scenario, candidate, effort, folder=folder, limit_s=limit_s)
            if stored is not None:
                copy_tree(stored.remains, Path(run_folder) / stored.remains.name)
            answer = _play(
                scenario,
                candidate,
                effort,
                folder=Path(run_folder),
                limit_s=limit_s,
                roles=[role for role in scenario.roles if not (stored and role.prepares)],
            )
        outcome, accounts = "ok", answer.accounts | (stored.accounts if stored else {})
        remark = "; ".join(filter(None, (*(account.remark for account in accounts.values()), answer.remark)))
    except asyncio.TimeoutError:
        outcome, remark = "timed out", f"no end after {limit_s:g} s"
    except (_WorkerError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        remark = str(error)
    by_role = _by_role(scenario, accounts) if accounts else {}
    return Run(
        scenario=scenario.key,
        layer=candidate.key,
        repetition=repetition,
        outcome=outcome,
        remark=remark,
        seconds=time.perf_counter() - start_s,
        values=scenario.figures(by_role) if accounts else {},
        counts=count_faults(list(accounts.values()), open_ended=scenario.open_ended),
        series=scenario.make_series(by_role) if accounts else (),
    )


def _by_role(scenario: Scenario, accounts: Mapping[tuple[str, int], Account]) -> dict[str, list[Account]]:
    return {role.name: [accounts[role.name, index] for index in range(role.count)] for role in scenario.roles}


@dataclass(frozen=True)
class _Stored:
    """What the preparing roles left: the store's file or folder, and their accounts."""

    remains: Path
    accounts: dict[tuple[str, int], Account]


def _store_backlog(
    scenario: Scenario, candidate: Candidate, effort: Effort, *, folder: Path, limit_s: float
) -> _Stored | None:
    """Return what the preparing roles have stored, now or for an earlier run.

    None when there are none, or when the layer's store leaves nothing behind, so that they have to play in each run.
    """
    roles = [role for role in scenario.roles if role.prepares]
    if not roles or candidate.remains is None:
        return None
    stock = folder / "-".join([candidate.key, *(role.name for role in roles)])
    finished = stock / "accounts.json"
    # Long before the first of them expires.
    if not finished.exists() or time.time() - finished.stat().st_mtime > scenario.limits.expiry_s / 2:
        shutil.rmtree(stock, ignore_errors=True)
        stock.mkdir(mode=0o711)
        answer = _play(scenario, candidate, effort, folder=stock, limit_s=limit_s, roles=roles)
        finished.write_text(json.dumps([[*part, dataclasses.asdict(each)] for part, each in answer.accounts.items()]))
    accounts = {(name, index): Account(**account) for name, index, account in json.loads(finished.read_text())}
    return _Stored(stock / candidate.remains, accounts)


def _play(
    scenario: Scenario, candidate: Candidate, effort: Effort, *, folder: Path, limit_s: float, roles: Sequence[Role]
) -> _Answer:
    """Return the answers of those who play ``roles``, over a store in ``folder``."""
    parts = [(role.name, index) for role in roles for index in range(role.count)]
    shares = [(part,) for part in parts] if candidate.crosses_processes else [tuple(parts)]
    with candidate.fresh_store(folder, scenario.limits) as store:
        assignments = [Assignment(scenario=scenario.key, parts=share, effort=effort, store=store) for share in shares]
        board = NoticeBoard()
        if not any(role.prepares for role in roles):
            for _ in range(scenario.preparers):
                board.publish("prepared")
        return asyncio.run(_run_workers(assignments, board, folder=folder, limit_s=limit_s))


async def _run_workers(
    assignments: Sequence[Assignment], board: NoticeBoard, *, folder: Path, limit_s: float
) -> _Answer:
    """Return the answers of all workers as one."""
    with (folder / "workers.log").open("a+b") as log:
        workers: list[asyncio.subprocess.Process] = []
        try:
            for assignment in assignments:
                worker = await _start(assignment, log)
                workers.append(worker)
            answers = await asyncio.wait_for(
                _gather_or_fail([_follow(worker, board, log) for worker in workers]), limit_s
            )
        finally:
            await _end(workers)
    return _Answer(
        {part: account for answer in answers for part, account in answer.accounts.items()},
        next((answer.remark for answer in answers if answer.remark), ""),
    )


async def _start(assignment: Assignment, log: IO[bytes]) -> asyncio.subprocess.Process:
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.benchmarks.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        limit=_LINE_LIMIT_BYTES,
    )
    _pipe(worker.stdin).write(assignment.to_json().encode() + b"\n")
    return worker


async def _follow(worker: asyncio.subprocess.Process, board: NoticeBoard, log: IO[bytes]) -> _Answer:
    """Serve a worker's notices until it has ended, or has had long enough to close its layer."""
    accounts: dict[tuple[str, int], Account] = {}
    async for data in _pipe(worker.stdout):
        # Any: a decoded line of JSON, written by worker.py and board.py.
        line: dict[str, Any] = json.loads(data)
        if "error" in line:
            raise _WorkerError(line["error"])
        if "accounts" in line:
            accounts = {(each["role"], each["index"]): Account(**each["account"]) for each in line["accounts"]}
            break
        board.handle(line, _pipe(worker.stdin))
    try:
        status = await asyncio.wait_for(worker.wait(), _CLOSING_LIMIT_S)
    except asyncio.TimeoutError:
        return _Answer(accounts, f"did not close within {_CLOSING_LIMIT_S:g} s of its work")
    if not accounts:
        raise _WorkerError(f"a worker ended with status {status}: {_last_line(log)}")
    return _Answer(accounts, f"failed to close: {_last_line(log)}" if status else "")


async def _gather_or_fail(
    followers: Iterable[Coroutine[object, object, _Answer]],
) -> list[_Answer]:
    """Return what all of them return; when one fails, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(follower) for follower in followers]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end(workers: Sequence[asyncio.subprocess.Process]) -> None:
    """Kill those that still live, and wait for the kernel to say that they are gone."""
    for worker in workers:
        if worker.returncode is None:
            worker.kill()
    for worker in workers:
        await asyncio.wait_for(worker.wait(), _KILL_LIMIT_S)


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


_Pipe = TypeVar("_Pipe", asyncio.StreamReader, asyncio.StreamWriter)


def _pipe(pipe: _Pipe | None) -> _Pipe:
    """Return a pipe that was asked for with PIPE, and so exists."""
    if pipe is None:
        raise RuntimeError("the worker was started without pipes")
    return pipe
