"""Who is present, in Django's admin, to look at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.html import format_html

from channels_sqlite import names
from channels_sqlite.admin import payloads
from channels_sqlite.admin.filters import (
    WINDOW_ROWS,
    DatabaseFilter,
    PrefixFilter,
    PresenceGroupFilter,
    alias_of,
    known_prefixes,
    newest_id,
)
from channels_sqlite.admin.pages import LookOnly, away, breakable, clock
from channels_sqlite.models import Presence, Process

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

    from channels_sqlite.admin.pages import MembershipExtras

    Attendee = WithAnnotations[Presence, MembershipExtras]

__all__ = ["PresenceAdmin"]


@admin.register(Presence)
class PresenceAdmin(LookOnly):
    """Who is present in which group by which channel, and who watches, the newest first."""

    list_display = ("who", "group_name_text", "channel_text", "process", "came", "ends", "told", "prefix")
    list_filter = (DatabaseFilter, PresenceGroupFilter, PrefixFilter)
    search_fields = ("group_name",)
    search_help_text = (
        f"The whole key of somebody, the whole name of a group or channel, or the client part of channel names. "
        f"Without a search the list shows the newest {WINDOW_ROWS:,} presences."
    )
    fields = readonly_fields = (
        "who",
        "group_name_text",
        "channel_text",
        "process",
        "came",
        "ends",
        "info_text",
        "prefix",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Presence]:
        """Return the rows, with the process that each belongs to."""
        pid = Process.objects.filter(client=OuterRef("client")).values("pid")[:1]
        return Presence.objects.using(alias_of(request)).annotate(pid=Subquery(pid))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Presence], search_term: str
    ) -> tuple[QuerySet[Presence], bool]:
        """Search with the indexes, on group, key and client; without a search, look at the newest rows."""
        term = search_term.strip()
        alias = alias_of(request)
        if not term:
            found = Q(id__gt=newest_id(Presence.objects.using(alias)) - WINDOW_ROWS)
        else:
            prefixes = known_prefixes(alias)
            found = Q(prefix__in=prefixes, group_name=term) | Q(prefix__in=prefixes, key=term) | Q(client=term)
            client = names.client_of(term)
            found |= Q(client=client) if client and term.endswith("!") else Q(client=client, channel=term)
        return queryset.filter(found), False

    @admin.display(description="who")
    def who(self, row: Attendee) -> str:
        """Return the key."""
        return row.key or "(watches)"

    @admin.display(description="channel")
    def channel_text(self, row: Attendee) -> str:
        """Return the full name of the channel."""
        return breakable(row.channel)

    @admin.display(description="group")
    def group_name_text(self, row: Attendee) -> str:
        """Return the name of the group."""
        return row.group_name

    @admin.display(description="process", empty_value="any")
    def process(self, row: Attendee) -> str | None:
        """Return the process that reads the channel."""
        if not row.client:
            return None
        return "gone" if row.pid is None else f"pid {row.pid}"

    @admin.display(description="since", empty_value="")
    def came(self, row: Attendee) -> str | None:
        """Return when the key came."""
        return f"{clock(row.since)}, {away(row.since, time.time())}" if row.key else None

    @admin.display(description="ends")
    def ends(self, row: Attendee) -> str:
        """Return when it ends if nobody renews it."""
        return "when it leaves" if row.expires_at is None else away(row.expires_at, time.time())

    @admin.display(description="info", empty_value="")
    def told(self, row: Attendee) -> str | None:
        """Return what the channel tells, in one line."""
        if not row.key:
            return None
        return format_html('<span style="overflow-wrap: anywhere">{}</span>', payloads.info_line(row.info))

    @admin.display(description="info", empty_value="")
    def info_text(self, row: Attendee) -> str | None:
        """Return what the channel tells, indented."""
        return format_html("<pre>{}</pre>", payloads.info_text(row.info)) if row.key else None
