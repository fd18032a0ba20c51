"""The router by itself: what it answers, and that it has no opinion on the rest."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from channels_sqlite.db_routers import ChannelsRouter
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.models import Membership, Message


class Subclass(SqliteChannelLayer):
    """What a user might make of our layer."""


OURS = "channels_sqlite.layers.SqliteChannelLayer"


def layers(*aliases: str | None) -> dict[str, dict[str, Any]]:
    """CHANNEL_LAYERS of layers that use these aliases; None: the default one."""
    return {
        f"layer-{number}": {"BACKEND": OURS, "CONFIG": {} if alias is None else {"database": alias}}
        for number, alias in enumerate(aliases)
    }


def test_our_models_are_read_and_written_where_the_layer_is() -> None:
    router = ChannelsRouter()
    with override_settings(CHANNEL_LAYERS=layers("messages")):
        for model in (Message, Membership):
            assert router.db_for_read(model) == "messages"
            assert router.db_for_write(model) == "messages"
        assert router.db_for_read(User) is None
        assert router.db_for_write(User) is None


def test_our_tables_go_into_the_aliases_of_layers_alone() -> None:
    router = ChannelsRouter()
    with override_settings(CHANNEL_LAYERS=layers("messages", None, "messages")):
        answers = {
            alias: router.allow_migrate(alias, "channels_sqlite", model_name="message")
            for alias in ("messages", "channels", "default", "other")
        }
    assert answers == {"messages": True, "channels": True, "default": False, "other": False}


def test_nothing_else_goes_into_them_and_the_rest_is_left_to_others() -> None:
    router = ChannelsRouter()
    with override_settings(CHANNEL_LAYERS=layers("messages")):
        answers = {
            alias: router.allow_migrate(alias, "auth", model_name="user") for alias in ("messages", "default", "x")
        }
    assert answers == {"messages": False, "default": None, "x": None}


def test_a_shared_default_database_keeps_everything_else() -> None:
    router = ChannelsRouter()
    with override_settings(CHANNEL_LAYERS=layers("default")):
        assert router.allow_migrate("default", "channels_sqlite") is True
        assert router.allow_migrate("default", "auth") is None


def test_relations_are_left_to_others() -> None:
    assert ChannelsRouter().allow_relation(User(), User()) is None
    assert ChannelsRouter().allow_relation(Message(), Membership()) is None


@pytest.mark.parametrize(
    "configured",
    [
        {},
        {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        {"default": {"BACKEND": "no.such.Backend"}},
        {"default": {}},
    ],
)
def test_without_a_layer_of_ours_no_alias_is_ours(configured: dict[str, Any]) -> None:
    router = ChannelsRouter()
    with override_settings(CHANNEL_LAYERS=configured):
        assert router.db_for_read(Message) is None
        assert router.allow_migrate("channels", "auth") is None
        assert not router.allow_migrate("channels", "channels_sqlite")


def test_a_subclass_of_our_layer_counts() -> None:
    router = ChannelsRouter()
    backend = f"{__name__}.Subclass"
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": {"database": "messages"}}}):
        assert router.allow_migrate("messages", "channels_sqlite") is True
