"""What the figures were measured on: hardware and versions."""

import importlib.metadata
import importlib.util
import os
import platform
import sqlite3
import subprocess
from pathlib import Path

from tests.support.redis_server import find_redis_server

from .postgres_server import find_postgres

__all__ = ["describe_host"]

_PACKAGES = (
    "Django",
    "channels",
    "asgiref",
    "msgpack",
    "channels_redis",
    "redis",
    "channels-lite",
    "aiosqlite",
    "channels_postgres",
    "psycopg",
    "channels_sqlite",
)


def describe_host(folder: Path) -> dict[str, str]:
    """Return name to value, for the head of a report. ``folder`` is where the stores are made."""
    facts = {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "System": f"{platform.system()} {platform.release()}",
        "Load when it began": f"{os.getloadavg()[0]:.1f} (anything much above 0 makes the figures doubtful)",
        "Stores on": _file_system(folder),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "redis-server": _redis_server_version(),
        "PostgreSQL": _postgres_version(),
    }
    facts |= {name: _package_version(name) for name in _PACKAGES}
    return facts | {"Source tree at": _commit()}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds ``folder``: the mount point that matches most of its path."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    resolved = folder.resolve()
    holders = [(len(mount[1]), mount[2]) for mount in mounts if resolved.is_relative_to(mount[1])]
    return max(holders)[1] if holders else "unknown"


def _redis_server_version() -> str:
    program = find_redis_server()
    if program is None:
        return "not installed"
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    words = (word.partition("=") for word in answer.stdout.split())
    return next((value for name, _, value in words if name == "v"), "unknown")


def _postgres_version() -> str:
    folder = find_postgres()
    if folder is None:
        return "not installed"
    program = [str(folder / "postgres"), "--version"]
    answer = subprocess.run(program, capture_output=True, text=True, timeout=10, check=False)
    return answer.stdout.strip().removeprefix("postgres (PostgreSQL) ") or "unknown"


def _commit() -> str:
    """Return the commit of the checkout this module is in, marked when files differ from it."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "no commit"


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "source tree" if importlib.util.find_spec(name) else "not installed"
