"""What is to be sent later in Django's admin, to look at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from channels_sqlite.admin.filters import (
    WINDOW_ROWS,
    DatabaseFilter,
    PrefixFilter,
    ScheduledNameFilter,
    TriesFilter,
    alias_of,
    newest_id,
)
from channels_sqlite.admin.pages import PayloadAdmin, away, breakable, clock, with_sizes
from channels_sqlite.kinds import Kind
from channels_sqlite.models import Scheduled

if TYPE_CHECKING:
    from channels_sqlite.admin.pages import Planned

__all__ = ["ScheduledAdmin"]


@admin.register(Scheduled)
class ScheduledAdmin(PayloadAdmin):
    """The messages that are to be sent later, those first that were scheduled last."""

    list_display = ("number", "channel", "kind_in_words", "due", "state_in_words", "beginning", "prefix")
    list_filter = (DatabaseFilter, TriesFilter, "kind", ScheduledNameFilter, PrefixFilter)
    search_fields = ("name",)
    search_help_text = (
        f"Part of the name of a channel or group. The list, its filters and this search look at the {WINDOW_ROWS:,} "
        f"messages that were scheduled last."
    )
    fields = readonly_fields = (
        "number",
        "prefix",
        "channel",
        "kind_in_words",
        "without",
        "keeps",
        "scheduled",
        "due",
        "state_in_words",
        "expiry",
        "size",
        "content",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Scheduled]:
        """Return the newest rows without long payloads, with their sizes."""
        rows = Scheduled.objects.using(alias_of(request))
        return with_sizes(rows.filter(id__gt=newest_id(rows) - WINDOW_ROWS))

    @admin.display(description="channel or group")
    def channel(self, row: Planned) -> str:
        """Return the full name that the message will be sent to."""
        return breakable(row.name)

    @admin.display(description="without", empty_value="nobody")
    def without(self, row: Planned) -> str | None:
        """Return the members of a group that will not get it."""
        return row.excluded or None

    @admin.display(description="kept by a group with history", boolean=True)
    def keeps(self, row: Planned) -> bool | None:
        """Return whether a group with history will keep the message; None for a channel."""
        return row.history if row.kind == Kind.GROUP else None

    @admin.display(description="scheduled")
    def scheduled(self, row: Planned) -> str:
        """Return when the message was scheduled."""
        return f"{clock(row.created_at)}, {away(row.created_at, time.time())}"

    @admin.display(description="due")
    def due(self, row: Planned) -> str:
        """Return when it is to be sent."""
        return f"{clock(row.due_at)}, {away(row.due_at, time.time())}"

    @admin.display(description="state")
    def state_in_words(self, row: Planned) -> str:
        """Return where the message stands."""
        if row.tries:
            return "held up: the channel is full"
        return "waits for its time" if row.due_at > time.time() else "due"

    @admin.display(description="expiry")
    def expiry(self, row: Planned) -> str:
        """Return how long it will be deliverable."""
        return f"{row.expiry_s:g} s"
