"""What the commands share: choosing layers, drawing on a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from typing_extensions import Self

from channels_sqlite.channel_layers import LayerEntry, entries

__all__ = ["LayerCommand", "ProgressBar", "Screen"]

BAR_WIDTH = 30

ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class LayerCommand(BaseCommand):
    """A command on layers of this package; those of other backends are named and skipped."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add what all have."""
        parser.add_argument(
            "--layer",
            metavar="ALIAS",
            help="only this entry of CHANNEL_LAYERS; without it, every one of this package",
        )

    def chosen(self, alias: str | None) -> tuple[list[LayerEntry], list[LayerEntry]]:
        """Return the chosen layers of ours, and those that are skipped.

        Raises CommandError when there is no such layer, or none of ours.
        """
        found = entries()
        known = ", ".join(repr(entry.alias) for entry in found) or "none"
        if alias is not None:
            found = [entry for entry in found if entry.alias == alias]
            if not found:
                raise CommandError(f"CHANNEL_LAYERS has no {alias!r}; it has: {known}.")
        ours = [entry for entry in found if entry.is_ours]
        if not ours:
            raise CommandError(
                f"No layer of this package to work on: {self.skipped_text(found) or 'CHANNEL_LAYERS is empty.'} Set "
                f'BACKEND to "channels_sqlite.layers.SqliteChannelLayer".'
            )
        return ours, [entry for entry in found if not entry.is_ours]

    @staticmethod
    def skipped_text(skipped: Sequence[LayerEntry]) -> str:
        """Name layers of other backends, or return ""."""
        return " ".join(f"{entry.setting} is skipped: its backend is {entry.backend!r}." for entry in skipped)


class Screen:
    """Shows lines in the place of those before, on a terminal; one after the other elsewhere.

    A context manager: the terminal gets back what it showed before, and the last lines below it.
    """

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._shown: Sequence[str] = ()

    def __enter__(self) -> Self:
        if self._terminal:
            self._write(ENTER_SCREEN)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            self._write(LEAVE_SCREEN)
            self._write("".join(f"{line}\n" for line in self._shown))

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines now; what does not fit on the terminal is left out."""
        self._shown = lines
        if self._terminal:
            room = max(1, shutil.get_terminal_size().lines - 1)
            self._write(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines[:room]) + CLEAR_BELOW)
        else:
            self._write("".join(f"{line}\n" for line in [*lines, ""]))

    def _write(self, text: str) -> None:
        self._out.write(text, ending="")
        self._out.flush()


class ProgressBar:
    """A bar on a terminal, that vanishes when it is done; nothing elsewhere. Call it with the share that is done."""

    def __init__(self, out: OutputWrapper, title: str) -> None:
        self._out = out
        self._title = title
        self._terminal = out.isatty()
        self._drawn = False

    def __call__(self, share: float) -> None:
        """Draw a share from 0 to 1."""
        if not self._terminal:
            return
        if share < 1:
            full = int(BAR_WIDTH * share)
            self._write(f"\r{self._title} [{'#' * full}{'.' * (BAR_WIDTH - full)}] {share:4.0%}{CLEAR_LINE}")
            self._drawn = True
        elif self._drawn:
            self._write(f"\r{CLEAR_LINE}")
            self._drawn = False

    def _write(self, text: str) -> None:
        self._out.write(text, ending="")
        self._out.flush()
