"""The code in the pages about photos runs as it stands there, in a project made as the README says."""

import dataclasses
import importlib
import inspect
import re
import signal
from pathlib import Path

import django
import pytest
from channels.layers import channel_layers
from django.test import override_settings

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.options import Options
from tests.django.project import start_project
from tests.packaging.pages import blocks, table
from tests.support.waiting import eventually

PHOTOS = ("docs/sending.md", "docs/sync.md", "docs/workers.md")
REDIS = "docs/redis.md"
TESTING = "docs/testing.md"
DEADLINE_S = 60

# What a project of photos has beside the code of the pages.
SURROUNDINGS = {
    "photos/__init__.py": "",
    "photos/apps.py": """
        from django.apps import AppConfig

        class PhotosConfig(AppConfig):
            name = "photos"
            default_auto_field = "django.db.models.BigAutoField"

            def ready(self):
                import photos.signals
    """,
    "photos/models.py": """
        from django.db import models

        class Photo(models.Model):
            title = models.CharField(max_length=100)
    """,
    "photos/images.py": """
        SIZES = [200, 400, 800, 1600]

        def resize(photo, size):
            assert photo.title
    """,
}

USE = """
    import asyncio
    from django.core.management import call_command
    from django.db import transaction
    from django.test import RequestFactory
    from channels_sqlite import get_sync_channel_layer
    from photos.models import Photo

    call_command("migrate", run_syncdb=True, verbosity=0)
    layer = get_sync_channel_layer()
    page = layer.new_channel()
    layer.group_add("gallery", page)

    def percents(count):
        messages = [layer.receive(page, timeout=30) for _ in range(count)]
        assert {message["type"] for message in messages} == {"photo.progress"}, messages
        assert {message["photo"] for message in messages} == {photo.pk}, messages
        return [message["percent"] for message in messages]

    from photos.views import announce
    assert announce(RequestFactory().get("/")).status_code == 405
    assert announce(RequestFactory().post("/", {"text": "hi"})).status_code == 204
    assert layer.receive(page, timeout=30) == {"type": "gallery.notice", "text": "hi"}
    print("the view ran")

    with transaction.atomic():
        photo = Photo.objects.create(title="sunset")
    assert percents(4) == [25, 50, 75, 100]
    photo.save()
    print("the signal handler and the worker ran")

    layer.send("thumbnails", {"type": "thumbnail.make", "photo": 999})
    from photos.async_views import make_again
    assert asyncio.run(make_again(RequestFactory().post("/"), photo.pk)).status_code == 202
    assert sorted(percents(5)) == [0, 25, 50, 75, 100]
    print("the async view ran")

    from photos.reminders import publish
    ticket = publish([photo.pk], "somebody.else!left-out")
    kinds = [layer.receive(page, timeout=30)["type"] for _ in range(5)]
    assert sorted(kinds) == ["gallery.notice", *["photo.progress"] * 4]
    assert layer.cancel(ticket) is True
    print("the reminder ran")
"""

USE_TASK = """
    from photos.tasks import rebuild
    result = rebuild.enqueue(photo.pk)
    assert result.status == "SUCCESSFUL", result.errors
    assert result.return_value == 4
    assert percents(4) == [25, 50, 75, 100]
    print("the task ran")
"""


def _blocks(page: str) -> list[str]:
    """The Python code in a page."""
    found = [block.text for block in blocks(page) if block.language == "python"]
    assert found, f"{page} has no Python code"
    return found


def files_in(*pages: str) -> dict[str, str]:
    """The code that names its file in its first line."""
    named = [block for page in pages for block in blocks(page) if block.file]
    found = {block.file: block.text for block in named}
    assert len(found) == len(named)
    return found


def test_all_code_of_these_pages_is_run() -> None:
    assert len(files_in(*PHOTOS)) == sum(len(_blocks(page)) for page in PHOTOS)
    assert set(files_in(*PHOTOS)) == {
        "photos/async_views.py",
        "photos/management/commands/make_thumbnails.py",
        "photos/messages.py",
        "photos/reminders.py",
        "photos/signals.py",
        "photos/tasks.py",
        "photos/views.py",
    }


def test_all_code_about_testing_is_run() -> None:  # by tests/django/test_testing_runs.py
    assert len(files_in(TESTING)) == len(_blocks(TESTING)) == 3


@pytest.mark.processes
def test_a_view_a_signal_handler_a_worker_an_async_view_and_a_task_run(no_leaks: None, tmp_path: Path) -> None:
    project = start_project(tmp_path)
    project.settings("INSTALLED_APPS += ['photos']\n")
    for name, text in {**SURROUNDINGS, **files_in(*PHOTOS)}.items():
        project.write(name, text)
    project.migrated()
    with_tasks = django.VERSION >= (6, 0)
    with project.running("make_thumbnails") as worker:
        printed = project.shell(USE + (USE_TASK if with_tasks else ""))
        eventually(lambda: "No thumbnails of photo 999" in project.log(), DEADLINE_S, what=project.log())
        assert worker.poll() is None, project.log()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(DEADLINE_S) == 0, project.log()
    expected = ["the view ran", "the signal handler and the worker ran", "the async view ran", "the reminder ran"]
    assert [line for line in printed.splitlines() if line.endswith(" ran")] == expected + ["the task ran"] * with_tasks


def test_the_settings_for_coming_from_another_layer_make_a_layer() -> None:
    (block,) = _blocks("docs/migrating.md")
    settings: dict[str, dict[str, dict[str, object]]] = {}
    exec(block, settings)
    with override_settings(CHANNEL_LAYERS=settings["CHANNEL_LAYERS"]):
        assert isinstance(channel_layers["default"], SqliteChannelLayer)


def test_the_options_of_channels_redis_are_all_named_with_what_is_here() -> None:
    of_redis, of_pubsub = (
        set(inspect.signature(getattr(importlib.import_module(f"channels_redis.{module}"), name)).parameters)
        for module, name in (("core", "RedisChannelLayer"), ("pubsub", "RedisPubSubLoopLayer"))
    )
    rows = table("docs/migrating.md", "Options of channels_redis")
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert named >= of_redis
    assert named - of_redis <= of_pubsub
    here = {name for row in rows for name in re.findall(r"^`(\w+)`", row[1])}
    assert here <= {field.name for field in dataclasses.fields(Options)}


def test_the_settings_for_redis_make_a_layer_that_the_facade_takes() -> None:
    (block,) = _blocks(REDIS)
    settings: dict[str, dict[str, dict[str, object]]] = {}
    exec(block, settings)
    with override_settings(CHANNEL_LAYERS=settings["CHANNEL_LAYERS"]):
        layer = get_sync_channel_layer()
        assert layer.layer is channel_layers["default"]
        assert type(layer.layer).__name__ == "RedisChannelLayer"
        assert layer.layer.capacity == 100
