"""Channels' own worker: `manage.py runworker` delivers what is sent to its channels."""

import signal
import sqlite3
from contextlib import closing

import pytest

from tests.django.project import Project
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

DEADLINE_S = 30

CONSUMERS = """
    from channels.consumer import AsyncConsumer, SyncConsumer
    from asgiref.sync import async_to_sync

    class Thumbnails(AsyncConsumer):
        async def thumbnail_make(self, message):
            await self.channel_layer.send("replies", {"id": message["id"], "from": "async"})

    class Emails(SyncConsumer):
        def email_send(self, message):
            async_to_sync(self.channel_layer.send)("replies", {"id": message["id"], "from": "sync"})
"""

ASGI = """
    import os
    from channels.routing import ChannelNameRouter, ProtocolTypeRouter
    from django.core.asgi import get_asgi_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django_application = get_asgi_application()

    from project.consumers import Emails, Thumbnails

    application = ProtocolTypeRouter({
        "http": django_application,
        "channel": ChannelNameRouter({"thumbnails": Thumbnails.as_asgi(), "emails": Emails.as_asgi()}),
    })
"""

SEND_AND_WAIT = """
    import asyncio
    from channels.layers import get_channel_layer

    async def main():
        layer = get_channel_layer()
        for number in range(20):
            await layer.send("thumbnails", {"type": "thumbnail.make", "id": number})
            await layer.send("emails", {"type": "email.send", "id": number})
        replies = [await asyncio.wait_for(layer.receive("replies"), 20) for _ in range(40)]
        for kind in ("async", "sync"):
            print(kind, sorted(reply["id"] for reply in replies if reply["from"] == kind) == list(range(20)))
        await layer.close()

    asyncio.run(main())
"""


def test_runworker_delivers_and_ends_when_told(project: Project) -> None:
    project.migrated()
    project.write("project/consumers.py", CONSUMERS)
    project.write("project/asgi.py", ASGI)
    project.settings('ASGI_APPLICATION = "project.asgi.application"\n')
    with project.running("runworker", "thumbnails", "emails") as worker:
        eventually(lambda: listeners(project) >= {"thumbnails", "emails"}, DEADLINE_S, what=project.log())
        printed = project.shell(SEND_AND_WAIT)
        assert "async True" in printed, project.log()
        assert "sync True" in printed, project.log()
        assert worker.poll() is None, project.log()
        worker.send_signal(signal.SIGINT)
        worker.wait(DEADLINE_S)
    assert "Error" not in project.log().replace("KeyboardInterrupt", "")


def listeners(project: Project) -> set[str]:
    """The normal channels that somebody waits on."""
    with closing(sqlite3.connect(project.folder / "channels.sqlite3", timeout=10)) as connection:
        return {name for (name,) in connection.execute("SELECT channel FROM channels_sqlite_listener")}
