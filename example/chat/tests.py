"""What the chat's views do, without processes and without a browser: ``manage.py test``."""

from __future__ import annotations

from django.test import TestCase, override_settings
from django.utils import timezone

from channels_sqlite import Channel
from chat.messages import InRoom, group_of
from chat.models import Room


@override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
class AnnouncementTests(TestCase):
    """One form, all rooms."""

    def test_every_room_hears_it(self) -> None:
        for name in ("red", "blue"):
            Room.objects.create(name=name, entered_at=timezone.now())
            group_of(name).add(f"listener-{name}")
        response = self.client.post("/announce/", {"text": "Tea is ready."}, follow=True)
        self.assertContains(response, "Announced in 2 rooms.")
        for name in ("red", "blue"):
            listener: Channel[InRoom] = Channel(f"listener-{name}")
            message = listener.receive(timeout=0)
            assert message["type"] == "chat.announced"
            self.assertEqual(message["text"], "Tea is ready.")

    def test_an_empty_one_is_not_sent(self) -> None:
        Room.objects.create(name="red", entered_at=timezone.now())
        group_of("red").add("listener")
        self.assertContains(self.client.post("/announce/", {"text": "  "}), "This field is required.")
        listener: Channel[InRoom] = Channel("listener")
        with self.assertRaises(TimeoutError):
            listener.receive(timeout=0)
