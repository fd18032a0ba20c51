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
from thumbnails.messages import JobProgress, Snapshot, all_jobs, one_job
from thumbnails.snapshots import latest_jobs, state_of

__all__ = ["JobsConsumer"]

logger = logging.getLogger(__name__)

# What the page is told when its connection is closed; 4000 to 4999 are free for applications.
BAD_FRAME = 4400
SERVER_TROUBLE = 4500


class JobsConsumer(DirectDispatch, AsyncWebsocketConsumer):
    """Shows one job, or the latest ones, as they stand and as they go on.

    Every step of a job goes to all pages: with `DirectDispatch` that costs the server several times less.
    """

    @override
    async def connect(self) -> None:
        """Accept the page and tell it how things stand; from then on it hears what changes."""
        self.job: int | None = self.scope["url_route"]["kwargs"].get("job")
        self.group = all_jobs if self.job is None else one_job(self.job)
        await self.accept()
        await self._join_and_show()

    @override
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Show how things stand when the page asks: it has heard nothing for a while."""
        if text_data != '{"type":"look"}':
            await self.close(BAD_FRAME, "unknown frame")
            return
        # A membership ends after "group_expiry"; a page may stay open for longer.
        await self._join_and_show()

    @override
    async def disconnect(self, code: int) -> None:
        """Leave. Not called when the server process is killed; the layer notices that by itself."""
        try:
            await self.group.adiscard(self.channel_name)
        except ChannelDatabaseError:
            logger.exception("The channel layer's database failed")

    async def job_progress(self, message: JobProgress) -> None:
        """Pass on what a worker or a view has to say about a job."""
        await self.send(text_data=json.dumps(message))

    async def _join_and_show(self) -> None:
        """Join first, then read: what happens in between is told twice rather than never."""
        try:
            await self.group.aadd(self.channel_name)
        except ChannelDatabaseError:
            # The page tries again by itself, with growing pauses, until the database is well.
            logger.exception("The channel layer's database failed")
            await self.close(SERVER_TROUBLE)
            return
        if self.job is None:
            jobs = await database_sync_to_async(latest_jobs)()
        else:
            jobs = await database_sync_to_async(state_of)(self.job)
        snapshot: Snapshot = {"type": "snapshot", "pid": os.getpid(), "jobs": jobs}
        await self.send(text_data=json.dumps(snapshot))
