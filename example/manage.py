#!/usr/bin/env python
"""Django's command-line utility, which finds its own environment (see bootstrap.py)."""

import os
import sys

import bootstrap


def main() -> None:
    """Run the management command that the arguments name."""
    bootstrap.enter_environment(sys.argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
