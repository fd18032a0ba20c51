"""The WebSocket behind the pages about thumbnails: it only tells, and never works."""

from __future__ import annotations

import json
import logging
import os

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from typing_extensions import override

from channels_sqlite.consumers import DirectDispatch
from channels_sqlite.exceptions import ChannelDatabaseError
from thumbnails.messages import (
    JobShown,
    JobState,
    NewTask,
    Snapshot,
    TaskProgress,
    TaskStatus,
    new_tasks,
    news_of,
)
from thumbnails.snapshots import latest_jobs, state_of

__all__ = ["JobsConsumer"]

logger = logging.getLogger(__name__)

# What the page is told when its connection is closed; 4000 to 4999 are free for applications.
BAD_FRAME = 4400
SERVER_TROUBLE = 4500


class JobsConsumer(DirectDispatch, AsyncWebsocketConsumer):
    """Shows one job, or the latest ones, as they stand and as they go on.

    Every step of a task goes to all its pages: with `DirectDispatch` that costs the server several times less.
    """

    @override
    async def connect(self) -> None:
        """Accept the page and tell it how things stand; from then on it hears what changes."""
        self.job: int | None = self.scope["url_route"]["kwargs"].get("job")
        self.followed: dict[str, int] = {}  # the tasks of whose groups this page is a member, and their jobs
        await self.accept()
        await self._join_and_show()

    @override
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Show how things stand when the page asks."""
        if text_data != '{"type":"look"}':
            await self.close(BAD_FRAME, "unknown frame")
            return
        await self._join_and_show()

    @override
    async def disconnect(self, code: int) -> None:
        """Leave. Not called when the server process is killed; the layer notices that by itself."""
        try:
            await new_tasks.adiscard(self.channel_name)
            for task in self.followed:
                await news_of(task).adiscard(self.channel_name)
        except ChannelDatabaseError:
            logger.exception("The channel layer's database failed")

    async def task_new(self, message: NewTask) -> None:
        """Show a job that has a new task, and follow that."""
        if self.job in {None, message["job"]}:
            await self._show(message["job"])

    async def task_status(self, message: TaskStatus) -> None:
        """Show what has become of the job."""
        job = self.followed.get(message["id"])
        if job is not None:
            await self._show(job)

    async def task_progress(self, message: TaskProgress) -> None:
        """Pass on how far a task has come: the page moves its bar."""
        await self.send(text_data=json.dumps(message))

    async def _show(self, job: int) -> None:
        for state in await self._states(job):
            shown: JobShown = {"type": "job", "job": state}
            await self.send(text_data=json.dumps(shown))

    async def _join_and_show(self) -> None:
        try:
            # Again when the page asks: a membership ends after "group_expiry", and a page may stay open for longer.
            await new_tasks.aadd(self.channel_name)
            for task in self.followed:
                await news_of(task).aadd(self.channel_name)
            jobs = await self._states(self.job)
        except ChannelDatabaseError:
            # The page tries again by itself, with growing pauses, until the database is well.
            logger.exception("The channel layer's database failed")
            await self.close(SERVER_TROUBLE)
            return
        snapshot: Snapshot = {"type": "snapshot", "pid": os.getpid(), "jobs": jobs}
        await self.send(text_data=json.dumps(snapshot))

    async def _states(self, job: int | None) -> list[JobState]:
        """Return how a job stands, or the latest ones, whose tasks this page follows from now on.

        What is joined must be read again: something may have happened in between, which nobody told this page.
        """
        states = await _read(job)
        while await self._follow(states):
            states = await _read(job)
        return states

    async def _follow(self, states: list[JobState]) -> bool:
        """Join the groups of unfinished tasks, leave those of finished ones; return whether any was joined."""
        joined = False
        for state in states:
            task, over = state["task"], state["state"] in {"done", "failed"}
            if over and self.followed.pop(task, None) is not None:
                await news_of(task).adiscard(self.channel_name)
            elif task and not over and task not in self.followed:
                await news_of(task).aadd(self.channel_name)
                self.followed[task] = state["id"]
                joined = True
        return joined


@database_sync_to_async
def _read(job: int | None) -> list[JobState]:
    return latest_jobs() if job is None else state_of(job)
