"""Messages and memberships in Django's admin, to look at: nothing can be added, changed or deleted.

The tables may hold millions of rows while a page is asked for, so no query looks at all of them; see `admin.filters`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db import models
from django.db.models import Case, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Length
from django.db.utils import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.html import format_html

from channels_sqlite import names
from channels_sqlite.admin import payloads
from channels_sqlite.admin.filters import (
    WINDOW_ROWS,
    ChannelFilter,
    DatabaseFilter,
    GroupFilter,
    PrefixFilter,
    SentFilter,
    StateFilter,
    alias_of,
    known_prefixes,
    newest_id,
)
from channels_sqlite.ages import age_s, duration
from channels_sqlite.kinds import Kind, State
from channels_sqlite.models import Membership, Message, Process, Scheduled

if TYPE_CHECKING:
    from typing import TypedDict

    from django_stubs_ext import WithAnnotations

    ModelAdmin = admin.ModelAdmin[Any]

    class PayloadExtras(TypedDict):
        payload_bytes: int
        short_payload: bytes | None

    class MessageExtras(PayloadExtras):
        cursor: int | None

    class MembershipExtras(TypedDict):
        pid: int | None

    Row = WithAnnotations[Message, MessageExtras]
    Planned = WithAnnotations[Scheduled, PayloadExtras]
    AnyRow = Row | Planned
    Member = WithAnnotations[Membership, MembershipExtras]
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["MembershipAdmin", "MessageAdmin"]

LINE_BYTES = 4096  # of a payload; longer ones are decoded on their own page alone
LARGEST_BYTES = 16 * 1024 * 1024  # of a payload that is decoded at all


def clock(moment: float) -> str:
    """Return a moment (seconds since 1970) in the current time zone."""
    try:
        return datetime.fromtimestamp(moment, tz=timezone.get_current_timezone()).strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, ValueError, OSError):  # an expiry or a delay of ages
        return "after the year 9999"


def away(moment: float, now: float) -> str:
    """Return how far away a moment (seconds since 1970) is."""
    return f"in {in_one_line(moment - now)}" if moment > now else f"{in_one_line(now - moment)} ago"


def in_one_line(seconds: float) -> str:
    """Return a length of time whose unit stays beside its number."""
    return duration(seconds).replace(" ", "\N{NO-BREAK SPACE}")


def breakable(name: str) -> str:
    """Return a name as HTML that may be broken after its "!": the second half of many is long."""
    queue, mark, local = name.partition("!")
    return format_html("{}<wbr>{}", queue + mark, local) if mark else name


def state_in_words(message: Row, now: float) -> str:
    """Return what the row, and for one process its cursor, tell about a message; nothing that is guessed."""
    expired = message.expires_at <= now
    if message.kind == Kind.NORMAL:
        if message.state == State.WAITING:
            return "expired" if expired else "waiting"
        return "read or expired" if expired else "read"
    if message.kind == Kind.KEPT:
        return "kept" if message.state == State.LOGGED else "no longer kept"
    if message.kind != Kind.SPECIFIC:
        return "sent"
    if message.cursor is None:
        return "its process is gone"
    if message.cursor >= message.id:
        return "reached its process"
    # A process tells only now and then how far it has read.
    return "sent, read or expired" if expired else "sent"


class LookOnly(ModelAdmin):
    """What both have in common: nobody changes anything, and a list costs what it shows."""

    actions = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they would count everything
    sortable_by = ()
    ordering = ("-id",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody deletes."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or say what is wrong with the database."""
        return _or_complain(request, lambda: super(LookOnly, self).changelist_view(request, extra_context))

    def changeform_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        """Show one row, or say what is wrong with the database."""
        return _or_complain(request, lambda: super(LookOnly, self).changeform_view(request, *arguments, **options))


def _or_complain(request: HttpRequest, page: Callable[[], HttpResponse]) -> HttpResponse:
    try:
        return page()
    except DatabaseError as error:
        alias = alias_of(request)
        remedy = f'; run "python manage.py migrate --database={alias}"' if "no such" in str(error) else ""
        messages.error(request, f"The channel layer's database {alias!r} cannot be read: {error}{remedy}.")
        return redirect("admin:index")


