"""Benchmarks of the channel layers: ``python -m tests.benchmarks`` (``--help`` lists the options).

Every scenario runs over every layer, in fresh processes on a fresh store, several times; the layers take turns inside
each repetition, so that a noisy minute does not hit one of them alone.

How a run goes: ``runner.py`` makes the store and starts one ``worker.py`` for each player of each role. Roles that
prepare the store go first; where a copy of what they leave can be kept, in the first run alone. The others open the
layer one after another and prove with a message to themselves that they can receive (``Player.settle``); then all play
at once. They agree over the notice board (``board.py``), never over the layer. What a role saw goes back as an
``Account``; loss, duplicates and disorder are counted from those of all roles, and figures are made of them.

To add a scenario, write a module in ``scenarios/`` that makes a ``Scenario`` and list it in ``scenarios/__init__.py``;
``docs/benchmarks.md`` describes it in a line. Its roles are functions from a ``Player`` to an ``Account``. They

- give every expected delivery an ``identity``, one stream for each sequence that must stay in order, and note it in
  ``sent`` and ``received``;
- skip messages whose identity is ``SETTLING``;
- start their receivers, settle again, and only then publish where they can be reached: some layers lose what comes
  earlier;
- send as long as ``player.numbers()`` counts, after a warm-up, and end with ``player.drain()``.

Start no clock before all are ready, and write to the notice board only when it has stopped.

To add a layer, write a ``Candidate`` in ``layers.py`` and list it in ``CANDIDATES`` there. Its ``fresh_store``
describes the Django settings that lead to a store of its own, and takes the store down. If it keeps unread messages and
takes long to send 100,000 of them, give ``backlog.py`` a quicker way. Its packages go into the group ``benchmark`` in
pyproject.toml.

The report judges the targets of ``targets.py``.
"""
