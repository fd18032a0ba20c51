"""The errors that users see. `storage.errors` makes those that name a remedy."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.db.utils import OperationalError

__all__ = ["ChannelDatabaseError", "LayerClosedError", "UnusableAliasError"]


class UnusableAliasError(ImproperlyConfigured):
    """DATABASES does not have what a layer needs; `problem` says what is wrong, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class ChannelDatabaseError(OperationalError):
    """The layer's database cannot be used now; the text says why and what to do. The next call tries again."""


class LayerClosedError(RuntimeError):
    """The layer was closed while this call was waiting."""