def with_sizes(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return rows with a payload without those that are long, with their sizes."""
    sized: QuerySet[Any] = rows.defer("payload").annotate(payload_bytes=Length("payload"))
    shown: QuerySet[Any] = sized.annotate(short_payload=Case(When(payload_bytes__lte=LINE_BYTES, then="payload")))
    return shown


class PayloadAdmin(LookOnly):
    """What the lists of messages have in common."""

    @admin.display(description="id")
    def number(self, row: AnyRow) -> str:
        """Return the id, without separators."""
        return str(row.id)

    @admin.display(description="kind")
    def kind_in_words(self, row: AnyRow) -> str:
        """Return what the name stands for."""
        return str(dict(Kind.choices).get(row.kind, row.kind))

    @admin.display(description="message")
    def beginning(self, row: AnyRow) -> str:
        """Return a short message in one line."""
        if row.short_payload is None:
            return f"{filesizeformat(row.payload_bytes)}, shown on its own page"
        # The other columns would be pushed away by a long word, such as the escapes of bytes.
        return format_html(
            '<span style="overflow-wrap: anywhere">{}</span>', payloads.one_line(row.kind, row.short_payload)
        )

    @admin.display(description="size")
    def size(self, row: AnyRow) -> str:
        """Return the size of what is stored."""
        return filesizeformat(row.payload_bytes)

    @admin.display(description="message")
    def content(self, row: AnyRow) -> str:
        """Return the message, indented."""
        if row.payload_bytes > LARGEST_BYTES:
            return f"{filesizeformat(row.payload_bytes)}; messages up to {filesizeformat(LARGEST_BYTES)} are shown"
        return format_html("<pre>{}</pre>", payloads.pretty(row.kind, row.payload))


@admin.register(Message)
class MessageAdmin(PayloadAdmin):
    """The log of messages, newest first."""

    list_display = ("number", "channel", "kind_in_words", "state_in_words", "age", "beginning", "prefix")
    list_filter = (DatabaseFilter, StateFilter, "kind", SentFilter, ChannelFilter, PrefixFilter)
    search_fields = ("queue",)
    search_help_text = (
        f"Part of the name of a channel or group. The list, its filters and this search look at {WINDOW_ROWS:,} rows: "
        f"the newest, or the newest up to the time sent that is chosen."
    )
    fields = readonly_fields = (
        "number",
        "prefix",
        "channel",
        "kind_in_words",
        "state_in_words",
        "sent",
        "expires",
        "size",
        "content",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        """Return the rows without long payloads, with their sizes, and with how far their process has read."""
        cursor = Process.objects.filter(client=OuterRef("client")).values("cursor")[:1]
        return with_sizes(Message.objects.using(alias_of(request)).annotate(cursor=Subquery(cursor)))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        """Search the names; a process-specific one is stored in two parts."""
        queue, mark, local = search_term.strip().partition("!")
        if queue:
            queryset = queryset.filter(queue__icontains=queue + mark)
        if local:
            queryset = queryset.filter(local__istartswith=local)
        return queryset, False

    @admin.display(description="channel or group")
    def channel(self, row: Row) -> str:
        """Return the full name that the message was sent to, and to which members of a group it was not."""
        if row.kind in (Kind.GROUP, Kind.KEPT):
            return row.queue + (f" without {row.local}" if row.local else "")
        if row.kind != Kind.SPECIFIC:
            return row.queue
        return breakable(row.queue + (row.local or ""))

    @admin.display(description="state")
    def state_in_words(self, row: Row) -> str:
        """Return where the message stands."""
        return state_in_words(row, time.time())

    @admin.display(description="age")
    def age(self, row: Row) -> str:
        """Return how long ago the message was sent."""
        return in_one_line(age_s(row.created_at, time.time()))

    @admin.display(description="sent")
    def sent(self, row: Row) -> str:
        """Return when the message was sent."""
        return f"{clock(row.created_at)}, {away(row.created_at, time.time())}"

    @admin.display(description="expires")
    def expires(self, row: Row) -> str:
        """Return when it is, or was, too late to read the message."""
        if math.isinf(row.expires_at):  # of who is present
            return "never"
        return f"{clock(row.expires_at)}, {away(row.expires_at, time.time())}"


@admin.register(Membership)
class MembershipAdmin(LookOnly):
    """Which channel is in which group, the newest first."""

    list_display = ("channel_text", "group_name_text", "kind_in_words", "process", "ends", "prefix")
    list_filter = (DatabaseFilter, GroupFilter, PrefixFilter)
    search_fields = ("group_name",)
    search_help_text = (
        f"The whole name of a group or channel, or the client part of channel names. Without a search the list shows "
        f"the newest {WINDOW_ROWS:,} memberships."
    )
    fields = readonly_fields = ("channel_text", "group_name_text", "kind_in_words", "process", "ends", "prefix")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        """Return the rows, with the process that each belongs to."""
        pid = Process.objects.filter(client=OuterRef("client")).values("pid")[:1]
        return Membership.objects.using(alias_of(request)).annotate(pid=Subquery(pid))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Membership], search_term: str
    ) -> tuple[QuerySet[Membership], bool]:
        """Search with the indexes, on group and on client; without a search, look at the newest rows."""
        term = search_term.strip()
        alias = alias_of(request)
        if "!" in term:
            found = Q(client=names.client_of(term))
            if not term.endswith("!"):
                found &= Q(channel=term)
        elif term:
            found = Q(prefix__in=known_prefixes(alias), group_name=term) | Q(client="", channel=term) | Q(client=term)
        else:
            found = Q(id__gt=newest_id(Membership.objects.using(alias)) - WINDOW_ROWS)
        return queryset.filter(found), False

    @admin.display(description="channel")
    def channel_text(self, row: Member) -> str:
        """Return the full name of the channel."""
        return breakable(row.channel)

    @admin.display(description="group")
    def group_name_text(self, row: Member) -> str:
        """Return the name of the group."""
        return row.group_name

    @admin.display(description="kind")
    def kind_in_words(self, row: Member) -> str:
        """Return what kind of channel it is."""
        return str((Kind.SPECIFIC if row.client else Kind.NORMAL).label)

    @admin.display(description="process", empty_value="any")
    def process(self, row: Member) -> str | None:
        """Return the process that reads the channel."""
        if not row.client:
            return None
        return "gone" if row.pid is None else f"pid {row.pid}"

    @admin.display(description="ends")
    def ends(self, row: Member) -> str:
        """Return when the membership ends if nobody renews it."""
        return "when discarded" if row.expires_at is None else away(row.expires_at, time.time())
