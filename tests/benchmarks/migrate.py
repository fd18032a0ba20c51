"""Make the tables of the store on standard input, in the database whose alias is the argument.

A process of its own, so that Django is set up afresh.
"""

import json
import sys

from .stores import Store, configure_django

__all__: list[str] = []


def main(alias: str) -> None:
    """Migrate the database ``alias``."""
    configure_django(Store(**json.load(sys.stdin)))
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", database=alias, verbosity=0)
    # The last close of an SQLite file moves everything from the write-ahead log into it; it is copied then.
    connections.close_all()


if __name__ == "__main__":
    main(sys.argv[1])
