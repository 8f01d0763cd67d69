"""The server of `samjax app` under load: a real process, clients that click, and every answer compared.

    python benchmarks/app.py [--clients 8] [--clicks 200] [--out FILE.json]

Each client is a page of its own with a photo of its own, and clicks again as soon as it has its answer: objects of five
clicks, of which all but the first refine the answer before. Measured are

* decode: `Sam.predict` alone, in this process, before the server starts;
* one client, and all at once: from a click to its outlines, by HTTP; 50th, 95th and 99th percentile;
* lost: answers that are not 200, or whose predicted IoUs are not the library's;
* clicks while everything is searched for in another photo, for another client;
* a photo of 50 megapixels: opening it, tiles of it, the first embedding, clicks.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samjax import Prompts, Sam, assets, hub, read_image

SIZE = 900, 1200  # (height, width) of the photos that are clicked in
LARGE = 6144, 8192  # of the large one
ON_SCREEN = {"format": "polygons", "max_side": 2048}  # what the page asks for


class Server:
    """`samjax app` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "samjax", "app", str(folder), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert self.process.stdout is not None
        found = re.search(r"http://([\w.]+):(\d+)/", self.process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        self.host, self.port = found[1], int(found[2])

    def client(self, name: str) -> "Client":
        """A client with this name."""
        return Client(http.client.HTTPConnection(self.host, self.port, timeout=300), name)


class Client:
    """A connection that stays open, as a browser's does."""

    def __init__(self, connection: http.client.HTTPConnection, name: str) -> None:
        self._connection, self._name = connection, name

    def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        headers = {"x-samjax-client": self._name, "content-type": "application/json"}
        self._connection.request(
            "GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers
        )
        response = self._connection.getresponse()
        return response.status, response.read()

    def predict(self, photo: str, steps: list[dict[str, Any]]) -> tuple[float, int, list[float], dict[str, float]]:
        """Seconds, the status, the predicted IoUs, and the server's own seconds."""
        start = time.perf_counter()
        status, body = self.ask("/segment/predict", {"photo": photo, "steps": steps, **ON_SCREEN})
        seconds = time.perf_counter() - start
        if status != 200:
            return seconds, status, [], {}
        answer = json.loads(body)
        return seconds, status, [one["iou"] for one in answer["objects"][0]["answers"]], answer["seconds"]


def photos(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Parts of the bundled photos, each another one."""
    random = np.random.RandomState(0)
    made = {}
    for number in range(count):
        with Image.open(assets.photo(("astronaut", "cat", "rocket")[number % 3])) as image:
            x, y = random.randint(0, image.width // 3), random.randint(0, image.height // 3)
            part = image.convert("RGB").crop((x, y, x + image.width // 2, y + image.height // 2))
            part.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC).save(folder / f"photo_{number}.png")
        made[f"photo_{number}.png"] = read_image(folder / f"photo_{number}.png")
    return made


def chain(random: np.random.RandomState, clicks: int) -> list[list[dict[str, Any]]]:
    """The steps of each click: objects of five clicks, each of which refines the answer before."""
    asked: list[list[dict[str, Any]]] = []
    steps: list[dict[str, Any]] = []
    for number in range(clicks):
        point = [random.randint(0, SIZE[1]), random.randint(0, SIZE[0]), int(number % 5 == 0 or random.rand() < 0.5)]
        if number % 5 == 0:
            steps = [{"points": [point]}]
        else:
            points = [*steps[-1]["points"], point]
            steps = [*steps, {"points": points, "refine": True, "multimask": False}]
        asked.append(steps)
    return asked


def expected(sam: Sam, photo: np.ndarray, asked: list[list[dict[str, Any]]]) -> list[list[float]]:
    """The predicted IoUs of each click by the library alone."""
    embedding, logits, found = sam.encode(photo), None, []
    for steps in asked:
        step = steps[-1]
        points, labels = [point[:2] for point in step["points"]], [point[2] for point in step["points"]]
        prompts = Prompts.of([points], [labels], None, [logits] if step.get("refine") else None)
        prediction = sam.predict(embedding, prompts, multimask=step.get("multimask", True))
        logits = prediction.logits[0, 0]
        found.append(prediction.iou[0].tolist())
    return found


def decode_seconds(sam: Sam, photo: np.ndarray) -> float:
    """The median of `Sam.predict` for a point."""
    embedding = sam.encode(photo)
    seconds = []
    for number in range(60):
        start = time.perf_counter()
        sam.predict(embedding, Prompts.of([[(number, number)]]))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[10:]))


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)) * 1000
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p99_ms": round(p99, 1)}


def embedded(client: Client, photo: str) -> float:
    """Seconds until a photo is ready."""
    start = time.perf_counter()
    client.ask("/segment/embed", {"photo": photo})
    while json.loads(client.ask(f"/segment/embed/{photo}")[1])["state"] != "ready":
        time.sleep(0.02)
    return time.perf_counter() - start


def load(server: Server, ids: dict[str, str], clicks: dict[str, Any], results: dict[str, Any]) -> None:
    """All clients at once; each one's results by its photo."""

    def run(name: str) -> None:
        client = server.client(name)
        results[name] = [client.predict(ids[name], steps) for steps in clicks[name]]

    threads = [threading.Thread(target=run, args=(name,)) for name in clicks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def during_a_search(server: Server, searched: str, clicked: str) -> dict[str, Any]:
    """Clicks of one client while another waits for everything in a photo."""
    found: dict[str, Any] = {}

    def search() -> None:
        start = time.perf_counter()
        status, body = server.client("search").ask("/segment/everything", {"photo": searched})
        found.update(
            status=status, search_s=round(time.perf_counter() - start, 2), masks=len(json.loads(body)["masks"])
        )

    thread = threading.Thread(target=search)
    thread.start()
    time.sleep(0.3)
    client, seconds = server.client("click"), []
    while thread.is_alive():
        steps = [{"points": [[100 + len(seconds), 300, 1]]}]
        took, status, *_ = client.predict(clicked, steps)
        assert status == 200
        seconds.append(took)
        time.sleep(0.2)
    thread.join()
    return {**found, "clicks": len(seconds), **percentiles(seconds[:-1] or seconds)}


def large_photo(server: Server, folder: Path) -> dict[str, Any]:
    """Seconds of what is done with a photo of 50 megapixels."""
    height, width = LARGE
    with Image.open(assets.photo()) as image:
        image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=92)
    client = server.client("large")
    time.sleep(1.1)  # until files are looked for again
    listed = json.loads(client.ask("/api/photos")[1])["photos"]
    id = next(photo["id"] for photo in listed if photo["name"] == "large.jpg")

    def timed(path: str) -> float:
        start = time.perf_counter()
        status, _ = client.ask(path)
        assert status == 200, path
        return time.perf_counter() - start

    result: dict[str, Any] = {"open_s": timed(f"/api/photos/{id}")}
    result["first_view_s"] = timed(f"/api/photos/{id}/tiles/4/0/0.jpg")
    tiles = [timed(f"/api/photos/{id}/tiles/0/{x}/{y}.jpg") for x in range(4) for y in range(4)]
    result["tile"] = percentiles(tiles)
    result["kept_tile"] = percentiles(
        [timed(f"/api/photos/{id}/tiles/0/{x}/{y}.jpg") for x in range(4) for y in range(4)]
    )
    result["embed_s"] = embedded(client, id)
    clicks = [client.predict(id, [{"points": [[4000 + 10 * number, 3000, 1]]}]) for number in range(20)]
    assert {status for _, status, _, _ in clicks} == {200}
    result["click"] = percentiles([seconds for seconds, *_ in clicks])
    result["peak_memory_mb"] = peak_memory(server.process.pid)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}


def peak_memory(pid: int) -> float | None:
    """Megabytes, where the system tells."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return round(int(found[1]) / 1000) if found else None
    return None


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sam = hub.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = photos(folder, options.clients)
        clicks = {name: chain(np.random.RandomState(seed), options.clicks) for seed, name in enumerate(made)}
        figures: dict[str, Any] = {"decode_alone_ms": round(decode_seconds(sam, made["photo_0.png"]) * 1000, 1)}
        wanted = {name: expected(sam, photo, clicks[name]) for name, photo in made.items()}
        server = Server(folder)
        try:
            client = server.client("photo_0.png")
            ids = {photo["name"]: photo["id"] for photo in json.loads(client.ask("/api/photos")[1])["photos"]}
            figures["embed_s"] = [round(embedded(client, ids[name]), 2) for name in made]
            time.sleep(20)  # programs are compiled in the background
            alone = [client.predict(ids["photo_0.png"], [{"points": [[100 + n, 200, 1]]}]) for n in range(60)][10:]
            figures["one_client"] = percentiles([seconds for seconds, *_ in alone])
            figures["one_client_server_ms"] = {
                part: round(float(np.median([told[part] for *_, told in alone])) * 1000, 1) for part in alone[0][3]
            }
            results: dict[str, Any] = {}
            start = time.perf_counter()
            load(server, ids, clicks, results)
            took = time.perf_counter() - start
            seconds = [one[0] for some in results.values() for one in some]
            lost = sum(
                status != 200 or not np.allclose(ious, known, rtol=0, atol=1e-6)
                for name in made
                for (_, status, ious, _), known in zip(results[name], wanted[name], strict=True)
            )
            count = options.clients * options.clicks
            figures["load"] = {
                "clients": options.clients,
                "clicks": count,
                "lost": lost,
                "per_second": round(count / took, 1),
                **percentiles(seconds),
            }
            figures["during_a_search"] = during_a_search(server, ids["photo_1.png"], ids["photo_0.png"])
            figures["large"] = large_photo(server, folder)
        finally:
            server.process.terminate()
            server.process.wait(60)
    figures["decode_alone_after_ms"] = round(decode_seconds(sam, made["photo_0.png"]) * 1000, 1)
    print(json.dumps(figures, indent=1))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if figures["load"]["lost"]:
        raise SystemExit(f"{figures['load']['lost']} of {figures['load']['clicks']} answers were lost or wrong")


if __name__ == "__main__":
    main()
