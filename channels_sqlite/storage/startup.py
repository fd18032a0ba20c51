"""What the call stacks of this process tell: whether a migrate runs, and which code of the project runs before one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType

from django.apps import AppConfig, apps

__all__ = ["code_at_startup", "is_migrating"]

NOT_THE_PROJECTS = ("django", "channels_sqlite", "importlib", "asgiref")
MIGRATE = "django.core.management.commands.migrate"


def is_migrating() -> bool:
    """Whether a migrate has called this, in this thread: by `manage.py`, by `call_command`, or a subclass of it."""
    return bool(_called_by_migrate(sys._getframe()))  # noqa: SLF001  # documented, only for special uses like this


def code_at_startup() -> str:
    """Return e.g. "shop.apps.ShopConfig.ready() (/srv/shop/apps.py, line 12)"; "" where no such code runs.

    It may call from any thread: the layer works in one of its own.
    """
    innermost = list(sys._current_frames().values())  # noqa: SLF001  # likewise
    if not apps.ready and apps.loading:
        frames = [frame for thread in innermost for frame in _outwards(thread)]
        for frame in frames:
            config = _self_in(frame, "ready")
            if isinstance(config, AppConfig):
                return f"{type(config).__module__}.{type(config).__qualname__}.ready() {_place(frame)}"
    else:
        frames = [frame for thread in innermost for frame in _called_by_migrate(thread)]
    for frame in frames:
        name = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "<module>" and name.partition(".")[0] not in (*NOT_THE_PROJECTS, "__main__"):
            return f"the module {name} {_place(frame)}"
    return ""


def _outwards(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    while frame is not None:
        yield frame
        frame = frame.f_back


def _called_by_migrate(innermost: FrameType) -> list[FrameType]:
    """Return the frames of one thread from the innermost to that of a migrate, which is left out; [] without one."""
    # Where nobody has imported the command, nobody runs it.
    command = getattr(sys.modules.get(MIGRATE), "Command", ())
    called: list[FrameType] = []
    for frame in _outwards(innermost):
        if isinstance(_self_in(frame, "execute"), command):
            return called
        called.append(frame)
    return []


def _self_in(frame: FrameType, method: str) -> object:
    """Return the object whose `method` the frame runs, or None."""
    if frame.f_code.co_name != method or not frame.f_code.co_argcount:
        return None
    return frame.f_locals.get(frame.f_code.co_varnames[0])


def _place(frame: FrameType) -> str:
    return f"({frame.f_code.co_filename}, line {frame.f_lineno})"
