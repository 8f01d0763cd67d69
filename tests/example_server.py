"""An HTTP server on this machine that has one file, and whatever goes wrong between a server and a download."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator

from samjax.download import RemoteFile

NAME = "sam_small.pth"


class Server(http.server.ThreadingHTTPServer):
    """Serves one file and remembers what each request asks for; can drop connections and ignore ranges."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.drop_after: list[int] = []  # bytes to send before hanging up, one entry per request
        self.ranges: list[str | None] = []
        self.encodings: list[str | None] = []
        self.knows_ranges = True

    @property
    def file(self) -> RemoteFile:
        """The file with its checksum."""
        return RemoteFile(f"http://127.0.0.1:{self.server_port}/{NAME}", hashlib.sha256(self.content).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        server.encodings.append(self.headers.get("Accept-Encoding"))
        if self.path != f"/{NAME}":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.knows_ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.drop_after.pop(0)] if server.drop_after else body)

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server that answers while the block runs."""
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
