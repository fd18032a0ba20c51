"""Messages, those that are to be sent later, and memberships in Django's admin, to look at."""

from __future__ import annotations

from channels_sqlite.admin.pages import MembershipAdmin, MessageAdmin
from channels_sqlite.admin.scheduled import ScheduledAdmin

__all__ = ["MembershipAdmin", "MessageAdmin", "ScheduledAdmin"]
