"""Whole test runs of a user's project that uses `channels_sqlite.testing`: `manage.py test`, pytest, in parallel."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.django.project import COMMAND_DEADLINE_S, Project, start_project

pytestmark = pytest.mark.processes

ASGI = """
    import os
    from channels.generic.websocket import AsyncJsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter
    from django.core.asgi import get_asgi_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    pages = get_asgi_application()

    class Chat(AsyncJsonWebsocketConsumer):
        groups = ["room"]

        async def receive_json(self, content):
            await self.channel_layer.group_send("room", {"type": "chat.message", "text": content})

        async def chat_message(self, message):
            await self.send_json(message["text"])

    application = ProtocolTypeRouter({"http": pages, "websocket": Chat.as_asgi()})
"""

# Every test begins in an empty database, and leaves something in it.
SHARED = """
    import asyncio
    import threading
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer
    from channels.testing import WebsocketCommunicator
    from channels_sqlite import get_sync_channel_layer
    from project.asgi import application

    LAYER = {"BACKEND": "channels_sqlite.layers.SqliteChannelLayer"}

    def begins_empty():
        layer = get_sync_channel_layer()
        assert layer.group_channels("room") == []
        try:
            message = layer.receive("left", timeout=0)
        except TimeoutError:
            pass
        else:
            raise AssertionError(f"of another test: {message}")
        layer.send("left", {"by": "sync code"})
        layer.group_add("room", layer.new_channel())
        thread = threading.Thread(target=async_to_sync(get_channel_layer().send), args=("left", {"by": "a thread"}))
        thread.start()
        thread.join()

    async def chats():
        await asyncio.to_thread(begins_empty)
        sockets = [WebsocketCommunicator(application, "/") for _ in range(2)]
        for socket in sockets:
            assert (await socket.connect(timeout=30))[0]
        await sockets[0].send_json_to("hello")
        assert [await socket.receive_json_from(timeout=30) for socket in sockets] == ["hello"] * 2
        await asyncio.to_thread(get_sync_channel_layer().group_send, "room", {"type": "chat.message", "text": "all"})
        assert [await socket.receive_json_from(timeout=30) for socket in sockets] == ["all"] * 2
        await sockets[0].disconnect(timeout=30)  # the other one is left open
"""

UNITTESTS = """
    import django.test
    from channels_sqlite.models import Message
    from channels_sqlite.testing import IsolatedChannelLayersMixin, lossy
    from project.shared import *

    class Cases:
        def test_sync(self):
            begins_empty()

        def test_lossy(self):
            begins_empty()
            with lossy(share=1):
                with self.assertRaises(TimeoutError):
                    get_sync_channel_layer().receive("left", timeout=0.1)

    class ChatCases(Cases):
        async def test_chat(self):
            await chats()

        def test_chat_from_sync_code(self):
            async_to_sync(chats)()

    class SimpleTests(IsolatedChannelLayersMixin, Cases, django.test.SimpleTestCase):
        pass

    class Tests(IsolatedChannelLayersMixin, Cases, django.test.TestCase):
        databases = {"default", "channels"}

        def test_with_the_write_lock_held(self):
            assert Message.objects.count() == 0
            Message.objects.all().delete()  # TestCase holds the lock now
            begins_empty()
            async_to_sync(get_channel_layer().send)("left", {"by": "async code"})

        @django.test.override_settings(CHANNEL_LAYERS={"default": {**LAYER, "CONFIG": {"capacity": 3}}})
        def test_overridden_settings(self):
            begins_empty()
            assert get_channel_layer().capacity == 3

        def test_overridden_settings_within(self):
            begins_empty()
            for alias in ("channels", "default"):
                with self.settings(CHANNEL_LAYERS={"default": {**LAYER, "CONFIG": {"database": alias, "prefix": "p"}}}):
                    begins_empty()

    class TransactionTests(IsolatedChannelLayersMixin, ChatCases, django.test.TransactionTestCase):
        pass

    @django.test.override_settings(CHANNEL_LAYERS={"default": {**LAYER, "CONFIG": {"prefix": "other"}}})
    class OverriddenTests(IsolatedChannelLayersMixin, ChatCases, django.test.TransactionTestCase):
        pass
"""

# Not with databases on disk: Channels' consumers close old connections, which a TestCase's is taken for.
CHATS_IN_TESTCASE = """
    class ChatTests(IsolatedChannelLayersMixin, ChatCases, django.test.TestCase):
        pass
"""

LIVE = """
    import json
    import multiprocessing
    from channels.testing import ChannelsLiveServerTestCase
    from channels_sqlite.testing import IsolatedChannelLayersMixin
    from project.shared import *
    from websockets.sync.client import connect

    class LiveCases:
        serve_static = False
        start_method = "fork"

        @classmethod
        def setUpClass(cls):
            multiprocessing.set_start_method(cls.start_method, force=True)
            super().setUpClass()

        def chat(self):
            begins_empty()
            layer = get_sync_channel_layer()
            with connect(self.live_server_ws_url, open_timeout=30) as one:
                with connect(self.live_server_ws_url, open_timeout=30) as two:
                    one.send(json.dumps("hello"))
                    assert [json.loads(page.recv(timeout=30)) for page in (one, two)] == ["hello"] * 2
                    assert layer.group_count("room") == 3
                    layer.group_send("room", {"type": "chat.message", "text": "all"})
                    assert [json.loads(page.recv(timeout=30)) for page in (one, two)] == ["all"] * 2
            for _ in range(1000):  # until the server has noticed
                if layer.group_count("room") == 1:
                    break
                threading.Event().wait(0.03)
            else:
                raise AssertionError("still in the group")

        def test_chat(self):
            self.chat()

        def test_chat_again(self):
            self.chat()
