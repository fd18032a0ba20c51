"""The Debian system with Python 3.14: where it comes from, and that nothing of it is left."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import forky, machine
from tests.support.forky import PRIVATE, NotTriedError, command_inside, first_mirror, forky_system
from tests.support.waiting import eventually

TARGETS = """
http://one.example/tools cloud-tools main
http://two.example/security bookworm-security main
http://three.example/debian bookworm contrib
http://four.example/debian bookworm main
http://five.example/debian bookworm main
"""


def namespaces_can_be_had() -> bool:
    return subprocess.run([*PRIVATE, "true"], capture_output=True, timeout=30, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or not namespaces_can_be_had(), reason="no mounts of one's own without root on Linux"
)


# Where it comes from


def test_the_mirror_is_the_first_with_the_main_part_of_a_release() -> None:
    assert first_mirror(TARGETS, {"bookworm"}) == "http://four.example/debian"


@pytest.mark.parametrize("targets", ["", "E: something\n", TARGETS])
def test_no_mirror_is_taken_from_other_lines(targets: str) -> None:
    assert first_mirror(targets, {"trixie"}) is None


def test_others_than_root_do_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_root", lambda: False)
    with pytest.raises(NotTriedError, match="root"), forky_system():
        pass


@pytest.mark.parametrize("release", [{}, {"ID": "ubuntu", "VERSION_CODENAME": "noble"}])
def test_others_than_debian_do_not_try(monkeypatch: pytest.MonkeyPatch, release: dict[str, str]) -> None:
    monkeypatch.setattr(machine, "is_root", lambda: True)
    monkeypatch.setattr(forky, "os_release", lambda: release)
    with pytest.raises(NotTriedError, match="Debian"), forky_system():
        pass


# What is left


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


@needs_namespaces
def test_nothing_stays_mounted_and_nothing_runs_on(tmp_path: Path) -> None:
    before = mounts()
    log = tmp_path / "log"
    # One that outlives the command, as a forgotten server would.
    script = "mount -t tmpfs none /mnt && cat /proc/mounts; sleep 1000.25 &"
    with log.open("wb") as output:
        subprocess.run(command_inside(Path("/"), "sh", "-c", script), stdout=output, timeout=30, check=True)
    assert "none /mnt tmpfs" in log.read_text()
    assert mounts() == before
    eventually(lambda: not sleepers("1000.25"), what="the end of what the command left")


@needs_namespaces
def test_a_kill_takes_everything_along() -> None:
    before = mounts()
    script = "mount -t tmpfs none /mnt && echo mounted && sleep 1000.75"
    command = command_inside(Path("/"), "sh", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mounted\n"
        eventually(lambda: sleepers("1000.75"), what="the command runs")
        process.kill()
    eventually(lambda: not sleepers("1000.75"), what="the end of what the command started")
    assert mounts() == before


def sleepers(time: str) -> list[int]:
    """The processes that sleep for so long."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", time]]
