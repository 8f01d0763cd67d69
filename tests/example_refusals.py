"""Reading a checkpoint that is to be refused."""

import time
from pathlib import Path
from typing import Any

import pytest

from samjax import convert
from samjax.checkpoint import CheckpointError


def refusal(path: Path, **options: Any) -> str:
    """Fails to read a file; returns the error's message."""
    with pytest.raises(CheckpointError) as caught:
        convert.read(path, **options)
    return str(caught.value)


def refuse(path: Path, match: str | None = None) -> str:
    """Fails with the one kind of error, within a second of computing; returns its message."""
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match) as caught:
        convert.read(path)
    assert time.process_time() - start < 1.5  # a second, and the runtime checks of the tests
    assert len(str(caught.value)) < 20_000
    return str(caught.value)