"""

LIVE_UNITTESTS = """
    class ForkTests(IsolatedChannelLayersMixin, LiveCases, ChannelsLiveServerTestCase):
        pass

    class ForkserverTests(IsolatedChannelLayersMixin, LiveCases, ChannelsLiveServerTestCase):
        start_method = "forkserver"
"""

CONFTEST = "from channels_sqlite.testing import isolated_channel_layers\n"

PYTESTS = """
    import pytest
    from project.shared import *

    pytestmark = pytest.mark.usefixtures("isolated_channel_layers")

    @pytest.mark.parametrize("n", range(4))
    def test_sync(n):
        begins_empty()

    @pytest.mark.parametrize("n", range(2))
    async def test_chat(n):
        await chats()

    @pytest.mark.django_db(databases=["default", "channels"])
    def test_within_a_transaction():
        from channels_sqlite.models import Message
        Message.objects.all().delete()
        begins_empty()
        async_to_sync(get_channel_layer().send)("left", {"by": "async code"})
"""

LIVE_PYTESTS = """
    import pytest

    @pytest.mark.usefixtures("isolated_channel_layers")
    class TestSpawn(LiveCases, ChannelsLiveServerTestCase):
        start_method = "spawn"
"""

FILES = """
    for alias in DATABASES:
        DATABASES[alias]["TEST"] = {"NAME": BASE_DIR / f"test_{alias}.sqlite3"}
"""

PYTEST_INI = """
    [pytest]
    DJANGO_SETTINGS_MODULE = project.settings
    pythonpath = .
    python_files = test_*.py tests.py
    asyncio_mode = auto
    asyncio_default_fixture_loop_scope = function
    filterwarnings =
        error
"""


@pytest.fixture
def users_project(no_leaks: None, tmp_path: Path) -> Project:
    folder = tmp_path / "site"
    folder.mkdir()
    project = start_project(folder)
    project.settings('ASGI_APPLICATION = "project.asgi.application"\nINSTALLED_APPS = [*INSTALLED_APPS, "project"]')
    project.write("project/asgi.py", ASGI)
    project.write("project/shared.py", SHARED)
    return project


def run(project: Project, *command: str) -> str:
    """Run a test command in the project's folder; return what it printed."""
    with tempfile.TemporaryDirectory(prefix="t") as temporary:  # short enough for the names of sockets
        finished = subprocess.run(
            [sys.executable, *command],
            cwd=project.folder,
            env={**project.environment(), "TMPDIR": temporary},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
        )
        left = [path.name for path in Path(temporary).iterdir() if path.name.startswith("channels-test-")]
    assert finished.returncode == 0, finished.stdout
    assert "polling alone" not in finished.stdout
    assert not (project.folder / "channels.sqlite3").exists(), "the real database was touched"
    assert left == [], "temporary files were left behind"
    return finished.stdout


def test_manage_py_test_in_parallel_with_databases_in_memory(users_project: Project) -> None:
    users_project.write("project/tests.py", UNITTESTS + CHATS_IN_TESTCASE)
    printed = run(users_project, "-W", "error::RuntimeWarning", "manage.py", "test", "--parallel", "2")
    assert re.search(r"Ran 19 tests", printed), printed


def test_manage_py_test_with_live_servers_and_databases_on_disk(users_project: Project) -> None:
    users_project.settings(FILES)
    users_project.write("project/tests.py", LIVE + LIVE_UNITTESTS)
    printed = run(users_project, "-W", "error::RuntimeWarning", "manage.py", "test")
    assert re.search(r"Ran 4 tests", printed), printed


def test_pytest_with_databases_in_memory_and_the_code_of_the_documentation(users_project: Project) -> None:
    from tests.packaging.test_readme import files_in

    messages = {name: text for name, text in files_in("docs/sync.md").items() if name == "photos/messages.py"}
    users_project.write("pytest.ini", PYTEST_INI)
    users_project.write("project/test_chat.py", PYTESTS)
    users_project.write("photos/__init__.py", "")
    for name, text in {**messages, **files_in("docs/testing.md")}.items():
        users_project.write(name, text)
    printed = run(users_project, "-m", "pytest", "-p", "no:cacheprovider")
    assert "11 passed" in printed, printed


def test_pytest_in_two_processes_with_a_live_server_and_databases_on_disk(users_project: Project) -> None:
    users_project.settings(FILES)
    users_project.write("pytest.ini", PYTEST_INI)
    users_project.write("conftest.py", CONFTEST)
    users_project.write("project/test_chat.py", PYTESTS)
    users_project.write("project/test_cases.py", UNITTESTS)
    users_project.write("project/test_live.py", LIVE + LIVE_PYTESTS)
    printed = run(users_project, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope")
    assert "24 passed" in printed, printed
