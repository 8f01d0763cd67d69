"""A real socket: connections that say nothing, and the end of the server."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from example_app import id_of


class Running:
    """An application at a port of its own, served from another thread."""

    def __init__(self, app, before_end=lambda: None):
        import uvicorn

        from samjax.app import server

        self.listener = server.listening("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        made, started = [], uvicorn.Server.startup

        async def startup(one, sockets=None):
            await started(one, sockets)
            made.append(one)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uvicorn.Server, "startup", startup)
            self.thread = threading.Thread(target=server.serve, args=(app, self.listener, before_end))
            self.thread.start()
            while not made:
                time.sleep(0.01)
        (self.server,) = made

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(self, method: str, path: str, body=None) -> tuple[int, dict]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body and json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def end(self) -> None:
        self.server.should_exit = True

    def stop(self) -> None:
        self.end()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def running(client):
    running = Running(client.app, client.queue.stop)
    yield running
    running.stop()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("said", [b"", b"GET /api/session HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_connection_without_a_request_is_closed(running, monkeypatch, said):
    from samjax.app import connections

    monkeypatch.setattr(connections, "_SILENT", 0.3)
    with running.connect() as silent:
        silent.sendall(said)
        start = time.monotonic()
        assert is_closed(silent)
        assert time.monotonic() - start < 5
    assert running.ask("GET", "/api/session")[0] == 200


def test_also_one_that_says_nothing_after_its_first_request(running, monkeypatch):
    from samjax.app import connections

    monkeypatch.setattr(connections, "_SILENT", 0.3)
    with running.connect() as slow:
        slow.sendall(f"HEAD /api/session HTTP/1.1\r\nHost: localhost:{running.port}\r\n\r\n".encode())
        assert slow.recv(10_000).startswith(b"HTTP/1.1 200")
        slow.sendall(b"G")
        assert is_closed(slow)


def test_silent_connections_keep_nobody_out(running, monkeypatch):
    from samjax.app import connections

    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(running.connect()) for _ in range(20)]
        for _ in range(3):
            assert running.ask("GET", "/api/session")[0] == 200
        assert is_closed(silent[0])
        assert len(running.server.server_state.connections) <= 8


def test_a_request_that_takes_long_is_not_cut_off(running, client, monkeypatch):
    from samjax.app import connections

    monkeypatch.setattr(connections, "_SILENT", 0.2)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 1)
    entered, leave = threading.Event(), threading.Event()
    client.queue.submit("gate", lambda _: (entered.set(), leave.wait(20)))
    assert entered.wait(5)
    answers = []
    body = {"photo": id_of("a.png"), "steps": [{"points": [[30, 20, 1]]}]}
    thread = threading.Thread(target=lambda: answers.append(running.ask("POST", "/segment/predict", body)))
    thread.start()
    while not client.queue._waiting:
        time.sleep(0.01)
    try:
        assert running.ask("GET", "/api/session")[0] == 200
        time.sleep(0.5)
    finally:
        leave.set()
    thread.join(20)
    assert [status for status, _ in answers] == [200]


def search(client, running, monkeypatch, pause: bool) -> list:
    """A search that does not end by itself, asked for and begun."""
    begun = threading.Event()

    def endless(photo, read, config, progress):
        begun.set()
        for number in range(150):
            time.sleep(0.02)
            if pause:
                progress(number / 150)
        return []

    monkeypatch.setattr(client.service, "everything", endless)
    answers = []
    body = {"photo": id_of("a.png")}
    thread = threading.Thread(target=lambda: answers.append(running.ask("POST", "/segment/everything", body)))
    thread.start()
    assert begun.wait(10)
    answers.append(thread)
    return answers


@pytest.mark.parametrize("pauses", [True, False])
def test_a_search_that_runs_when_the_server_ends_is_told_so(client, service, monkeypatch, caplog, pauses):
    """At its next pause, or when the time that requests have is over."""
    monkeypatch.setattr("samjax.app.server._CLOSING", 1)
    client.service = service
    running = Running(client.app, client.queue.stop)
    answers = search(client, running, monkeypatch, pauses)
    thread = answers.pop()
    running.stop()
    thread.join(20)
    assert answers == [(503, {"error": "the server is closing"})]
    assert "Traceback" not in caplog.text
    assert "Exception in ASGI" not in caplog.text


def test_what_is_cancelled_while_the_server_runs_stays_cancelled():
    from samjax.app.connections import Ending

    async def waits(scope, receive, send):
        await asyncio.sleep(60)

    async def run():
        task = asyncio.ensure_future(Ending(waits)({"type": "http"}, None, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
