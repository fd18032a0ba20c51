"""One process of a run: plays its roles and reports what they saw. The parent's counterpart is runner.py.

The first line on standard input says what to play (``Assignment``); the lines after it, and those on standard output,
belong to the notice board, until the last one, which holds the accounts. Where this process plays all roles, it has the
notice board to itself.
"""

import asyncio
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, cast

from .board import LocalBoard, WorkerEnd
from .measures import Account, Effort
from .player import Player
from .protocols import Layer
from .scenarios import SCENARIOS, Role, Scenario
from .stores import Store, configure_django

__all__ = ["Assignment"]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What one process has to do: ``parts`` are pairs of a role's name and an index among its players."""

    scenario: str
    parts: tuple[tuple[str, int], ...]
    effort: Effort
    store: Store

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> "Assignment":
        """Return what ``to_json`` was called on."""
        # Any: decoded JSON, written by to_json above.
        fields: dict[str, Any] = json.loads(line)
        return cls(
            scenario=fields["scenario"],
            parts=tuple((name, index) for name, index in fields["parts"]),
            effort=Effort(**fields["effort"]),
            store=Store(**fields["store"]),
        )


def main() -> None:
    """Play, and leave with status 1 after an error."""
    # What a library prints must not end up among the lines for the parent.
    output_fd = os.dup(1)
    os.dup2(2, 1)
    parent = WorkerEnd(output_fd)
    assignment = Assignment.from_json(_first_line())
    configure_django(assignment.store)
    try:
        asyncio.run(_play(assignment, parent))
    # Whatever it is, the parent reports it as the outcome of this run.
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        parent.write({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _first_line() -> bytes:
    """Read one line and not a byte more: the event loop reads the rest."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise EOFError("standard input ended before the assignment")
        line += byte
    return line


async def _play(assignment: Assignment, parent: WorkerEnd) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    listening = asyncio.ensure_future(parent.listen(lines))
    layer = _make_layer()
    scenario = SCENARIOS[assignment.scenario]
    roles = {role.name: role for role in scenario.roles}
    board = LocalBoard() if len(assignment.parts) == scenario.processes else parent
    plays = []
    for name, index in assignment.parts:
        player = Player(layer=layer, board=board, index=index, effort=assignment.effort, store=assignment.store)
        plays.append(_play_until_failure(player, _play_part(player, scenario, roles[name])))
    accounts = await asyncio.gather(*plays)
    parent.write(
        {
            "accounts": [
                {"role": name, "index": index, "account": dataclasses.asdict(account)}
                for (name, index), account in zip(assignment.parts, accounts, strict=True)
            ]
        }
    )
    await _close(layer)
    listening.cancel()


async def _play_part(player: Player, scenario: Scenario, role: Role) -> Account:
    """Play, once it is this player's turn."""
    if role.prepares:
        account = await role.play(player)
        player.publish("prepared")
        return account
    await player.wait_for("prepared", scenario.preparers)
    turn = scenario.turns.get((role.name, player.index))
    if turn is not None:
        await player.wait_for("opened", turn)
        await player.settle()
        player.publish("opened")
    return await role.play(player)


def _make_layer() -> Layer:
    from channels.layers import get_channel_layer

    return cast("Layer", get_channel_layer())


async def _play_until_failure(player: Player, playing: Awaitable[Account]) -> Account:
    """Return the account; raise what fails in the background of the role."""
    task: asyncio.Future[Account] = asyncio.ensure_future(playing)
    await asyncio.wait((task, player.failure), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        player.failure.result()
    return await task


async def _close(layer: Layer) -> None:
    """Close the layer in the way it offers: they do not agree on a name."""
    for name in ("close", "close_pools"):
        close = getattr(layer, name, None)
        if close is not None:
            await close()
            return


if __name__ == "__main__":
    main()
