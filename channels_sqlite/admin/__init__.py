"""Messages and memberships in Django's admin, to look at."""

from __future__ import annotations

from channels_sqlite.admin.pages import MembershipAdmin, MessageAdmin

__all__ = ["MembershipAdmin", "MessageAdmin"]
