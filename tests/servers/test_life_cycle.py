"""Servers that serve a site with a layer end cleanly, and leave nothing behind."""

import importlib.util
import os
import signal

import pytest

from tests.servers.site import DEADLINE_S, Site, say
from tests.support.programs import HOST
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

APPLICATION = "project.asgi:application"
UVICORN_WORKER = ("--worker-class", "uvicorn_worker.UvicornWorker")

SERVERS = {
    "daphne": ("daphne", "--bind", HOST, "--port", "{port}", APPLICATION),
    "uvicorn": ("uvicorn", "--host", HOST, "--port", "{port}", APPLICATION),
    "uvicorn-bare": ("uvicorn", "--host", HOST, "--port", "{port}", "project.bare:application"),
    "uvicorn-workers": ("uvicorn", "--host", HOST, "--port", "{port}", "--workers", "2", APPLICATION),
    "uvicorn-reload": ("uvicorn", "--host", HOST, "--port", "{port}", "--reload", APPLICATION),
    "gunicorn": ("gunicorn", *UVICORN_WORKER, "--bind", HOST + ":{port}", APPLICATION),
    "gunicorn-preload": ("gunicorn", *UVICORN_WORKER, "--bind", HOST + ":{port}", "--preload", APPLICATION),
    # One worker: of several it kills the rest once the first has ended.
    "hypercorn": ("hypercorn", "--bind", HOST + ":{port}", APPLICATION),
    "runserver": ("manage.py", "runserver", HOST + ":{port}"),
}
"""Module and options of each; `{port}` stands for the port."""

READERS = {"uvicorn-workers": 2, "gunicorn-preload": 2}
"""How many processes read from the layer when one visitor is there, where that is not one."""

WAITS_FOR_VISITORS = {"hypercorn"}
"""Ends, from Python 3.12 on, only once every visitor has left, with whatever application."""

WARNS_OF_ITSELF = {"uvicorn-workers", "runserver"}
"""Leaves a listening socket, or the object of a subprocess, of its own open."""


def serve(site: Site, server: str) -> None:
    module, *options = SERVERS[server]
    for needed in (module, *(["uvicorn_worker"] if module == "gunicorn" else [])):
        if needed != "manage.py" and importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    site.serve(
        module, *(option.format(port=site.port) for option in options), resource_warnings=server not in WARNS_OF_ITSELF
    )


@pytest.mark.parametrize(
    ("server", "number"),
    [
        ("daphne", signal.SIGTERM),
        ("uvicorn", signal.SIGTERM),
        ("uvicorn-bare", signal.SIGINT),
        ("uvicorn-workers", signal.SIGTERM),
        ("gunicorn", signal.SIGTERM),
        ("gunicorn-preload", signal.SIGTERM),
        ("hypercorn", signal.SIGTERM),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_server_that_is_told_to_end_leaves_nothing_behind(site: Site, server: str, number: signal.Signals) -> None:
    serve(site, server)
    with site.visit() as visitor:
        heard = say(visitor, "hello")
        assert heard["pid"] != os.getpid()
        eventually(lambda: len(site.readers()) == READERS.get(server, 1), DEADLINE_S, what=f"readers {site.readers()}")
        assert len(site.files()) == 2 * len(site.readers())
        assert len(site.members()) == 1
        if server in WAITS_FOR_VISITORS:
            visitor.close()
        site.signal(number)
        site.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("server", "number", "everybody"),
    # Told to end by SIGTERM, runserver kills the process that serves.
    [("uvicorn-reload", signal.SIGTERM, False), ("runserver", signal.SIGINT, True)],
    ids=["uvicorn-reload", "runserver"],
)
def test_a_server_that_reloads_leaves_nothing_of_its_former_process(
    site: Site, server: str, number: signal.Signals, everybody: bool
) -> None:
    serve(site, server)
    with site.visit() as visitor:
        before = say(visitor, "hello")
        readers, files = site.readers(), site.files()
        site.processes()
        assert list(readers.values()) == [before["pid"]]
        assert len(files) == 2
        eventually(lambda: site.reloads(readers), DEADLINE_S, what="the end of the former process")
        eventually(lambda: not files & site.files(), DEADLINE_S, what=f"the end of {files}")
    eventually(lambda: site.serves_again(before["pid"]), DEADLINE_S, what="a server after the reload")
    with site.visit() as visitor:
        after = say(visitor, "hello again")
        assert after["pid"] != before["pid"]
        assert list(site.readers().values()) == [after["pid"]]
        assert len(site.members()) == 1
        site.signal(number, everybody=everybody)
        site.assert_nothing_is_left()


def test_what_a_killed_server_leaves_is_cleaned_up_when_the_next_one_runs(site: Site) -> None:
    # Without lifespan SIGTERM kills uvicorn after its own shutdown: to others it looks like SIGKILL.
    serve(site, "uvicorn-bare")
    with site.visit() as visitor:
        say(visitor, "hello")
        readers, files = site.readers(), site.files()
        site.signal(signal.SIGTERM)
        site.program.process.wait(DEADLINE_S)
    serve(site, "uvicorn-bare")
    eventually(lambda: not readers.keys() & site.readers().keys(), DEADLINE_S, what="the end of the former reader")
    eventually(lambda: not files & site.files(), DEADLINE_S, what=f"the end of {files}")
    assert site.members() == []
    site.signal(signal.SIGINT)
    site.assert_nothing_is_left()
