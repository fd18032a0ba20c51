"""The pages of the chat."""

import time

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from activity.messages import activity, happened
from chat.forms import AnnouncementForm, RoomForm
from chat.messages import MAX_NAME_LENGTH, MAX_TEXT_LENGTH, Announced, group_of
from chat.models import Room

__all__ = ["announce", "room_list", "room_page"]


@require_http_methods(["GET", "POST"])
def room_list(request: HttpRequest) -> HttpResponse:
    """List the rooms; a posted form leads into the room that it names."""
    form = RoomForm(request.POST or None)
    if form.is_valid():
        return redirect("chat:room", room=form.cleaned_data["name"])
    return render(request, "chat/rooms.html", {"form": form, "rooms": Room.latest()})


@require_GET
def room_page(request: HttpRequest, room: str) -> HttpResponse:
    """Show a room. It comes into being when the first person enters, over the WebSocket."""
    context = {"room": room, "max_name_length": MAX_NAME_LENGTH, "max_text_length": MAX_TEXT_LENGTH}
    return render(request, "chat/room.html", context)


@require_http_methods(["GET", "POST"])
def announce(request: HttpRequest) -> HttpResponse:
    """Say something in every room: a plain view, which reaches the pages of all server processes."""
    form = AnnouncementForm(request.POST or None)
    if form.is_valid():
        now_ms = time.time_ns() // 1_000_000
        announced: Announced = {"type": "chat.announced", "text": form.cleaned_data["text"], "sent_at_ms": now_ms}
        rooms = [group_of(name) for name in Room.objects.values_list("name", flat=True)]
        for room in rooms:
            room.send(announced)
        where = f"{len(rooms)} {'room' if len(rooms) == 1 else 'rooms'}"
        activity.send(happened(f"Somebody announced something in {where}", reverse("chat:rooms")))
        messages.success(request, f"Announced in {where}.")
        return redirect("announce")
    return render(request, "chat/announce.html", {"form": form})
