"""Connections that say nothing, and the end of the server: what uvicorn leaves to others."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from samjax.app.http import error_response
from samjax.app.queue import Busy

MOST_CONNECTIONS = 256
_SILENT = 10.0  # seconds in which the head of a request has to come
_CLOSING = "the server is closing"


class PromptConnection(H11Protocol):
    """A connection that is closed if no request comes, so that nobody can keep others out by saying nothing.

    Where there are more than `MOST_CONNECTIONS`, those without a request make room, the longest silent first.
    """

    _waits: asyncio.TimerHandle | None = None
    _silent_since = 0.0

    @property
    def is_answering(self) -> bool:
        """True while a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Waits for a request, for a while."""
        super().connection_made(transport)
        self._silent_since = time.monotonic()
        self._watch()
        if len(self.connections) > MOST_CONNECTIONS:
            known = self.connections - {self}
            others = [other for other in known if isinstance(other, PromptConnection) and other.can_go]
            if others:
                min(others, key=lambda other: other._silent_since).transport.close()

    @property
    def can_go(self) -> bool:
        """True if nothing is lost when the connection is closed now."""
        return not self.is_answering and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Part of a request or of several."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Waits for the next request, as long as uvicorn does; once it has begun, not longer than for the first."""
        super().on_response_complete()
        self._silent_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.is_answering:
            self._stop_waiting()
        elif self._waits is None:
            self._waits = self.loop.call_later(_SILENT, self._end)

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    def _end(self) -> None:
        self._waits = None
        if self.can_go:
            self.transport.close()


class EndingServer(uvicorn.Server):
    """A server that calls `before` when it is told to end, and gives an answer to what is not ready by then.

    Args:
        config: uvicorn's, whose `app` is an `Ending`.
        before: does not wait.
    """

    def __init__(self, config: uvicorn.Config, ending: "Ending", before: Callable[[], object]) -> None:
        super().__init__(config)
        self._ending, self._before = ending, before

    async def shutdown(self, sockets: Any = None) -> None:
        """Ends what runs, then waits for the answers."""
        self._ending.has_begun = True
        self._before()
        await super().shutdown(sockets)


class Ending:
    """An application; those of its requests that uvicorn cancels when the server ends get an answer, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self.has_begun = app, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except asyncio.CancelledError:
            if not self.has_begun:
                raise
            if not started:
                await error_response(Busy(_CLOSING, 10))(scope, receive, send)
