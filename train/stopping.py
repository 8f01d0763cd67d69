"""Requests to end a run: Ctrl-C, and SIGTERM, which clusters send before they take machines back."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopRequests:
    """Requests to end the run."""

    def __init__(self) -> None:
        self.asked = False

    def reached(self, step: int) -> bool:
        """True if the run is to end after this step, in all processes alike; to be asked after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Listens for signals; the second Ctrl-C interrupts at once."""
    requests = StopRequests()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield requests  # JAX's coordinator listens for SIGTERM
        return

    def ask(number: int, frame: Any) -> None:
        if requests.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
