"""What JAX compiles."""

import logging
import re
from collections.abc import Callable

import jax
import pytest


def compiled_programs(run: Callable[[], object]) -> list[str]:
    """Names of the programs that are compiled while `run` runs."""
    messages = []
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "handle", lambda _, record: messages.append(record.getMessage()))
        run()
    matches = (re.search(r"Finished XLA compilation of jit\((\w+)\)", message) for message in messages)
    return [match[1] for match in matches if match]
