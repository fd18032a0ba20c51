"""The documentation of histories: its code runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.django.project import Project, start_project
from tests.packaging.pages import anchors, blocks, page

PAGE = "docs/history.md"
SETTINGS = "mysite/settings.py"

USE = """
import asyncio
import json

from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.test import RequestFactory

from mysite.consumers import Chat, room
from mysite.views import latest


async def page(since=None):
    path = "/ws/room/" + ("" if since is None else f"?since={since}")
    connected = WebsocketCommunicator(Chat.as_asgi(), path)
    assert (await connected.connect())[0]
    return connected


async def told(connected):
    texts = []
    while True:
        heard = await connected.receive_json_from(timeout=30)
        if "text" not in heard:
            return texts, heard["caught_up"], heard["position"]
        texts.append(heard["text"])


async def visit():
    await room.asend({"type": "chat.message", "text": "before"})
    first = await page()
    texts, caught_up, position = await told(first)
    assert (texts, caught_up) == (["before"], True)
    await first.send_json_to({"text": "hello"})
    live = await first.receive_json_from(timeout=30)
    assert live["text"] == "hello"
    await first.disconnect()
    for number in range(20):
        await room.asend({"type": "chat.message", "text": str(number)})
    again = await page(live["position"])
    assert (await told(again))[:2] == ([str(number) for number in range(20)], True)
    await again.disconnect()
    lost = await page("nonsense")
    texts, caught_up, _ = await told(lost)
    assert (len(texts), caught_up) == (22, False)
    await lost.disconnect()

asyncio.run(visit())
print("the consumer ran")

answer = json.loads(latest(RequestFactory().get("/")).content)
assert answer["texts"] == [str(number) for number in range(20)]
assert room.history(since=answer["position"]).recovered
print("the view ran")
"""


def test_every_block_is_known() -> None:
    found = [(block.language, block.file) for block in blocks(PAGE)]
    assert found == [
        ("python", SETTINGS),
        ("python", "mysite/consumers.py"),
        ("js", ""),  # the example's page does the same, in a browser
        ("python", "mysite/views.py"),
    ]


@pytest.mark.processes
def test_the_consumer_and_the_view_run(no_leaks: None, tmp_path: Path) -> None:
    project: Project = start_project(tmp_path)
    for block in blocks(PAGE):
        if block.file == SETTINGS:
            project.settings(block.text)
        elif block.file:
            project.write(block.file, block.text)
    project.migrated()
    printed = project.shell(USE)
    assert [line for line in printed.splitlines() if line.endswith(" ran")] == ["the consumer ran", "the view ran"]


def test_links_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", page(PAGE)))
    assert len(links) >= 7
    assert links <= anchors(PAGE)
