"""`manage.py channels_status`: what waits, who is in which group, who is alive."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser

from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.concurrency.signals import ended_by_signals
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.management.base import LayerCommand, Screen
from channels_sqlite.management.status import LayerStatus, look_at
from channels_sqlite.management.status_table import Earlier, lines

__all__ = ["Command"]

MOST_LINES = 20


class Command(LayerCommand):
    """Looks at each layer, and prints a table or JSON, once or again and again."""

    help = (
        "Shows, for each channel layer of this package, the messages that wait and the age of the oldest, the groups "
        "and their sizes, the processes that receive, and the sizes of the database. Changes nothing. Exit status: 0; "
        "1 when the database of a layer cannot be read, after the others were shown; 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print JSON, with --watch one line each time")
        parser.add_argument(
            "--watch", action="store_true", help="go on, in place and with rates per second, until Ctrl-C or SIGTERM"
        )
        parser.add_argument(
            "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between two looks of --watch (1)"
        )
        parser.add_argument(
            "--all", action="store_true", dest="everything", help=f"list everything, not {MOST_LINES} of each kind"
        )

    def handle(
        self, *, layer: str | None, json: bool, watch: bool, interval: float, everything: bool, **options: object
    ) -> None:
        """Run the command."""
        ours, skipped = self.chosen(layer)
        looking = Looking(ours, skipped, most=None if everything else MOST_LINES)
        if watch:
            self._watch(looking, interval, as_json=json)
            return
        looking.look()
        self.stdout.write(looking.json(indent=2) if json else "\n".join(looking.table()))
        if looking.faults:
            raise CommandError("\n".join(f"{alias}: {fault}" for alias, fault in looking.faults.items()))

    def _watch(self, looking: Looking, interval_s: float, *, as_json: bool) -> None:
        gate = Gate()
        with ended_by_signals(gate.open), ExitStack() as stack:
            screen = None if as_json else stack.enter_context(Screen(self.stdout))
            while not gate.opened:
                looking.look()
                if screen is None:
                    self.stdout.write(looking.json())
                    self.stdout.flush()
                else:
                    screen.show(looking.table())
                gate.sleep(time.monotonic() + interval_s)


@dataclass
class Looking:
    """What was seen at the last look, and before it."""

    entries: Sequence[LayerEntry]
    skipped: Sequence[LayerEntry]
    most: int | None
    faults: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, tuple[float, LayerStatus]] = field(default_factory=dict)
    _earlier: dict[str, Earlier] = field(default_factory=dict)

    def look(self) -> None:
        """Look at every layer."""
        self.faults.clear()
        for entry in self.entries:
            try:
                status = look_at(entry)
            except (ImproperlyConfigured, ChannelDatabaseError) as error:
                self.faults[entry.alias] = str(error)
                self._seen.pop(entry.alias, None)
                continue
            now = time.monotonic()
            if entry.alias in self._seen:
                before, earlier = self._seen[entry.alias]
                self._earlier[entry.alias] = Earlier(earlier, now - before)
            self._seen[entry.alias] = now, status

    def table(self) -> list[str]:
        """Return the lines of all layers."""
        found: list[str] = []
        for entry in self.entries:
            if entry.alias in self._seen:
                found += lines(self._seen[entry.alias][1], self._earlier.get(entry.alias), most=self.most)
            else:
                found.append(f"{entry.alias}: {self.faults[entry.alias]}")
            found.append("")
        found += [f"{entry.alias}: skipped, its backend is {entry.backend!r}" for entry in self.skipped]
        return found if found[-1] else found[:-1]

    def json(self, indent: int | None = None) -> str:
        """Return it all as JSON; docs/status.md has its shape."""
        shape = {
            "layers": [self._seen[entry.alias][1].as_json() for entry in self.entries if entry.alias in self._seen],
            "skipped": [{"alias": entry.alias, "backend": entry.backend} for entry in self.skipped],
            "errors": [{"alias": alias, "error": fault} for alias, fault in self.faults.items()],
        }
        return json.dumps(shape, indent=indent)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.05 to 86400")
    return value
