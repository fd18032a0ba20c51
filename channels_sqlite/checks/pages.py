"""The pages of the documentation that hints name, as everybody can open them."""

from __future__ import annotations

__all__ = ["OPTIONS_PAGE", "TASK_OPTIONS_PAGE"]

OPTIONS_PAGE = "https://github.com/channels-sqlite/channels_sqlite/blob/main/docs/options.md#options"
TASK_OPTIONS_PAGE = "https://github.com/channels-sqlite/channels_sqlite/blob/main/docs/options.md#options-of-tasks"
