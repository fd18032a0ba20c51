"""Every message of the chat and its shape: between server processes, from a page, and to a page."""

from __future__ import annotations

import json
from typing import Literal, TypedDict

from channels_sqlite import Channel, Group

__all__ = [
    "MAX_NAME_LENGTH",
    "MAX_TEXT_LENGTH",
    "Announced",
    "BadFrameError",
    "FromPage",
    "Here",
    "InRoom",
    "Join",
    "Joined",
    "Left",
    "Present",
    "Said",
    "Say",
    "ToPage",
    "Welcome",
    "group_of",
    "newcomer",
    "read_frame",
]

MAX_NAME_LENGTH = 30
MAX_TEXT_LENGTH = 2000
MAX_PAGE_ID_LENGTH = 36


# Through the channel layer, from consumer to consumer. "chat.said" is handled by the method chat_said, and so on.
# ``page`` identifies one open page: it stays the same when that page connects again, so that nobody is shown twice.


class Said(TypedDict):
    """Somebody said something."""

    type: Literal["chat.said"]
    page: str
    name: str
    text: str
    sent_at_ms: int


class Joined(TypedDict):
    """Somebody came in, or took another name. The others answer ``Present`` to the channel ``answer_to``."""

    type: Literal["chat.joined"]
    page: str
    name: str
    answer_to: str


class Present(TypedDict):
    """Somebody is in the room."""

    type: Literal["chat.present"]
    page: str
    name: str


class Left(TypedDict):
    """Somebody left."""

    type: Literal["chat.left"]
    page: str
    name: str


class Announced(TypedDict):
    """The site itself has something to say: sent by a view, to every room."""

    type: Literal["chat.announced"]
    text: str
    sent_at_ms: int


InRoom = Said | Joined | Present | Left | Announced


def group_of(room: str) -> Group[InRoom]:
    """Return the group of a room's pages; all characters of a room's name are allowed in a group's."""
    return Group(f"chat.{room}")


def newcomer(channel: str) -> Channel[Present]:
    """Return the channel of one page, for those who let it know that they are here."""
    return Channel(channel)


# From a page to its consumer.


class Join(TypedDict):
    """The first frame of a page; a later one changes the name."""

    type: Literal["join"]
    page: str
    name: str


class Say(TypedDict):
    """A line of chat."""

    type: Literal["say"]
    text: str


class Here(TypedDict):
    """Sent now and then, so that the others know that this page is still open."""

    type: Literal["here"]


# From a consumer to its page.


class Welcome(TypedDict):
    """The first frame that a page gets: which server process it is connected to."""

    type: Literal["welcome"]
    pid: int


FromPage = Join | Say | Here
ToPage = Welcome | InRoom


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
            "page": _text(frame, "page", MAX_PAGE_ID_LENGTH),
            "name": _text(frame, "name", MAX_NAME_LENGTH),
        }
    if kind == "say":
        return {"type": "say", "text": _text(frame, "text", MAX_TEXT_LENGTH)}
    if kind == "here":
        return {"type": "here"}
    raise BadFrameError("unknown type")


def _text(frame: dict[str, object], key: str, longest: int) -> str:
    """Return ``frame[key]`` without surrounding space: a string of 1 to ``longest`` characters."""
    value = frame.get(key)
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= longest:
        raise BadFrameError(f"{key} is not a text of 1 to {longest} characters")
    # A page can send half of a surrogate pair, which is no Unicode text and could not be encoded.
    return value.strip().encode("utf-8", "replace").decode("utf-8")
