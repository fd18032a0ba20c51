"""Channel layers for code without an event loop: views, signal handlers, management commands, threads and tasks."""

from __future__ import annotations

from channels_sqlite.sync.facade import SyncChannelLayer, get_sync_channel_layer

__all__ = ["SyncChannelLayer", "get_sync_channel_layer"]
