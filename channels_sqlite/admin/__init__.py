"""Messages, those that are to be sent later, memberships, presences and tasks in Django's admin."""

from __future__ import annotations

from channels_sqlite.admin.pages import MembershipAdmin, MessageAdmin
from channels_sqlite.admin.presence import PresenceAdmin
from channels_sqlite.admin.scheduled import ScheduledAdmin
from channels_sqlite.admin.tasks import TaskAdmin

__all__ = ["MembershipAdmin", "MessageAdmin", "PresenceAdmin", "ScheduledAdmin", "TaskAdmin"]
