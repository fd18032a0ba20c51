"""Who is here: the calls of the sync facade that concern presence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels_sqlite import names
from channels_sqlite.codec import Message
from channels_sqlite.present import Present, require_key
from channels_sqlite.sync.loops import require_no_loop
from channels_sqlite.sync.protocol import BlockingLayer

__all__ = ["SyncPresenceCalls"]


class SyncPresenceCalls:
    """The methods of the facade that concern presence."""

    # Any: an encoded info is that object's own affair.
    _blocking: BlockingLayer[Any]

    def presence_join(
        self, group: str, channel: str, key: str, info: Mapping[str, object] | None = None
    ) -> list[Present[Message]]:
        """Make `channel` a member of `group` by which `key` is present; return who is, as of that moment.

        The others who are present or watch are told of what that changes, and `channel` of what changes after it. A
        channel that is present already joins anew: under another key it moves. `info` is what the list shows beside the
        key; None counts as {}. The membership lasts `group_expiry` seconds.

        Raises:
            TypeError: a name is invalid, the key is no str, or the info holds something that cannot be serialised.
            ValueError: the key does not have 1 to 200 characters, or the info has the key `__asgi_channel__`.
            MessageTooLarge: the info has more than 4096 bytes.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        _check("presence_join", group, channel)
        key = require_key(key)
        return self._blocking.presence_join(group, channel, key, self._blocking.encode_info(info))

    def presence_update(self, group: str, channel: str, info: Mapping[str, object] | None) -> None:
        """Change the info of `channel`, which is present in `group`, and renew its membership.

        All who are present or watch are told, where the list shows it: where no other channel of that key has joined
        later.

        Raises TypeError, ValueError (also where `channel` is not present), MessageTooLarge and ChannelDatabaseError as
        `presence_join` does.
        """
        _check("presence_update", group, channel)
        self._blocking.presence_update(group, channel, self._blocking.encode_info(info))

    def presence_leave(self, group: str, channel: str) -> None:
        """End the presence of `channel` in `group` with its membership, or its watching; nothing where it does neither.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        _check("presence_leave", group, channel)
        self._blocking.presence_leave(group, channel)

    def presence_watch(self, group: str, channel: str) -> list[Present[Message]]:
        """Have `channel` told of who comes and goes in `group`, and return who is present, as of that moment.

        It is no member, gets no broadcasts, and is not listed. It watches for `group_expiry` seconds. One that is
        present goes on to be.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        _check("presence_watch", group, channel)
        return self._blocking.presence_watch(group, channel)

    def presence_list(self, group: str) -> list[Present[Message]]:
        """Return who is present in `group`, by key.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        _check("presence_list", group)
        return self._blocking.presence_list(group)

    def presence_count(self, group: str) -> int:
        """Return how many keys are present in `group`.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        _check("presence_count", group)
        return self._blocking.presence_count(group)

    def presence_groups(self, key: str) -> list[str]:
        """Return the names of the groups in which `key` is present, sorted.

        Raises TypeError, ValueError and ChannelDatabaseError as `presence_join` does.
        """
        require_no_loop("presence_groups")
        return self._blocking.presence_groups(require_key(key))


def _check(method: str, group: object, channel: object = "channel") -> None:
    require_no_loop(method)
    names.require_group_name(group)
    names.require_channel_name(channel)
