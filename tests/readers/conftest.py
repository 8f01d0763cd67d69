"""Photos and masks to write in the formats of others, and a server to read them from."""

import contextlib
import functools
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from example_annotations import jpeg, sa1b_json


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """Indices of tars go to a folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SAMJAX_CACHE", str(folder))
    return folder


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files with byte ranges, and remembers what it was asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(self.server.status)
            return
        if not asked or not path.is_file() or not self.server.ranges:
            with contextlib.suppress(ConnectionError):  # who wanted a part hangs up
                super().do_GET()
            return
        first, last = asked.removeprefix("bytes=").split("-")
        data = path.read_bytes()
        piece = data[int(first) : int(last) + 1]
        self.send_response(206 if piece else 416)
        self.send_header("Content-Length", str(len(piece)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(piece)
        self.server.sent += len(piece)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that hangs up is nothing to report."""


@pytest.fixture
def serve():
    """Serves a folder; gives the server, with `url`, `requests`, bytes `sent` in ranges, and what a test may set:
    `ranges`, whether parts are sent, `failures` to come and their `status`."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, *, ranges: bool = True):
            handler = functools.partial(Ranges, directory=str(folder))
            server = stack.enter_context(Server(("127.0.0.1", 0), handler))
            server.requests, server.sent, server.ranges, server.failures, server.status = [], 0, ranges, 0, 503
            server.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """40 x 60 pixels, no two alike in a row."""
    y, x = np.mgrid[:40, :60]
    return np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def masks() -> list[np.ndarray]:
    """A disc, a bar, a pixel in the last corner and two parts, of the photo's size."""
    y, x = np.mgrid[:40, :60]
    return [
        (x - 20) ** 2 + (y - 15) ** 2 < 100,
        (y > 30) & (x > 5),
        (x == 59) & (y == 39),
        ((x < 4) & (y < 4)) | ((x > 50) & (y < 9)),
    ]


@pytest.fixture
def sa1b_files(photo, masks):
    """Names and contents of the files of SA-1B photos with these numbers."""

    def files(numbers, prefix: str = "") -> dict[str, bytes]:
        members = {}
        for number in numbers:
            members[f"{prefix}sa_{number}.jpg"] = jpeg(np.roll(photo, number, 1))
            members[f"{prefix}sa_{number}.json"] = json.dumps(sa1b_json(number, masks)).encode()
        return members

    return files


@pytest.fixture
def write():
    """Writes files below a folder."""

    def write(folder: Path, members: dict[str, bytes]) -> Path:
        for name, data in members.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    return write
