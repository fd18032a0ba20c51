"""`manage.py channels_trim`: what `auto_trim` does, by hand, and giving space back to the disk."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.management.base import LayerCommand, ProgressBar
from channels_sqlite.management.maintenance import Maintenance, Vacuumed, VacuumRefusedError
from channels_sqlite.management.status_table import size

__all__ = ["Command"]


class Command(LayerCommand):
    """Trims each layer, one after the other."""

    help = (
        "Deletes, for each channel layer of this package, messages past their retention, expired memberships, and what "
        "dead processes left, whether auto_trim is on or off. Live processes go on meanwhile: rows go in batches of "
        '"trim_batch_size", with pauses. Exit status: 0; 1 when the database of a layer cannot be used or --vacuum '
        "would block too long; 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        super().add_arguments(parser)
        parser.add_argument(
            "--vacuum",
            action="store_true",
            help=(
                "then give the free space of the file back to the disk: in steps of milliseconds where its auto_vacuum "
                "is INCREMENTAL; else by writing it anew, which keeps others from writing for about 5 ms for each MiB "
                "that is in use and makes it INCREMENTAL; with live processes only up to 64 MiB"
            ),
        )
        parser.add_argument(
            "--may-block", action="store_true", help="with --vacuum: also where it keeps live processes waiting longer"
        )

    def handle(self, *, layer: str | None, vacuum: bool, may_block: bool, **options: object) -> None:
        """Run the command."""
        ours, skipped = self.chosen(layer)
        if skipped:
            self.stdout.write(self.skipped_text(skipped))
        faults: list[str] = []
        vacuumed: set[str] = set()
        for entry in ours:
            try:
                with Maintenance(entry) as maintenance:
                    count = maintenance.trim(ProgressBar(self.stdout, f"Trimming {entry.alias}"))
                    self.stdout.write(f"{entry.alias}: {count:,} {'message' if count == 1 else 'messages'} deleted.")
                    if vacuum and entry.database not in vacuumed:
                        vacuumed.add(entry.database)
                        bar = ProgressBar(self.stdout, f"Giving back space of {entry.database}")
                        self._tell(entry.database, maintenance.vacuum(bar, may_block=may_block))
            except VacuumRefusedError as error:
                faults.append(
                    f"{entry.database}: no vacuum, because {error}. Use --may-block if they may wait that long, or "
                    f"stop them first."
                )
            except (ImproperlyConfigured, ChannelDatabaseError) as error:
                faults.append(f"{entry.alias}: {error}")
        if faults:
            raise CommandError("\n".join(faults))

    def _tell(self, database: str, done: Vacuumed) -> None:
        if done.longest_lock_s:
            self.stdout.write(
                f"{database}: {size(done.before_bytes)} before, {size(done.after_bytes)} now; others waited for "
                f"at most {done.longest_lock_s * 1000:,.0f} ms at a time."
            )
        else:
            self.stdout.write(f"{database}: {size(done.before_bytes)}, nothing to give back.")
