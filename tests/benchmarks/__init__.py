"""Benchmarks of the channel layers: ``python -m tests.benchmarks`` (``--help`` lists the options).

Every scenario runs over every layer, in fresh processes on a fresh store, several times; the layers take turns inside
each repetition, so that a noisy minute does not hit one of them alone.

To add a scenario, write a module in ``scenarios/`` that makes a ``Scenario`` and list it in ``scenarios/__init__.py``.
To add a layer, write a ``Candidate`` in ``layers.py`` and list it in ``CANDIDATES`` there.
"""
