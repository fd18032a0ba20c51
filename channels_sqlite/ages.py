"""How long ago something was, and lengths of time as people read them: in the commands' tables and in the admin."""

from __future__ import annotations

__all__ = ["age_s", "duration"]


def age_s(moment: float, now: float) -> float:
    """Return the seconds from `moment` to `now` (both since 1970), or 0: a clock may have been set back."""
    return max(0.0, now - moment)


def duration(seconds: float) -> str:
    """Return a length of time as people read it, such as "1.5 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    if seconds < 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
