"""The scenarios, in the order of the report."""

from .base import Role, Scenario
from .broadcast import make_broadcast
from .many_senders import MANY_SENDERS
from .one_way import ONE_WAY
from .ping_pong import PING_PONG
from .send_receive import SEND_RECEIVE
from .work_queue import WORK_QUEUE

__all__ = ["SCENARIOS", "Role", "Scenario"]

SCENARIOS = {
    scenario.key: scenario
    for scenario in (
        SEND_RECEIVE,
        PING_PONG,
        ONE_WAY,
        MANY_SENDERS,
        make_broadcast(processes=1, members=10),
        make_broadcast(processes=4, members=250),
        WORK_QUEUE,
    )
}
