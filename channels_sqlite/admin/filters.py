"""What the lists of the admin are narrowed down to, without ever looking at a whole table.

A list shows the newest `WINDOW_ROWS` rows, or as many up to some moment, found by their ids. What the filters offer is
taken from the newest rows, or found with one index probe for each choice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

from django.contrib import admin
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpRequest

from channels_sqlite.channel_layers import layer_aliases, our_entries
from channels_sqlite.kinds import Kind, State
from channels_sqlite.models import Membership, Message, Presence, Process, Scheduled
from channels_sqlite.options import Options
from channels_sqlite.task_models import QueuedTask

if TYPE_CHECKING:
    AnyAdmin = admin.ModelAdmin[Any]

__all__ = [
    "WINDOW_ROWS",
    "ChannelFilter",
    "DatabaseFilter",
    "GroupFilter",
    "PrefixFilter",
    "PresenceGroupFilter",
    "ScheduledNameFilter",
    "SentFilter",
    "StateFilter",
    "TaskBackendFilter",
    "TaskQueueFilter",
    "TriesFilter",
    "alias_of",
    "bisect_newest_id_before",
    "known_prefixes",
    "newest_id",
]

WINDOW_ROWS = 100_000
BUSY_ROWS = 10_000  # the newest ones, among which the filters find the channels and groups to offer
MOST_CHOICES = 20

SENT_BEFORE_S = {
    60: "at least a minute ago",
    600: "at least 10 minutes ago",
    3600: "at least an hour ago",
    21600: "at least 6 hours ago",
}


def alias_of(request: HttpRequest) -> str:
    """Return the database that the page is about: the one chosen, or the first layer's."""
    aliases = layer_aliases()
    chosen = request.GET.get("database")
    if chosen is None:  # a page reached from a list carries that list's filters
        chosen = parse_qs(request.GET.get("_changelist_filters", "")).get("database", [""])[0]
    return chosen if chosen in aliases else next(iter(aliases), DEFAULT_DB_ALIAS)


def newest_id(rows: QuerySet[Any]) -> int:
    """Return the largest id of a table."""
    largest: int | None = rows.order_by().aggregate(largest=Max("id"))["largest"]
    return largest or 0


def bisect_newest_id_before(rows: QuerySet[Message], moment: float) -> int:
    """Return the largest id of a message sent before `moment` (seconds since 1970): ids are given in order of time."""
    low, high = 0, newest_id(rows)  # no id above `high` was sent before, every one up to `low` was
    while low < high:
        middle = (low + high) // 2
        sent = rows.filter(id__gt=middle).order_by("id").values_list("id", "created_at").first()
        if sent is not None and sent[1] < moment:
            low = max(sent[0], middle + 1)
        else:
            high = middle
    return low


def known_prefixes(alias: str) -> list[str]:
    """Return the prefixes of the layers in this database, those without settings too, with one index probe for each."""
    prefixes = {str(entry.config.get("prefix", Options.prefix)) for entry in our_entries() if entry.database == alias}
    by_prefix = Membership.objects.using(alias).order_by("prefix").values_list("prefix", flat=True)
    prefix = by_prefix.first()
    while prefix is not None and len(prefixes) < MOST_CHOICES:
        prefixes.add(prefix)
        prefix = by_prefix.filter(prefix__gt=prefix).first()
    prefixes.update(Process.objects.using(alias).values_list("prefix", flat=True).distinct())
    return sorted(prefixes)


def busiest(rows: QuerySet[Any], column: str) -> list[str]:
    """Return the names that are most frequent among the newest rows of a table."""
    recent = rows.filter(id__gt=newest_id(rows) - BUSY_ROWS)
    counted = recent.values_list(column).annotate(rows=Count("id")).order_by("-rows", column)
    return [name for name, _ in counted[:MOST_CHOICES]]


class DatabaseFilter(admin.SimpleListFilter):
    """The database to look at, where layers use several; `alias_of` reads it."""

    title = "database"
    parameter_name = "database"

    def lookups(self, request: HttpRequest, model_admin: AnyAdmin) -> Iterable[tuple[str, str]]:
        """Offer the aliases, where there is a choice."""
        aliases = layer_aliases()
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def choices(self, changelist: Any) -> Any:
        """Leave "All" out: a list is of one database."""
        offered = list(super().choices(changelist))[1:]
        if self.value() is None and offered:
            offered[0]["selected"] = True
        return offered

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Leave the rows alone: they are of that database already."""
        return queryset


class NameFilter(admin.SimpleListFilter):
    """A column that holds one of many names, of which some are offered."""

    column: ClassVar[str]

    def offered(self, alias: str) -> list[str]:
        """Return names to choose from."""
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: AnyAdmin) -> Iterable[tuple[str, str]]:
        """Offer the names, and what is chosen."""
        names = {*self.offered(alias_of(request)), self.value() or ""} - {""}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows with the chosen name."""
        return queryset if self.value() is None else queryset.filter(**{self.column: self.value()})


