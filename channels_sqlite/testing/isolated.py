"""A database of its own for each test."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from channels_sqlite.channel_layers import layer_aliases
from channels_sqlite.layers import close_layers
from channels_sqlite.storage import isolation
from channels_sqlite.testing.rooms import room

__all__ = ["IsolatedChannelLayersMixin", "isolated"]

if TYPE_CHECKING:
    _BaseTestCase = unittest.TestCase
else:
    _BaseTestCase = object


class IsolatedChannelLayersMixin(_BaseTestCase):
    """Each test gets a fresh, migrated database for every layer of this package; name it before the test case.

    It is a temporary file, whatever `databases` says and whatever transaction the test case holds. All threads, forked
    processes and started ones see it, a ChannelsLiveServerTestCase's server included. After the test the layers are
    closed and the file is removed. Django's own connections, and so the models Message and Membership, do not see it.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        order = cls.__mro__
        if unittest.TestCase in order and order.index(IsolatedChannelLayersMixin) > order.index(unittest.TestCase):
            raise TypeError(
                f"{cls.__qualname__} must name IsolatedChannelLayersMixin before its test case: "
                f"class {cls.__name__}(IsolatedChannelLayersMixin, TestCase)"
            )

    @classmethod
    def setUpClass(cls) -> None:
        """Make the room; a live server that starts now is told of it."""
        opened = room()
        here = opened.__enter__()
        cls.addClassCleanup(opened.__exit__, None, None, None)  # after tearDownClass, where servers end
        start_server: Any = getattr(cls, "ProtocolServerProcess", None)  # the class is of the test's choice
        if start_server is not None:
            here.enter()  # what the server uses before the first test
            following = staticmethod(partial(_start_following, start_server, here.pointer))
            replaced = mock.patch.object(cls, "ProtocolServerProcess", following)
            replaced.start()
            cls.addClassCleanup(replaced.stop)
        super().setUpClass()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test with databases of its own."""
        with isolated(keep_files=hasattr(self, "ProtocolServerProcess")):
            finished: unittest.TestResult | None = super().run(result)
        return finished


@contextmanager
def isolated(*, keep_files: bool = False) -> Iterator[None]:
    """Give the layers fresh databases until the block ends; within another such block nothing happens.

    `keep_files`: leave the files until the room goes, for a server that moves on from them with the next test.
    """
    with room() as here:
        if here.running:
            yield
            return
        close_layers()  # whatever was opened outside of tests: its memberships are none of this test's
        folder = here.enter()
        here.switch(running=True)
        try:
            for alias in layer_aliases():
                isolation.provide(str(isolation.database_of(alias)))
            yield
        finally:
            close_layers()
            here.switch(running=False)
            if not keep_files:
                here.leave(folder)


def _start_following(
    start: Callable[..., object], pointer: str, host: str, get_application: Callable[[], object], **kwargs: object
) -> object:
    """Make the process of a live server, which pickles what it is given where it does not fork."""
    return start(host, partial(isolation.run_following, pointer, get_application), **kwargs)
