"""The feed and its stream, without a server and without a browser: ``manage.py test``."""

from __future__ import annotations

import json
from typing import Any

from django.test import TestCase
from django.utils import timezone

from activity.messages import activity, happened
from channels_sqlite.testing import IsolatedChannelLayersMixin
from chat.models import Room


class FeedTests(IsolatedChannelLayersMixin, TestCase):
    """What happens is kept, and told to whoever comes."""

    def test_the_page_names_its_stream(self) -> None:
        self.assertContains(self.client.get("/activity/"), 'data-events="/activity/events/"')

    def test_an_announcement_is_told(self) -> None:
        Room.objects.create(name="red", entered_at=timezone.now())
        self.client.post("/announce/", {"text": "Tea is ready."})
        [entry] = activity.history(last=10).entries
        self.assertEqual(entry.message["text"], "Somebody announced something in 1 room")

    async def test_the_stream_begins_with_what_has_happened_and_goes_on(self) -> None:
        for text in ("one", "two"):
            await activity.asend(happened(text, "/"))
        response: Any = await self.async_client.get("/activity/events/")  # Any: its type is that of any response
        try:
            stream = aiter(response.streaming_content)
            told = await anext(stream)
            self.assertEqual(told.count(b"event: activity.happened\n"), 2)
            self.assertLess(told.index(b"one"), told.index(b"two"))
            await activity.asend(happened("three", "/"))
            data = (await anext(stream)).partition(b"data: ")[2]
            self.assertEqual(json.loads(data)["text"], "three")
        finally:
            response.close()
