"""Waiting for the device without holding a thread."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from samjax.app.queue import GivenUp, Job

_LOOK = 0.25  # seconds after which it is seen that a client has gone

IsGone = Callable[[], Awaitable[bool]]  # true if nobody waits for the answer any more


async def result_of(job: Job, is_gone: IsGone) -> Any:
    """A job's result; the job is given up when the client has gone or the request is cancelled. Raises GivenUp."""
    waiting = asyncio.wrap_future(job.future)
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_LOOK)
            if done:
                return waiting.result()
            if await is_gone():
                raise GivenUp("the request was given up")
    finally:
        waiting.cancel()
        job.cancel()
