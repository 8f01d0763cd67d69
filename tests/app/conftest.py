"""A server without a network: a folder of photos, a small model, and clients of it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from example_models import random_photo
from PIL import Image

ORIGIN = "http://localhost:8765"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two photos, one of them in a sub-folder, and one that cannot be read."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(random_photo(60, 90)).save(folder / "a.png")
    Image.fromarray(random_photo(75, 50, seed=1)).save(folder / "more" / "b.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def service(sam, tmp_path):
    from samjax.app.embeddings import BoundedStore
    from samjax.app.service import Service

    return Service(sam, "small", BoundedStore(tmp_path / "embeddings", sam))


@pytest.fixture
def serving(folder, service, tmp_path) -> Iterator[Callable]:
    """Makes a client of a new server for the folder; its queue and library are attributes."""
    from starlette.testclient import TestClient

    from samjax.app.library import Library
    from samjax.app.queue import DeviceQueue
    from samjax.app.server import build

    with contextlib.ExitStack() as stack:

        def make(source: str | None = str(folder), queue: DeviceQueue | None = None, bounds=None, **options):
            library = Library(source, tmp_path / "out", **(bounds or {}))
            queue = queue or DeviceQueue()
            stack.callback(queue.close)
            app = build(library, service, queue, **options)
            client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=True)
            client.library, client.queue = library, queue
            return client

        yield make


@pytest.fixture
def client(serving):
    return serving()


@pytest.fixture
def photo() -> np.ndarray:
    """The pixels of a.png."""
    return random_photo(60, 90)
