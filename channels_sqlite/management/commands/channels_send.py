"""`manage.py channels_send`: sends one message, for trying things out."""

from __future__ import annotations

import json
import sys

from channels.exceptions import ChannelFull, MessageTooLarge
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.sync import get_sync_channel_layer

__all__ = ["Command"]


class Command(BaseCommand):
    """Sends a message to a channel or a group, over a layer of any backend."""

    help = (
        'Sends one message, for trying things out: channels_send thumbnails \'{"type": "thumbnail.make", "id": 7}\'. '
        'Consumers need a "type". Exit status: 0 when it was sent; 1 when the JSON or the name is wrong, the channel '
        "is full or the layer cannot be used; 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument("channel", metavar="CHANNEL", help="name of a channel, or of a group with --group")
        parser.add_argument("message", metavar="JSON", help='a JSON object; "-" reads it from standard input')
        parser.add_argument("--group", action="store_true", help="send to every member of a group")
        parser.add_argument(
            "--layer", metavar="ALIAS", default="default", help="entry of CHANNEL_LAYERS (default), of any backend"
        )

    def handle(self, *, channel: str, message: str, group: bool, layer: str, **options: object) -> None:
        """Run the command."""
        parsed = _parse(sys.stdin.read() if message == "-" else message)
        try:
            facade = get_sync_channel_layer(layer)
            if group:
                facade.group_send(channel, parsed)
            else:
                facade.send(channel, parsed)
        except (TypeError, ValueError, ChannelFull, MessageTooLarge) as error:
            raise CommandError(str(error) or f"{channel!r} is full ({type(error).__name__}).") from error
        except (ImproperlyConfigured, ChannelDatabaseError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Sent to the {'group' if group else 'channel'} {channel!r} of layer {layer!r}.")


def _parse(text: str) -> dict[str, object]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise CommandError(
            f"The message is no JSON: {error}. Write keys and strings in double quotes, and the whole in single ones: "
            f'\'{{"type": "chat.message"}}\''
        ) from error
    if not isinstance(parsed, dict):
        raise CommandError(f'The message must be a JSON object, such as \'{{"type": "chat.message"}}\'; got {text!r}.')
    return parsed
