"""`get_sync_channel_layer`: which object it gives."""

import threading

import channels.layers
import pytest
from channels.layers import InMemoryChannelLayer
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import channels_sqlite.sync
from channels_sqlite import SyncChannelLayer, get_channel_layer, get_sync_channel_layer
from tests.conformance.backends import BACKENDS, IN_MEMORY
from tests.facade.configure import Configure, only_ours
from tests.facade.steps import collect
from tests.facade.threads import DEADLINE_S, Threads


class SlowToMake(InMemoryChannelLayer):
    """A layer whose making takes long enough for others to begin to make it too."""

    makers = threading.Barrier(2)

    def __init__(self, **config: object) -> None:
        super().__init__()
        try:
            self.makers.wait(0.3)
        except threading.BrokenBarrierError:
            pass  # nobody else came


def test_one_object_per_alias(configure: Configure) -> None:
    default, other = configure(), configure("other")
    default = get_sync_channel_layer()  # CHANNEL_LAYERS has changed
    assert isinstance(default, SyncChannelLayer)
    assert default is get_sync_channel_layer("default") is get_sync_channel_layer(alias="default")
    assert other is get_sync_channel_layer("other")
    assert other is not default
    assert default.layer is channels.layers.get_channel_layer()
    assert other.layer is channels.layers.get_channel_layer("other")
    default.send("channel", {"to": "default"})
    assert collect(default, "channel", 1) == [{"to": "default"}]


@only_ours
def test_both_faces_have_one_layer(facade: SyncChannelLayer) -> None:
    assert facade.layer is get_channel_layer()
    assert channels_sqlite.sync.get_sync_channel_layer() is facade


def test_new_object_when_the_settings_change(configure: Configure) -> None:
    before = configure()
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": BACKENDS[IN_MEMORY]}}):
        inside = get_sync_channel_layer()
        assert inside is not before
        assert isinstance(inside.layer, InMemoryChannelLayer)
        inside.send("channel", {"n": 1})
        assert collect(inside, "channel", 1) == [{"n": 1}]
    after = get_sync_channel_layer()
    assert after is not inside
    assert after.layer is channels.layers.get_channel_layer()


def test_unknown_alias_is_named_with_those_that_there_are(configure: Configure) -> None:
    configure()
    configure("other")
    with pytest.raises(ImproperlyConfigured, match=r"no alias 'nothing'.*'default', 'other'"):
        get_sync_channel_layer("nothing")
    with override_settings(CHANNEL_LAYERS={}), pytest.raises(ImproperlyConfigured, match=r"'default'.*none"):
        get_sync_channel_layer()


@only_ours
def test_faulty_config_is_told(configure: Configure) -> None:
    with pytest.raises(ImproperlyConfigured, match="capacity"):
        configure(capacity=0)


def test_threads_that_come_at_once_get_one_object(threads: Threads) -> None:
    SlowToMake.makers.reset()
    backend = f"{__name__}.{SlowToMake.__name__}"
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend}}):
        asking = [threads.start(get_sync_channel_layer) for _ in range(4)]
        assert {future.result(DEADLINE_S) for future in asking} == {get_sync_channel_layer()}
