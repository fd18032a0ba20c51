"""Messages, memberships and tasks in Django's admin."""

from __future__ import annotations

from channels_sqlite.admin.pages import MembershipAdmin, MessageAdmin
from channels_sqlite.admin.tasks import TaskAdmin

__all__ = ["MembershipAdmin", "MessageAdmin", "TaskAdmin"]
