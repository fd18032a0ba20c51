"""The documentation of presence says what the code does, and its code runs as it stands there."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypercorn.config import Config as HypercornConfig
from uvicorn.config import Config as UvicornConfig

from channels_sqlite import Presence
from channels_sqlite.present import MAX_INFO_BYTES, MAX_KEY_LENGTH
from tests.django.project import Project, start_project
from tests.packaging.pages import blocks, page

PAGE = "docs/presence.md"
TEXT = page(PAGE)

DEADLINE_S = 60

USE = """
import asyncio
import json
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.test import RequestFactory
from django.urls import path
from asgiref.sync import sync_to_async

from rooms.consumers import RoomConsumer
from rooms.lobby import LobbyConsumer
from rooms.views import where, who

site = URLRouter([path("rooms/<str:name>/", RoomConsumer.as_asgi()), path("lobby/", LobbyConsumer.as_asgi())])


async def page(path):
    opened = WebsocketCommunicator(site, path)
    assert (await opened.connect())[0]
    return opened, await opened.receive_json_from(10)


async def use():
    lobby, count = await page("/lobby/")
    assert count == {"count": 0}
    ann, here = await page("/rooms/ann/")
    assert here == {"here": {"ann": {"name": "Ann"}}}
    assert await lobby.receive_json_from(10) == {"count": 1}
    bob, here = await page("/rooms/bob/")
    assert here == {"here": {"ann": {"name": "Ann"}, "bob": {"name": "Bob"}}}
    joins = {"joins": {"bob": {"name": "Bob"}}, "leaves": {}, "updates": {}}
    assert await ann.receive_json_from(10) == joins
    assert await lobby.receive_json_from(10) == {"count": 2}
    await ann.send_json_to({"name": "Ann B."})
    for one in (ann, bob):
        assert await one.receive_json_from(10) == {"joins": {}, "leaves": {}, "updates": {"ann": {"name": "Ann B."}}}
    assert await lobby.receive_json_from(10) == {"count": 2}
    response = await sync_to_async(who)(RequestFactory().get("/"))
    assert json.loads(response.content) == {"count": 2, "names": ["Ann B.", "Bob"]}
    response = await sync_to_async(where)(RequestFactory().get("/"), "bob")
    assert json.loads(response.content) == {"groups": ["room.1"]}
    await bob.disconnect()
    assert await lobby.receive_json_from(10) == {"count": 1}
    assert (await ann.receive_json_from(10))["leaves"] == {"bob": {"name": "Bob"}}
    await ann.disconnect()
    assert await lobby.receive_json_from(10) == {"count": 0}
    await lobby.disconnect()


asyncio.run(use())
print("it runs")
"""


@pytest.fixture
def project(no_leaks: None, tmp_path: Path) -> Project:
    """A project with all that the documentation has in files."""
    project = start_project(tmp_path)
    project.write("rooms/__init__.py", "")
    for block in blocks(PAGE):
        if block.file:
            project.write(block.file, block.text)
    project.migrated()
    return project


def test_every_block_is_known() -> None:
    found = [(block.language, block.file) for block in blocks(PAGE)]
    assert found == [
        ("python", "rooms/presence.py"),
        ("python", "rooms/consumers.py"),
        ("json", ""),
        ("python", "rooms/views.py"),
        ("python", "rooms/lobby.py"),
        ("javascript", ""),  # the example's page does it
    ]


@pytest.mark.processes
def test_the_consumers_and_the_views_run(project: Project) -> None:
    assert "it runs" in project.shell(USE)


def test_the_message_has_the_shape_of_one() -> None:
    [text] = [block.text for block in blocks(PAGE) if block.language == "json"]
    assert list(json.loads(text)) == ["type", "group", "joins", "leaves", "updates"]


def test_every_method_is_in_the_table() -> None:
    methods = {name for name in vars(Presence) if not name.startswith("_")} - {"name", "layer"}
    table = TEXT.partition("| method |")[2].partition("\n\n")[0]
    assert {name for name in methods if not name.startswith("a")} == set(re.findall(r"`(\w+)\(", table))
    for name in ("join", "update", "leave", "list", "count", "watch", "groups"):
        assert f"presence_{name}" in TEXT


def test_the_limits_are_those_of_the_code() -> None:
    assert f"1 to {MAX_KEY_LENGTH} characters" in TEXT
    assert f"at most {MAX_INFO_BYTES:,} encoded bytes" in TEXT


def test_the_settings_of_the_servers_are_theirs() -> None:
    uvicorn = UvicornConfig("app")
    assert (uvicorn.ws_ping_interval, uvicorn.ws_ping_timeout) == (20.0, 20.0)
    # In a process of its own: it brings a reactor along.
    code = "from daphne.cli import CommandLineInterface as cli; print(vars(cli().parser.parse_args(['app'])))"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    daphne = ast.literal_eval(re.sub(r"<[^>]*>", "None", finished.stdout))
    assert (daphne["ping_interval"], daphne["ping_timeout"]) == (20, 30)
    assert HypercornConfig().websocket_ping_interval is None


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert len(links) >= 6
    assert links <= anchors
