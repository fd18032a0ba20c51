"""`manage.py channels_flush`: deletes all messages and memberships."""

from __future__ import annotations

from channels.layers import channel_layers
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser

from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.management.base import LayerCommand
from channels_sqlite.management.status import look_at
from channels_sqlite.sync import SyncChannelLayer

__all__ = ["Command"]


class Command(LayerCommand):
    """Asks, and flushes each layer."""

    help = (
        "Deletes all messages and all group memberships of each channel layer of this package, in every process: "
        "sockets that are open stay open and get no more broadcasts until they join their groups again. Asks first. "
        "Exit status: 0; 1 when it was not confirmed or a database cannot be written; 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        super().add_arguments(parser)
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *, layer: str | None, yes: bool, **options: object) -> None:
        """Run the command."""
        ours, skipped = self.chosen(layer)
        if skipped:
            self.stdout.write(self.skipped_text(skipped))
        if not yes:
            self._confirm(ours)
        faults: list[str] = []
        for entry in ours:
            try:
                _flush(entry.alias)
            except (ImproperlyConfigured, ChannelDatabaseError) as error:
                faults.append(f"{entry.alias}: {error}")
            else:
                self.stdout.write(f"{entry.alias}: flushed.")
        if faults:
            raise CommandError("\n".join(faults))

    def _confirm(self, ours: list[LayerEntry]) -> None:
        for entry in ours:
            try:
                status = look_at(entry)
            except (ImproperlyConfigured, ChannelDatabaseError) as error:
                raise CommandError(f"{entry.alias}: {error}") from error
            members = sum(group.members for group in status.groups)
            self.stdout.write(f"{entry.alias}: {status.rows:,} messages and {members:,} memberships will be deleted.")
        try:
            answer = input("Type 'yes' to delete them: ")
        except EOFError:
            raise CommandError("Nobody can be asked here; add --yes to delete without asking.") from None
        if answer.strip().lower() != "yes":
            raise CommandError("Nothing was deleted.")


def _flush(alias: str) -> None:
    # A layer of this command's own: closing the one that the process may use would end its memberships.
    layer = SyncChannelLayer(channel_layers.make_backend(alias))
    try:
        layer.flush()
    finally:
        layer.close()
