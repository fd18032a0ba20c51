"""What a browser makes of an event stream, step by step as the standard has it
(https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
"""

import codecs
import re
from dataclasses import dataclass

__all__ = ["EventSource", "Heard"]

BOM = "\ufeff"


@dataclass(frozen=True)
class Heard:
    """An event as its listener gets it."""

    type: str
    data: str
    last_event_id: str = ""


class EventSource:
    """Takes the bytes of one response after the other, as they come."""

    def __init__(self) -> None:
        self.events: list[Heard] = []
        self.comments = 0
        self.last_event_id = ""
        """What `Last-Event-ID` says when it connects again."""
        self.connect()

    def connect(self) -> None:
        """A new response begins; what was not complete is forgotten."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._begun = False
        self._type = self._data = ""
        self._id = self.last_event_id

    def feed(self, chunk: bytes) -> None:
        self._text += self._decoder.decode(chunk)
        if not self._begun and self._text:
            self._text, self._begun = self._text.removeprefix(BOM), True
        # A CR at the end may be the first half of a CRLF.
        while found := re.search(r"\r\n|\n|\r(?!\Z)", self._text):
            line, self._text = self._text[: found.start()], self._text[found.end() :]
            self._take(line)

    def _take(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments += 1
        else:
            name, _, value = line.partition(":")
            self._set(name, value.removeprefix(" "))

    def _set(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += f"{value}\n"
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.events.append(Heard(self._type or "message", self._data.removesuffix("\n"), self.last_event_id))
        self._type = self._data = ""
