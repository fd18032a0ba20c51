"""Settings of the worker processes that the libraries' own commands start: those of the store in the environment."""

import json
import os

from .stores import STORE_VARIABLE, Store, django_settings

__all__: list[str] = []

globals().update(django_settings(Store(**json.loads(os.environ[STORE_VARIABLE]))))
