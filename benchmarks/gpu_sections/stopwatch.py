"""Seconds of warm repeats, and the records that are made of them."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

MOST, LEAST, LONG_ENOUGH = 30, 3, 2.0  # repeats, and seconds of them that suffice


class Warm(NamedTuple):
    seconds: float  # median
    repeats: int


def warm(call: Callable[[], Any], finish: Callable[[Any], None], *, warmups: int = 2) -> Warm:
    """How long a call takes until its result is there; `finish` waits for it."""
    for _ in range(warmups):
        finish(call())
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) < LONG_ENOUGH):
        start = time.perf_counter()
        finish(call())
        seconds.append(time.perf_counter() - start)
    return Warm(statistics.median(seconds), len(seconds))


def in_a_row(call: Callable[[], Any], finish: Callable[[Any], None], *, calls: int = 20) -> Warm:
    """Seconds a call of short ones that are queued without waiting between them; the best of three rows."""
    finish(call())
    rows = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(calls):
            result = call()
        finish(result)
        rows.append((time.perf_counter() - start) / calls)
    return Warm(min(rows), calls)


def speed(what: str, dtype: str, timing: Warm, *, count: int, unit: str = "images", **more: Any) -> dict[str, Any]:
    """A record of `count` units that took `timing`; `more` are its other fields, as `flops` of all of them."""
    return {
        "kind": "speed",
        "what": what,
        "dtype": dtype,
        "seconds": timing.seconds,
        "repeats": timing.repeats,
        f"{unit}_per_second": count / timing.seconds,
        **more,
    }


def check(what: str, measured: float, bar: float, *, at_least: bool = False, **more: Any) -> dict[str, Any]:
    """A record of something that must be at most (or `at_least`) `bar`. NaN never passes."""
    passed = measured >= bar if at_least else measured <= bar
    return {
        "kind": "check",
        "what": what,
        "measured": float(measured),
        "bar": bar,
        "at_least": at_least,
        "passed": bool(passed),
        **more,
    }


def cpu_name() -> str:
    return f"CPU, {os.cpu_count()} cores, {platform.machine()}"
