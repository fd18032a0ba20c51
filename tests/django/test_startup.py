"""Code of the project that uses the layer while Django starts, before the first migrate, is named with a way out."""

import pytest

from tests.django.project import Project

APP = """
    from django.apps import AppConfig

    class ShopConfig(AppConfig):
        name = "shop"

        def ready(self):
            {call}
"""
CALLS = {
    "the facade": """
            from channels_sqlite import get_sync_channel_layer
            get_sync_channel_layer().send("jobs", {"type": "started"})
    """,
    "the async layer": """
            from asgiref.sync import async_to_sync
            from channels_sqlite import get_channel_layer
            async_to_sync(get_channel_layer().send)("jobs", {"type": "started"})
    """,
    "a loop of its own": """
            import asyncio
            from channels_sqlite import get_channel_layer
            asyncio.run(get_channel_layer().receive("jobs"))
    """,
}
COMMAND = """
    from django.core.management import BaseCommand, call_command

    class Command(BaseCommand):
        requires_system_checks = ()

        def handle(self, **options):
            {body}
"""
MIGRATING = 'call_command("migrate", database="channels", skip_checks=False)'
IN_A_THREAD = """
    from concurrent.futures import ThreadPoolExecutor
    from channels_sqlite import get_sync_channel_layer
    urlpatterns = []
    with ThreadPoolExecutor(1) as executor:
        executor.submit(get_sync_channel_layer().send, "jobs", {"type": "started"}).result()
"""
SENDING_MIGRATE = """
    from django.core.management import call_command
    from django.core.management.commands import migrate
    from channels_sqlite import get_sync_channel_layer

    class Migrate(migrate.Command):
        def handle(self, **options):
            get_sync_channel_layer().send("jobs", {"type": "started"})

    call_command(Migrate())
"""
SAID = "shop.apps.ShopConfig.ready() ("


def add_app(project: Project, call: str) -> None:
    project.write("shop/__init__.py", "")
    project.write("shop/apps.py", APP.format(call=call.strip()))
    project.settings('\nINSTALLED_APPS += ["shop"]\n')


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("file", ["missing", "without tables"])
def test_a_ready_that_sends_before_the_first_migrate_is_named(project: Project, call: str, file: str) -> None:
    add_app(project, call)
    if file == "without tables":
        (project.folder / "channels.sqlite3").touch()
    printed = project.manage("migrate", "--database=channels", expected=1)
    last = printed.strip().splitlines()[-1]
    assert SAID in last, printed
    assert "shop/apps.py, line " in last
    assert "post_migrate" in last
    assert "catch ChannelDatabaseError" in last
    project.write("shop/apps.py", APP.format(call="pass"))
    project.manage("migrate", "--database=channels")
    project.write("shop/apps.py", APP.format(call=CALLS["the facade"].strip()))
    project.manage("check")


def test_the_way_out_is_one(project: Project) -> None:
    add_app(
        project,
        """
            from django.db.models.signals import post_migrate
            post_migrate.connect(self.send, sender=self)

        def send(self, using, **kwargs):
            from channels_sqlite import get_sync_channel_layer
            if using == "channels":
                get_sync_channel_layer().send("jobs", {"type": "started"})
        """,
    )
    project.write("shop/models.py", "")
    project.manage("migrate", "--database=channels")
    assert project.query("channels.sqlite3", "SELECT count(*) FROM channels_sqlite_message") == [(1,)]


@pytest.mark.parametrize("module", ["shop.models", "project.urls"])
def test_a_module_that_sends_when_it_is_imported_is_named(project: Project, module: str) -> None:
    add_app(project, "pass")
    path = f"{module.replace('.', '/')}.py"
    project.write(path, "urlpatterns = []\n" + CALLS["the facade"].replace("            ", ""))
    printed = project.manage("migrate", "--database=channels", expected=1)
    assert f"the module {module} (" in printed.strip().splitlines()[-1], printed


def test_a_module_that_a_migrate_of_another_command_imports_is_named(project: Project) -> None:
    add_app(project, "pass")
    project.write("project/urls.py", IN_A_THREAD)
    project.write("shop/management/commands/prepare.py", COMMAND.format(body=MIGRATING))
    printed = project.manage("prepare", expected=1)
    assert "the module project.urls (" in printed.strip().splitlines()[-1], printed


def test_a_module_that_calls_migrate_is_not_blamed_for_what_migrate_does(project: Project) -> None:
    add_app(project, "pass")
    project.write("shop/prepare.py", SENDING_MIGRATE)
    project.write("shop/management/commands/prepare.py", COMMAND.format(body="import shop.prepare"))
    printed = project.manage("prepare", expected=1)
    assert printed.strip().endswith('does not exist; run "python manage.py migrate --database=channels"')


def test_once_django_has_started_nobody_is_blamed(project: Project) -> None:
    script = 'from channels_sqlite import get_sync_channel_layer; get_sync_channel_layer().send("jobs", {"type": "x"})'
    printed = project.manage("shell", "--no-imports", "-c", script, expected=1)
    assert printed.strip().endswith('does not exist; run "python manage.py migrate --database=channels"')
