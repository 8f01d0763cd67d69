"""`samjax app`: a real process, and what it refuses to start with."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from example_app import id_of

TOKEN = "abcdefghijklmnop-123"


@pytest.fixture
def refused(capsys):
    """Runs the command and gives its one line of error."""
    from samjax.cli import command

    def run(*args) -> str:
        assert command.main(["app", *map(str, args)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("samjax: error: ")
        return line

    return run


@pytest.fixture
def no_model(monkeypatch):
    """What is refused is refused before a model is loaded."""
    from samjax import hub

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(hub, "load", load)


@pytest.mark.usefixtures("no_model")
class TestRefusals:
    def test_another_host_without_a_token(self, refused, folder):
        line = refused(folder, "--host", "0.0.0.0")
        assert re.search(r"--host 0\.0\.0\.0 lets in other machines.* --token [\w-]{32}$", line)
        assert not (folder / "samjax-work").exists()

    def test_a_weak_token(self, refused, folder):
        assert "--token is 16 or more" in refused(folder, "--token", "secret")

    def test_a_folder_that_is_missing(self, refused, tmp_path):
        assert "there is no image or folder" in refused(tmp_path / "missing")

    def test_a_source_that_is_missing(self, refused, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        refused(f"labelme={tmp_path / 'missing'}")

    def test_a_port_in_use(self, refused, folder):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            line = refused(folder, "--port", taken.getsockname()[1])
        assert "another program may use the port" in line
        assert not list((folder / "samjax-work").iterdir())  # and the folder is free again

    def test_a_port_that_is_none(self, refused, folder):
        assert "--port is a number from 0 to 65535" in refused(folder, "--port", 70_000)

    def test_an_address_that_is_none(self, refused, folder):
        assert "--host no.such.host.invalid" in refused(folder, "--host", "no.such.host.invalid", "--token", TOKEN)

    def test_a_folder_in_use(self, refused, folder):
        from samjax.lock import working_in

        with working_in(folder / "samjax-work"):
            assert "is in use by process" in refused(folder)

    def test_missing_packages(self, refused, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        assert "pip install 'samjax[app]'" in refused(folder)


@pytest.mark.parametrize(
    ("source", "out"),
    [(None, "samjax-work"), ("labelme=x", "samjax-work"), ("{}", "{}/samjax-work"), ("{}/a.png", "{}/samjax-work")],
)
def test_results_are_kept_in_the_folder_or_beside_the_image(folder, source, out):
    from samjax.app.command import default_out

    assert str(default_out(source and source.format(folder))) == out.format(folder)


class Server:
    """The command in a process of its own."""

    def __init__(self, folder, cache, *args):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "samjax", "app", str(folder), "--port", "0", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SAMJAX_CACHE": str(cache)},
        )
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.address = re.search(r"http://([\w.]+):(\d+)/", line)
        assert self.address, line

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address[1], int(self.address[2]), timeout=60)

    def ask(self, method: str, path: str, **body) -> tuple[int, dict]:
        headers = {"content-type": "application/json"}
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, json.dumps(body) if body else None, headers if body else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())


@pytest.fixture
def server(folder, tmp_path):
    server = Server(folder, tmp_path / "cache")
    yield server
    server.process.kill()
    server.process.communicate()


def test_a_server_answers_gives_up_what_nobody_waits_for_and_ends_when_told(server, folder):
    """One process for all of it: starting one takes seconds."""
    assert server.ask("GET", "/api/session")[1]["model"]["name"] == "samjax-tiny"
    status, answer = server.ask("POST", "/segment/predict", photo=id_of("a.png"), steps=[{"points": [[30, 20, 1]]}])
    assert (status, len(answer["objects"][0]["answers"])) == (200, 3)

    # A search that would take minutes, whose reader goes away.
    connection = server.connection()
    headers = {"content-type": "application/json", "accept": "application/x-ndjson"}
    body = json.dumps({"photo": id_of("a.png"), "config": {"points_per_side": 128, "crop_n_layers": 2}})
    connection.request("POST", "/segment/everything", body, headers)
    response = connection.getresponse()
    assert json.loads(response.readline())["config"]["points_per_side"] == 128
    assert json.loads(response.readline()) == {"progress": 0.0}
    # Others are answered meanwhile.
    start = time.monotonic()
    steps = [{"points": [[10, 20, 1]]}]
    assert server.ask("POST", "/segment/predict", photo=id_of("a.png"), steps=steps)[0] == 200
    assert time.monotonic() - start < 20
    response.close()
    connection.close()
    # A second search, which is not served in pauses, begins: the first one has ended.
    config = {"points_per_side": 1, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    assert server.ask("POST", "/segment/everything", photo=id_of("more/b.png"), config=config)[0] == 200

    # A search that still runs when the server is told to end.
    connection = server.connection()
    connection.request("POST", "/segment/everything", body, {"content-type": "application/json"})
    state = {"state": "absent"}
    while state["state"] not in ("queued", "ready"):  # by which it is known that the search has begun
        state = server.ask("POST", "/segment/embed", photo=id_of("more/b.png"))[1]
    server.process.send_signal(signal.SIGTERM)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (503, {"error": "the server is closing"})
    connection.close()
    _, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert not list((folder / "samjax-work").glob(".running-*"))
