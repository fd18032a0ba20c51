"""One connection of a consumer, played without a server: each side at its own pace, and every end in sight."""

import asyncio
from collections.abc import Iterable
from typing import Any

from channels.consumer import AsyncConsumer

PATIENCE_S = 10.0


class Connection:
    """A consumer that runs in a task, its client's messages in a queue, and what it has sent in another."""

    def __init__(self, consumer: type[AsyncConsumer], scope: dict[str, Any] | None = None, **initkwargs: Any) -> None:
        self.to_consumer: asyncio.Queue[Any] = asyncio.Queue()
        self.from_consumer: asyncio.Queue[Any] = asyncio.Queue()
        application = consumer.as_asgi(**initkwargs)
        self.task = asyncio.ensure_future(
            application(scope or {"type": "websocket"}, self.to_consumer.get, self.from_consumer.put)
        )

    def say(self, *messages: dict[str, Any]) -> None:
        """Send as a server does for the client."""
        for message in messages:
            self.to_consumer.put_nowait(message)

    def say_texts(self, texts: Iterable[str]) -> None:
        self.say(*({"type": "websocket.receive", "text": text} for text in texts))

    async def hear(self) -> Any:
        """The next message to the client. Raises what the consumer has ended with."""
        hearing = asyncio.ensure_future(self.from_consumer.get())
        await asyncio.wait([hearing, self.task], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():
            return hearing.result()
        hearing.cancel()
        assert self.task.done(), "the consumer has sent nothing"
        self.task.result()
        raise AssertionError("the consumer has ended")

    async def hear_texts(self, count: int) -> list[str]:
        return [(await self.hear())["text"] for _ in range(count)]

    def heard(self) -> list[Any]:
        """What has been sent to the client by now and was not heard yet."""
        return [self.from_consumer.get_nowait() for _ in range(self.from_consumer.qsize())]

    async def opened(self) -> "Connection":
        self.say({"type": "websocket.connect"})
        assert (await self.hear())["type"] == "websocket.accept"
        return self

    async def ended(self) -> None:
        """Wait for the consumer's end. Raises what it has ended with."""
        await asyncio.wait([self.task], timeout=PATIENCE_S)
        assert self.task.done(), "the consumer goes on"
        self.task.result()

    async def leave(self) -> None:
        self.say({"type": "websocket.disconnect", "code": 1000})
        await self.ended()

    async def cancel(self) -> None:
        """Cancel it, as a server does that stops."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=PATIENCE_S)
        assert self.task.cancelled()
