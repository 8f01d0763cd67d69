"""Jobs for tests of `benchmarks/gpu.py`: they need nothing, and most of them go wrong."""

import os
import signal
import time


def answers(setting):
    yield {"kind": "check", "what": "one", "measured": 1.0, "bar": 1.0, "at_least": True, "passed": True}


def raises(setting):
    raise ValueError("no memory is left")
    yield


def dies(setting):
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def hangs(setting):
    yield from answers(setting)
    print("about to hang", flush=True)
    time.sleep(600)
