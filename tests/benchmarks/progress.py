"""A progress bar on standard error, and plain lines where that is not a terminal."""

import sys

__all__ = ["Progress"]

_WIDTH = 24


class Progress:
    """Shows how many of ``total`` steps are done, and which one is under way."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._live = sys.stderr.isatty()

    def begin(self, step: str) -> None:
        """Show ``step`` as under way."""
        if self._live:
            full = _WIDTH * self._done // self._total
            bar = "#" * full + "-" * (_WIDTH - full)
            sys.stderr.write(f"\r\x1b[K[{bar}] {self._done}/{self._total} {step}")
            sys.stderr.flush()

    def finish(self, step: str) -> None:
        """Count one step as done."""
        self._done += 1
        if not self._live:
            print(f"{self._done}/{self._total} {step}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Wipe the bar."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
