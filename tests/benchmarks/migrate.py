"""Make the tables of the store on standard input: a process of its own, so that Django is set up afresh."""

import json
import sys

from .stores import Store, configure_django

__all__: list[str] = []


def main() -> None:
    """Migrate the ``channels`` database."""
    configure_django(Store(**json.load(sys.stdin)))
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", database="channels", verbosity=0)
    # The last close moves everything from the write-ahead log into the file, which is then copied.
    connections.close_all()


if __name__ == "__main__":
    main()
