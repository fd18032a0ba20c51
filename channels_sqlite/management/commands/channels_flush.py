"""`manage.py channels_flush`: deletes all messages and memberships, and with these whoever is present."""

from __future__ import annotations

from channels.layers import channel_layers
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser

from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.management.base import LayerCommand
from channels_sqlite.management.status import look_at
from channels_sqlite.sync import SyncChannelLayer
from channels_sqlite.sync.own import SqliteBlocking

__all__ = ["Command"]


class Command(LayerCommand):
    """Asks, and flushes each layer."""

    help = (
        "Deletes all messages and all group memberships of each channel layer of this package, in every process: "
        "sockets that are open stay open and get no more broadcasts until they join their groups again, and nobody is "
        "present until then. Tasks are left alone; --tasks deletes those that do not run, and nothing else. Asks "
        "first. Exit status: 0; 1 when it was not confirmed or a database cannot be written; 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        super().add_arguments(parser)
        parser.add_argument(
            "--tasks", action="store_true", help="delete the tasks that do not run, and no messages or memberships"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *, layer: str | None, tasks: bool, yes: bool, **options: object) -> None:
        """Run the command."""
        ours, skipped = self.chosen(layer)
        if skipped:
            self.stdout.write(self.skipped_text(skipped))
        if not yes:
            self._confirm(ours, tasks=tasks)
        faults: list[str] = []
        for entry in ours:
            try:
                self._flush(entry.alias, tasks=tasks)
            except (ImproperlyConfigured, ChannelDatabaseError) as error:
                faults.append(f"{entry.alias}: {error}")
        if faults:
            raise CommandError("\n".join(faults))

    def _confirm(self, ours: list[LayerEntry], *, tasks: bool) -> None:
        for entry in ours:
            try:
                status = look_at(entry)
            except (ImproperlyConfigured, ChannelDatabaseError) as error:
                raise CommandError(f"{entry.alias}: {error}") from error
            if tasks:
                waiting = sum(queue.ready + queue.delayed for queue in status.queues)
                self.stdout.write(f"{entry.alias}: {waiting:,} tasks that wait, and all results, will be deleted.")
                continue
            members = sum(group.members for group in status.groups)
            self.stdout.write(f"{entry.alias}: {status.rows:,} messages and {members:,} memberships will be deleted.")
        try:
            answer = input("Type 'yes' to delete them: ")
        except EOFError:
            raise CommandError("Nobody can be asked here; add --yes to delete without asking.") from None
        if answer.strip().lower() != "yes":
            raise CommandError("Nothing was deleted.")

    def _flush(self, alias: str, *, tasks: bool) -> None:
        # A layer of this command's own: closing the one that the process may use would end its memberships.
        layer = channel_layers.make_backend(alias)
        assert isinstance(layer, SqliteChannelLayer)  # noqa: S101  # `chosen` has seen to that
        facade = SyncChannelLayer(layer)
        try:
            if tasks:
                count = SqliteBlocking(layer).write(lambda _: lambda transaction: transaction.store.flush_tasks())
                self.stdout.write(f"{alias}: {count:,} {'task' if count == 1 else 'tasks'} deleted.")
            else:
                facade.flush()
                self.stdout.write(f"{alias}: flushed.")
        finally:
            facade.close()