class PrefixFilter(NameFilter):
    """The prefix of one layer."""

    title = column = parameter_name = "prefix"

    def offered(self, alias: str) -> list[str]:
        """Return the prefixes of all layers, those that only send included."""
        return [*known_prefixes(alias), *busiest(Message.objects.using(alias), "prefix")]


class ChannelFilter(NameFilter):
    """One of the channels, processes and groups that are busy now."""

    title = "channel or group"
    column = parameter_name = "queue"

    def offered(self, alias: str) -> list[str]:
        """Return those with the most new messages."""
        return busiest(Message.objects.using(alias), self.column)


class GroupFilter(NameFilter):
    """One of the groups that grow now."""

    title = "group"
    column = parameter_name = "group_name"

    def offered(self, alias: str) -> list[str]:
        """Return those with the most new members."""
        return busiest(Membership.objects.using(alias), self.column)


class PresenceGroupFilter(NameFilter):
    """One of the groups that people come to now."""

    title = "group"
    column = parameter_name = "group_name"

    def offered(self, alias: str) -> list[str]:
        """Return those that most have joined lately."""
        return busiest(Presence.objects.using(alias), self.column)


class ScheduledNameFilter(NameFilter):
    """One of the channels and groups that most is scheduled for."""

    title = "channel or group"
    column = parameter_name = "name"

    def offered(self, alias: str) -> list[str]:
        """Return those that most was scheduled for lately."""
        return busiest(Scheduled.objects.using(alias), self.column)


class TaskQueueFilter(NameFilter):
    """One of the queues that most was enqueued in lately."""

    title = column = parameter_name = "queue"

    def offered(self, alias: str) -> list[str]:
        """Return those with the most new tasks."""
        return busiest(QueuedTask.objects.using(alias), self.column)


class TaskBackendFilter(NameFilter):
    """One of the aliases in TASKS that most was enqueued with lately."""

    title = column = parameter_name = "backend"

    def offered(self, alias: str) -> list[str]:
        """Return those with the most new tasks."""
        return busiest(QueuedTask.objects.using(alias), self.column)


class TriesFilter(admin.SimpleListFilter):
    """Whether a message waits for its time, or for room in its channel."""

    title = "state"
    parameter_name = "held_up"

    def lookups(self, request: HttpRequest, model_admin: AnyAdmin) -> Iterable[tuple[str, str]]:
        """Offer both."""
        return [("0", "waits for its time"), ("1", "held up by a full channel")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the messages of that state."""
        conditions = {"0": Q(tries=0), "1": Q(tries__gt=0)}
        return queryset.filter(conditions.get(self.value() or "", Q()))


class StateFilter(admin.SimpleListFilter):
    """Where a message stands, as far as rows can be asked for it."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: AnyAdmin) -> Iterable[tuple[str, str]]:
        """Offer what the rows themselves say."""
        return [
            ("waiting", "waiting"),
            ("expired", "expired"),
            ("read", "read"),
            ("done", "read or expired"),
            ("sent", "sent to a process or a group"),
            ("kept", "kept of a group with history"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the messages of that state."""
        now = time.time()
        conditions = {
            "waiting": Q(state=State.WAITING, expires_at__gt=now),
            "expired": Q(state=State.WAITING, expires_at__lte=now),
            "read": Q(kind=Kind.NORMAL, state=State.DONE, expires_at__gt=now),
            "done": Q(kind=Kind.NORMAL, state=State.DONE, expires_at__lte=now),
            "sent": Q(state=State.LOGGED) | Q(kind=Kind.KEPT),
            "kept": Q(kind=Kind.KEPT, state=State.LOGGED),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


class SentFilter(admin.SimpleListFilter):
    """The moment up to which messages are shown. Always at work: it bounds what the list looks at."""

    title = "time sent"
    parameter_name = "sent"

    def lookups(self, request: HttpRequest, model_admin: AnyAdmin) -> Iterable[tuple[str, str]]:
        """Offer some moments."""
        return [(str(seconds), text) for seconds, text in SENT_BEFORE_S.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the newest rows up to that moment."""
        rows = Message.objects.using(queryset.db)
        value = self.value()
        if value is None or not value.isdecimal():
            return queryset.filter(id__gt=newest_id(rows) - WINDOW_ROWS)
        last = bisect_newest_id_before(rows, time.time() - int(value))
        return queryset.filter(id__gt=last - WINDOW_ROWS, id__lte=last)
