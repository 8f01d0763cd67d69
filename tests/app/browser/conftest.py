"""A server on a folder of photos and a browser, shared by the tests of a process; each test has a photo of its own."""

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from example_page import CHROMIUM, Driver, RunningApp

REQUIRED = os.environ.get("SAMJAX_BROWSER") == "required"  # then what is missing fails the tests


def _lacking(reason: str) -> None:
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    if importlib.util.find_spec("playwright") is None:
        _lacking("playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or CHROMIUM
    if not Path(path).exists():
        _lacking(f"there is no {path}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def app(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """`samjax app` with the bundled model on a folder, into which tests put their photos."""
    folder = tmp_path_factory.mktemp("app") / "photos"
    folder.mkdir()
    running = RunningApp(folder)
    yield running
    running.stop()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Driver]]:
    """Opens pages in browsers of their own; options are those of Playwright's contexts.

    At the end no page has had an error in its scripts or under its policy of content, or has asked another machine.
    """
    contexts, faults = [], []

    def open(app: RunningApp, photo: str, *, context: Any = None, load: bool = True, **options: Any) -> Driver:
        if context is None:
            context = chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
            context.set_default_timeout(15_000)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{error}"))
        page.on("console", lambda message: _policy(message.text) and faults.append(message.text))
        page.on("request", lambda request: _abroad(request.url) and faults.append(f"asked {request.url}"))
        driver = Driver(page, app, photo)
        return driver.open() if load else driver

    yield open
    for context in contexts:
        context.close()
    assert not faults


def _policy(text: str) -> bool:
    return "Content Security Policy" in text


def _abroad(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "about:", "blob:", "data:"))


@pytest.fixture
def photo(app: RunningApp, request: pytest.FixtureRequest) -> str:
    """The id of a photo of an astronaut (512 x 512 pixels) that no other test has."""
    return app.copy("astronaut.jpg", re.sub(r"\W+", "-", request.node.name) + ".jpg")


@pytest.fixture
def driver(app: RunningApp, photo: str, opened: Callable[..., Driver]) -> Driver:
    """A page that shows `photo`."""
    return opened(app, photo)


@pytest.fixture
def classes(app: RunningApp) -> list[str]:
    """Two classes, with the keys 1 and 2."""
    names = ["person", "rocket"]
    listed = [{"name": name, "colour": colour} for name, colour in zip(names, ["#1ec8b7", "#ff8a3d"], strict=True)]
    app.send("PUT", "/api/classes", {"revision": app.get("/api/session")["classes_revision"], "classes": listed})
    return names
