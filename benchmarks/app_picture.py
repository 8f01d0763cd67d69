"""The README's picture of the page: bundled photos, objects in classes, and a mask in progress.

    python benchmarks/app_picture.py [--out docs/app.png] [--scheme light]

Needs the tests' packages and Chromium (`make browser`).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
SIZE = {"width": 1240, "height": 740}
COLOURS = 256  # of the PNG

CLASSES = {"person": "#1ec8b7", "clothing": "#4fb8ff", "spacecraft": "#c77dff", "helmet": "#f2c230"}


def steps(box: tuple[int, ...], *points: tuple[int, int, int]) -> list[dict[str, Any]]:
    """A box, and points that refine its mask."""
    first = {"box": box, "multimask": False}
    return [first, {"box": box, "points": points, "refine": True, "multimask": False}]


HEAD = steps((150, 10, 300, 210), (225, 40, 1), (170, 80, 1), (285, 90, 1), (225, 110, 1), (165, 170, 0))
SUIT = steps((20, 215, 375, 512), (90, 330, 1), (300, 400, 1), (240, 180, 0), (335, 470, 0), (30, 250, 0))
SHUTTLE = steps((352, 0, 465, 285), (415, 60, 1), (395, 180, 1), (370, 250, 1), (440, 250, 1), (350, 100, 0))
HELMET = [
    *steps((275, 340, 512, 512), (500, 380, 0), (340, 330, 0)),
    *steps((275, 340, 512, 512), (500, 380, 0), (340, 330, 0), (430, 360, 1), (500, 340, 0))[1:],
]
OBJECTS = {
    "astronaut.jpg": [(HEAD, "person", "Eileen Collins"), (SUIT, "clothing", ""), (SHUTTLE, "spacecraft", "Orbiter"),
                      (HELMET, "helmet", "")],
    "cat.jpg": [(steps((60, 20, 400, 290), (165, 115, 1), (240, 200, 1)), None, "")],
}  # fmt: skip
BADGE = (130, 343), (209, 427)  # corners of a box around the patch on the suit


def fill(app: Any) -> None:
    """Gives the photos their objects, by the routes that the page uses."""
    listed = [{"name": name, "colour": colour} for name, colour in CLASSES.items()]
    app.send("PUT", "/api/classes", {"revision": app.get("/api/session")["classes_revision"], "classes": listed})
    for name, objects in OBJECTS.items():
        photo = app.photo(name)
        sent = [{"steps": chain, "class": class_, "name": title} for chain, class_, title in objects]
        revision = app.get(f"/api/photos/{photo}")["work"]["revision"]
        app.send("POST", f"/api/photos/{photo}/objects", {"revision": revision, "objects": sent})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "app.png")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from example_page import CHROMIUM, SHIPPED, Driver, RunningApp
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        for name in ("astronaut.jpg", "cat.jpg", "rocket.jpg"):
            shutil.copy(SHIPPED / name, folder)
        app = RunningApp(folder)
        try:
            fill(app)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, color_scheme=options.scheme)  # type: ignore
            driver = Driver(page, app, app.photo("astronaut.jpg")).open()
            driver.press("2", "b")
            page.wait_for_timeout(15_000)  # by then what answers need is compiled
            driver.drag(*BADGE)
            driver.answer()
            driver.press("m")
            driver.answer()
            page.mouse.move(0, 0)
            page.screenshot(path=options.out)
            browser.close()
        finally:
            app.stop()
    with Image.open(options.out) as picture:
        small = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=4)
    small.save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
