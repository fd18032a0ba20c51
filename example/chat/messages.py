"""Every message of the chat and its shape: between server processes, from a page, and to a page; who is in a room."""

from __future__ import annotations

import json
from typing import Literal, TypedDict

from channels_sqlite import Group, Presence

__all__ = [
    "MAX_NAME_LENGTH",
    "MAX_TEXT_LENGTH",
    "Announced",
    "BadFrameError",
    "CaughtUp",
    "Changed",
    "FromPage",
    "Here",
    "InRoom",
    "Join",
    "People",
    "Said",
    "Say",
    "Stay",
    "ToPage",
    "Visitor",
    "Welcome",
    "group_of",
    "people_of",
    "read_frame",
]

MAX_NAME_LENGTH = 30
MAX_TEXT_LENGTH = 2000
MAX_PERSON_LENGTH = 36


# Through the channel layer, from consumer to consumer. "chat.said" is handled by the method chat_said, and so on.
# ``person`` is one browser: it is the same in all its tabs, and stays the same when a page connects again.


class Said(TypedDict):
    """Somebody said something."""

    type: Literal["chat.said"]
    person: str
    name: str
    text: str
    sent_at_ms: int


class Announced(TypedDict):
    """The site itself has something to say: sent by a view, to every room."""

    type: Literal["chat.announced"]
    text: str
    sent_at_ms: int


InRoom = Said | Announced


def group_of(room: str) -> Group[InRoom]:
    """Return the group of a room's pages; all characters of a room's name are allowed in a group's."""
    return Group(f"chat.{room}")


# Who is in a room. The layer tells consumers of it: the method presence_diff.


class Visitor(TypedDict):
    """What a room shows of a person."""

    name: str


class Changed(TypedDict):
    """Who has come, gone, or taken another name, by person."""

    type: Literal["presence.diff"]
    group: str
    joins: dict[str, Visitor]
    leaves: dict[str, Visitor]
    updates: dict[str, Visitor]


def people_of(room: str) -> Presence[Visitor]:
    """Return who is in a room: the members of its group, each person once."""
    return Presence(f"chat.{room}")


# From a page to its consumer.


class Join(TypedDict):
    """The first frame of a page; a later one changes the name. ``since``: where the page was, if it comes back."""

    type: Literal["join"]
    person: str
    name: str
    since: str | None


class Say(TypedDict):
    """A line of chat."""

    type: Literal["say"]
    text: str


class Stay(TypedDict):
    """Sent now and then: a page may stay open for longer than a membership lasts."""

    type: Literal["stay"]


# From a consumer to its page.


class Welcome(TypedDict):
    """The first frame that a page gets: which server process it is connected to."""

    type: Literal["welcome"]
    pid: int


class Here(TypedDict):
    """Who is in the room as the page comes in, by person. What changes after that comes as ``Changed``."""

    type: Literal["here"]
    people: dict[str, Visitor]


class People(TypedDict):
    """How many are in one of the rooms that the list of rooms shows."""

    type: Literal["people"]
    room: str
    count: int


class CaughtUp(TypedDict):
    """What was said before the page came, or while it was away; ``recovered``: nothing of that is missing."""

    type: Literal["caught-up"]
    messages: list[InRoom]
    position: str
    recovered: bool


FromPage = Join | Say | Stay
ToPage = Welcome | CaughtUp | Here | Changed | InRoom


class BadFrameError(ValueError):
    """A page sent something that no page of ours sends; the message says what."""


def read_frame(text: str) -> FromPage:
    """Return what a page sent, checked. Raises BadFrameError: a WebSocket is open to anybody."""
    try:
        frame: object = json.loads(text)
    except ValueError as error:
        raise BadFrameError("not JSON") from error
    if not isinstance(frame, dict):
        raise BadFrameError("not a JSON object")
    kind = frame.get("type")
    if kind == "join":
        return {
            "type": "join",
            "person": _text(frame, "person", MAX_PERSON_LENGTH),
            "name": _text(frame, "name", MAX_NAME_LENGTH),
            "since": since if isinstance(since := frame.get("since"), str) else None,
        }
    if kind == "say":
        return {"type": "say", "text": _text(frame, "text", MAX_TEXT_LENGTH)}
    if kind == "stay":
        return {"type": "stay"}
    raise BadFrameError("unknown type")


def _text(frame: dict[str, object], key: str, longest: int) -> str:
    """Return ``frame[key]`` without surrounding space: a string of 1 to ``longest`` characters."""
    value = frame.get(key)
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= longest:
        raise BadFrameError(f"{key} is not a text of 1 to {longest} characters")
    # A page can send half of a surrogate pair, which is no Unicode text and could not be encoded.
    return value.strip().encode("utf-8", "replace").decode("utf-8")
