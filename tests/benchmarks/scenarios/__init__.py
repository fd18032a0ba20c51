"""The scenarios, in the order of the report."""

from .base import Role, Scenario
from .broadcast import make_broadcast
from .history import HISTORY
from .idle import IDLE
from .lag import LAG
from .later import LATER, LATER_WITH_SCHEDULED
from .many_senders import MANY_SENDERS
from .one_way import ONE_WAY
from .ping_pong import PING_PONG, PING_PONG_BESIDE_DEEP, PING_PONG_WITH_BACKLOG
from .presence import PRESENCE, PRESENCE_CROWD
from .ring import make_ring
from .send_receive import (
    SEND_RECEIVE,
    SEND_RECEIVE_DEEP,
    SEND_RECEIVE_NORMAL,
    SEND_RECEIVE_WITH_BACKLOG,
    SEND_RECEIVE_WITH_SCHEDULED,
)
from .steady import STEADY
from .sync_calls import SYNC_GROUP_SEND, SYNC_SEND
from .tasks import TASKS
from .websockets import make_echoes, make_websockets
from .work_queue import WORK_QUEUE, WORK_QUEUE_DEEP, WORK_QUEUE_WITH_BACKLOG, WORK_QUEUE_WITH_SCHEDULED

__all__ = ["SCENARIOS", "Role", "Scenario"]

SCENARIOS = {
    scenario.key: scenario
    for scenario in (
        SEND_RECEIVE,
        SEND_RECEIVE_NORMAL,
        PING_PONG,
        ONE_WAY,
        MANY_SENDERS,
        make_broadcast(processes=1, members=10),
        make_broadcast(processes=4, members=250),
        make_broadcast(processes=2, members=5_000, in_quick=False),
        WORK_QUEUE,
        SYNC_SEND,
        SYNC_GROUP_SEND,
        IDLE,
        LAG,
        SEND_RECEIVE_WITH_BACKLOG,
        PING_PONG_WITH_BACKLOG,
        WORK_QUEUE_WITH_BACKLOG,
        SEND_RECEIVE_WITH_SCHEDULED,
        WORK_QUEUE_WITH_SCHEDULED,
        LATER,
        LATER_WITH_SCHEDULED,
        PRESENCE,
        PRESENCE_CROWD,
        HISTORY,
        SEND_RECEIVE_DEEP,
        PING_PONG_BESIDE_DEEP,
        WORK_QUEUE_DEEP,
        *(make_ring(processes=processes) for processes in (1, 2, 4, 8)),
        *(
            make_broadcast(processes=processes, members=members, in_quick=False, stretch=0.5, varies=True)
            for processes, members in ((1, 250), (2, 250), (8, 250), (2, 5))
        ),
        *(
            make_websockets(workers=workers, sockets=sockets, direct=direct)
            for workers in (1, 2)
            for sockets in (100, 300, 1_000)
            for direct in (False, True)
        ),
        *(make_echoes(rate=rate, direct=direct) for rate in (10, 100, 1_000) for direct in (False, True)),
        *TASKS,
        STEADY,
    )
}
"""By the name that the command line uses."""
