"""The page in a browser as a person uses it: a server of its own process, and hands that click at pixels of photos."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
SHIPPED = Path(__file__).parents[1] / "samjax" / "assets"


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class RunningApp:
    """`samjax app` on a folder of photos."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder, self.out, self.options = folder, folder / "samjax-work", options
        self.port = port or free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the process, and waits until it answers."""
        code = "import sys; from samjax.cli.command import main; sys.argv[0] = 'samjax'; sys.exit(main())"
        command = [sys.executable, "-c", code, "app", str(self.folder), "--port", str(self.port), *self.options]
        self.log = self.folder.parent / f"{self.folder.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(self.folder))
        deadline = time.monotonic() + 90
        while True:
            try:
                self.get("/api/session")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-3000:]}") from None
                time.sleep(0.1)

    def kill(self) -> None:
        """Ends the process without a warning, as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ends the process as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def get(self, path: str) -> Any:
        """JSON that the server answers with."""
        with urllib.request.urlopen(self.address + path, timeout=20) as answer:
            return json.load(answer)

    def send(self, method: str, path: str, content: Any) -> Any:
        """JSON that the server answers with to JSON."""
        body = json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def photo(self, name: str) -> str:
        """The id of a photo, which may just have been put into the folder."""
        for _ in range(50):
            for photo in self.get("/api/photos")["photos"]:
                if photo["name"] == name:
                    return photo["id"]
            time.sleep(0.1)
        raise AssertionError(f"{name} is not listed")

    def copy(self, shipped: str, name: str) -> str:
        """The id of a copy of a photo that is shipped, for one test alone."""
        shutil.copy(SHIPPED / shipped, self.folder / name)
        return self.photo(name)

    def classes(self) -> dict[str, str]:
        """The colours of the classes by their names, in order."""
        return {known["name"]: known["colour"] for known in self.get("/api/session")["classes"]}

    def objects(self, photo: str) -> list[dict[str, Any]]:
        """The objects of a photo that are on disk and not deleted."""
        return [found for found in self.get(f"/api/photos/{photo}")["work"]["objects"] if not found["deleted"]]


def _environment(folder: Path) -> dict[str, str]:
    """Embeddings stay with the test; compiled programs are those of all tests."""
    return {**os.environ, "SAMJAX_CACHE": str(folder.parent / "cache"), "JAX_PLATFORMS": "cpu"}


class Driver:
    """A page that shows a photo, and hands that know where its pixels are."""

    def __init__(self, page: Any, app: RunningApp, photo: str) -> None:
        self.page, self.app, self.photo = page, app, photo

    def open(self) -> "Driver":
        """Loads the page anew and waits until the photo is encoded."""
        # The same address with another fragment would not be loaded again.
        self.page.goto("about:blank")
        self.page.goto(f"{self.app.address}/#{self.photo}")
        self.ready()
        return self

    def ready(self) -> None:
        """Waits until the photo is encoded."""
        self.page.locator("#encoding-text", has_text=re.compile("^Ready$")).wait_for(timeout=60_000)

    def evaluate(self, body: str, argument: Any = None) -> Any:
        """Runs JavaScript that may use the page's modules; the page is alone in knowing them."""
        code = (
            "async (given) => { const at = (name) => import(`/page/${name}.js`);"
            " const {app, draft, work} = await at('main'); " + body + " }"
        )
        return self.page.evaluate(code, argument)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where the middle of a pixel of the photo is in the window."""
        code = """const {toScreen} = await at('camera');
            const {left, top} = document.querySelector('#surface').getBoundingClientRect();
            const [x, y] = toScreen(given[0] + 0.5, given[1] + 0.5); return [left + x, top + y]"""
        return tuple(self.evaluate(code, [x, y]))

    def click(self, x: float, y: float, **options: Any) -> None:
        self.page.mouse.click(*self.place(x, y), **options)

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=4)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def settle(self) -> None:
        """Waits until no answer is awaited and everything is drawn."""
        self.evaluate("""const {settled} = await at('draft'); const {drawn} = await at('view');
            for (let before = null; before !== settled(); ) { before = settled(); await before; } await drawn()""")

    def answer(self) -> dict[str, Any] | None:
        """The mask in progress: its score, area, and which of how many; None if there is none."""
        self.settle()
        return self.evaluate("""const {shownAnswer} = await at('draft'); const answer = shownAnswer();
            return answer && {iou: answer.iou, area: answer.area, box: answer.box, of: draft.answers.length,
                chosen: draft.steps.at(-1).chosen, steps: draft.steps}""")

    def paint(self, x: int, y: int) -> list[int]:
        """The colour, with opacity, that is drawn over a pixel of the photo."""
        self.settle()
        return self.evaluate(
            """const {toScreen} = await at('camera'); const [x, y] = toScreen(given[0] + 0.5, given[1] + 0.5);
            const canvas = document.querySelector('#overlay');
            const data = canvas.getContext('2d').getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data;
            return [...data]""",
            [x, y],
        )

    def pixel_of_mask(self) -> list[int]:
        """A pixel of the mask in progress at which there is no mark of a click."""
        self.settle()
        code = """const {shownAnswer} = await at('draft'); const {covers} = await at('masks');
            const marks = draft.steps.at(-1).points ?? []; const [x0, y0, x1, y1] = shownAnswer().box;
            for (let y = Math.ceil(y0); y < y1; y += 3) for (let x = Math.ceil(x0); x < x1; x += 3)
                if (covers(shownAnswer(), [x, y]) && marks.every(([a, b]) => Math.hypot(a - x, b - y) > 20))
                    return [x, y];
            return null"""
        return self.evaluate(code)

    def is_painted(self, x: int, y: int) -> bool:
        return self.paint(x, y)[3] > 40

    def objects(self) -> list[dict[str, Any]]:
        """The objects that the page shows."""
        return self.evaluate("return work.objects.filter((object) => !object.deleted)")

    def eventually(self, value: Callable[[], Any], expected: Any) -> None:
        """Waits until a value is as expected, while the page and its intercepted requests go on."""
        deadline = time.monotonic() + 20
        while (found := value()) != expected and time.monotonic() < deadline:
            self.page.wait_for_timeout(100)
        assert found == expected

    def saved(self, count: int) -> list[dict[str, Any]]:
        """Waits until the photo has so many objects on disk and the page says that all is saved; they are returned."""
        self.eventually(lambda: len(self.app.objects(self.photo)), count)
        self.says_saved()
        return self.app.objects(self.photo)

    def says_saved(self) -> None:
        self.page.locator("#saving", has_text="All saved").wait_for(timeout=20_000)

    def message(self, text: str) -> Any:
        """The message with this text, waited for."""
        found = self.page.locator(".message", has_text=text)
        found.first.wait_for(timeout=20_000)
        return found
