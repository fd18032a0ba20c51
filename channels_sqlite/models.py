"""The tables, for migrations, the admin and curious developers; the message path speaks SQL (`storage`)."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

import channels_sqlite.task_models  # noqa: F401  # Django looks for models here
from channels_sqlite.fields import RowIdField
from channels_sqlite.kinds import Kind, State

__all__ = ["HistoryEpoch", "HistoryFloor", "LastId", "Listener", "Membership", "Message", "Process", "Scheduled"]


class Message(models.Model):
    """One row per send and one per broadcast: a log, read with cursors. Ids are never used twice; see `LastId`."""

    id = RowIdField(primary_key=True)
    prefix = models.CharField(max_length=100)
    kind = models.SmallIntegerField(choices=Kind.choices)
    state = models.SmallIntegerField(choices=State.choices)
    queue = models.CharField(max_length=100, help_text="channel, process-specific channel up to its !, or group")
    # Several names are longer. SQLite holds nobody to a length, and altering the column would copy the whole table.
    local = models.CharField(
        max_length=100,
        null=True,
        help_text="what follows the ! of a process-specific channel; of a group, the members that do not get it; of a "
        "normal channel in a group with history, @ and the id of what is kept",
    )
    client = models.CharField(max_length=100, null=True, help_text="the process that the row is for")
    created_at = models.FloatField(help_text="seconds since 1970")
    expires_at = models.FloatField(help_text="seconds since 1970")
    payload = models.BinaryField()

    class Meta:
        indexes = (
            # What waits on a normal channel, in order, with the expiry at hand: counted without reading rows.
            models.Index(
                fields=["prefix", "queue", "id", "expires_at"],
                condition=Q(state=State.WAITING.value),
                name="channels_sqlite_waiting",
            ),
            # What was sent to a process, in order: counted from its cursor on.
            models.Index(
                fields=["prefix", "queue", "id", "expires_at"],
                condition=Q(kind=Kind.SPECIFIC.value),
                name="channels_sqlite_addressed",
            ),
            # What is kept of a group with history, in order, with its age at hand.
            models.Index(
                fields=["prefix", "queue", "id", "created_at"],
                condition=Q(kind=Kind.KEPT.value, state=State.LOGGED.value),
                name="channels_sqlite_kept",
            ),
        )

    def __str__(self) -> str:
        return f"message {self.pk}"


class LastId(models.Model):
    """One row, 1, once the message with the largest id is gone: ids go on from there. A trigger writes it."""

    id = models.IntegerField(primary_key=True)
    last = models.BigIntegerField(help_text="the largest id that a message ever had")

    def __str__(self) -> str:
        return f"last id {self.last}"


class HistoryEpoch(models.Model):
    """What the positions of a layer's histories begin with, as long as ids cannot come back; see `delivery.epochs`."""

    prefix = models.CharField(max_length=100, primary_key=True)
    epoch = models.CharField(max_length=16, help_text="16 hexadecimal digits")
    place = models.CharField(max_length=200, help_text="boot, device and inode where it began")
    first = models.BigIntegerField(help_text="the least id of a position that says what was missed")

    def __str__(self) -> str:
        return f"epoch {self.epoch} of {self.prefix}"


class HistoryFloor(models.Model):
    """How far a group's history was trimmed. Triggers raise it wherever a kept message goes."""

    id = models.BigAutoField(primary_key=True)
    prefix = models.CharField(max_length=100)
    group_name = models.CharField(max_length=100)
    floor = models.BigIntegerField(help_text="the largest id of a message of the group that is not kept any more")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["prefix", "group_name"], name="channels_sqlite_floor_of"),)
        # Those that were raised longest ago, first.
        indexes = (models.Index(fields=["prefix", "floor"], name="channels_sqlite_floors"),)

    def __str__(self) -> str:
        return f"{self.group_name} up to {self.floor}"


class Membership(models.Model):
    """One channel in one group. `client` is "" for a normal channel."""

    id = models.BigAutoField(primary_key=True)
    prefix = models.CharField(max_length=100)
    group_name = models.CharField(max_length=100)
    client = models.CharField(max_length=100, blank=True)
    channel = models.CharField(max_length=100)
    joined_id = models.BigIntegerField(help_text="id of the last message that is too old for this member")
    expires_at = models.FloatField(null=True, help_text="seconds since 1970, or null: until discarded")

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["prefix", "group_name", "client", "channel"], name="channels_sqlite_member"
            ),
        )
        indexes = (models.Index(fields=["client"], name="channels_sqlite_membership_of"),)

    def __str__(self) -> str:
        return f"{self.channel} in {self.group_name}"


class Process(models.Model):
    """One live reader: a layer object in a process."""

    client = models.CharField(max_length=100, primary_key=True)
    prefix = models.CharField(max_length=100)
    pid = models.IntegerField()
    machine = models.CharField(max_length=200, help_text="boot and process namespace in which pid has a meaning")
    address = models.CharField(max_length=1000, help_text="wake-up socket, relative to the database's folder")
    cursor = models.BigIntegerField(help_text="id of the last message that it has read from the log")
    held = models.TextField(
        default="{}", help_text="messages read from the log and not yet received: JSON object of queue to number"
    )
    channels = models.IntegerField(help_text="process-specific channels with a receive() waiting")
    started_at = models.FloatField(help_text="seconds since 1970")


class Listener(models.Model):
    """A process that waits on a normal channel, so that senders know whom to wake."""

    id = models.BigAutoField(primary_key=True)
    prefix = models.CharField(max_length=100)
    channel = models.CharField(max_length=100)
    client = models.CharField(max_length=100)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["prefix", "channel", "client"], name="channels_sqlite_listener"),
        )


class Scheduled(models.Model):
    """A message that is to be sent later. Due, it goes from here into the log, in one transaction."""

    id = models.BigAutoField(primary_key=True)
    prefix = models.CharField(max_length=100)
    kind = models.SmallIntegerField(choices=Kind.choices)
    name = models.CharField(max_length=100, help_text="channel or group")
    excluded = models.TextField(blank=True, help_text="members of a group that do not get it")
    token = models.CharField(max_length=32, help_text="what only the message's ticket knows")
    created_at = models.FloatField(help_text="seconds since 1970")
    due_at = models.FloatField(help_text="seconds since 1970")
    expiry_s = models.FloatField(help_text="seconds from the moment when it is sent")
    tries = models.IntegerField(help_text="how often its channel was full, or others waited before it there")
    tried_at = models.FloatField(help_text="when that was so the last time that counts; 0: never")
    payload = models.BinaryField()
    history = models.BooleanField(
        default=True, db_default=True, help_text="whether a group with history keeps it once it is sent"
    )

    class Meta:
        verbose_name_plural = "scheduled"
        indexes = (
            # What is not due yet, or about to be sent, in order.
            models.Index(fields=["prefix", "due_at", "id"], condition=Q(tries=0), name="channels_sqlite_due"),
            # What is tried again, in order for each channel.
            models.Index(
                fields=["prefix", "name", "due_at", "id"], condition=Q(tries__gt=0), name="channels_sqlite_held_up"
            ),
        )

    def __str__(self) -> str:
        return f"scheduled message {self.pk}"
