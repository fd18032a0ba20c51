"""A PostgreSQL cluster for the length of one run: reached through a Unix socket that only this user may use.

The server refuses to run as root, so then it runs as the user ``postgres``, which Debian's package makes.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.servers import running_server

__all__ = ["find_postgres", "make_cluster", "missing_user", "postgres_database", "running_postgres"]

_COMMAND_LIMIT_S = 60.0
_SERVER_USER = "postgres"
_OPTIONS = {
    "listen_addresses": "",
    # What SQLite's WAL mode with synchronous=NORMAL promises: a power cut may take the last commits.
    "synchronous_commit": "off",
    # channels_postgres holds an advisory lock for each channel that it receives on: 10,000 in the largest broadcast.
    "max_locks_per_transaction": "512",
}
"""Everything else is PostgreSQL's default."""


def find_postgres() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, None where there is none. Debian keeps it off PATH."""
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    return max((path.parent for path in versions), key=lambda folder: float(folder.parent.name), default=None)


def missing_user() -> str | None:
    """Return what is wrong with the user the server would run as; None when all is well."""
    try:
        user = _server_user()
        if user is not None:
            pwd.getpwnam(user)
    except KeyError:
        return f"the user {_SERVER_USER!r} (the server does not run as root)"
    return None


def make_cluster(cluster: Path) -> None:
    """Make a cluster in the new folder ``cluster``; RuntimeError with initdb's last words when that fails.

    Its superuser has the name of this process's user. The folders above must let the server's user through.
    """
    user = _server_user()
    cluster.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(cluster, user, user)
    # "peer": the kernel says who connects, so that no other user of this machine can.
    options = ["--username", _own_name(), "--auth", "peer", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
    making = subprocess.run(
        [str(_programs() / "initdb"), "--pgdata", str(cluster), *options],
        capture_output=True,
        text=True,
        timeout=_COMMAND_LIMIT_S,
        check=False,
        cwd=cluster,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    if making.returncode:
        raise RuntimeError(f"initdb failed: {making.stderr.strip()[-500:]}")


@contextmanager
def running_postgres(cluster: Path, folder: Path) -> Iterator[None]:
    """Run the server over ``cluster`` as long as the block lasts; its log goes into ``folder``."""
    options = [f"-c{name}={value}" for name, value in {**_OPTIONS, "unix_socket_directories": cluster}.items()]
    look = [str(_programs() / "pg_isready"), "--quiet", "--host", str(cluster)]

    def is_ready() -> bool:
        return subprocess.run(look, timeout=_COMMAND_LIMIT_S, check=False).returncode == 0

    with running_server(
        [str(_programs() / "postgres"), "-D", str(cluster), *options],
        is_ready=is_ready,
        log=folder / "postgres.log",
        # The "fast" shutdown: it does not wait for clients to leave.
        stop_signal=signal.SIGINT,
        user=_server_user(),
    ):
        yield


# Any: values of DATABASES are of several types.
def postgres_database(cluster: Path) -> dict[str, Any]:
    """Return the entry of DATABASES for a running cluster."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": _own_name(),
        "PASSWORD": "",
        "HOST": str(cluster),
        "PORT": "5432",
    }


def _programs() -> Path:
    folder = find_postgres()
    if folder is None:
        raise RuntimeError("PostgreSQL is not installed")
    return folder


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _server_user() -> str | None:
    return _SERVER_USER if os.geteuid() == 0 else None
