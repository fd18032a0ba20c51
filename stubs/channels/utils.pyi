from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from typing_extensions import Never

def name_that_thing(thing: object) -> str: ...

# Hands on whatever the callables return.
async def await_many_dispatch(
    consumer_callables: Sequence[Callable[[], Awaitable[Any]]], dispatch: Callable[[Any], Awaitable[object]]
) -> Never: ...
