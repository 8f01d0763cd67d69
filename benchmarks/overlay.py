"""Segmenting a large photo: seconds of computing its masks and of writing what `samjax segment` writes.

    python benchmarks/overlay.py [--photo FILE] [--size 6000 4200] [--checkpoint samjax-tiny] [--repeats 3]

The photo is enlarged to `--size` (width, height). "first" includes compiling, or reading compiled programs from the
cache. The processor's seconds, in brackets, count both cores and say more on a machine that is busy otherwise.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samjax import hub
from samjax.segment import Request, segment
from samjax.visualise import Drawing, overlay, overlay_labels
from samjax.writers.answers import write_answer

BUNDLED = Path(__file__).parents[1] / "samjax" / "assets" / "astronaut.jpg"


def timed(name: str, stage: Callable[[], Any], repeats: int) -> Any:
    """Prints the best of some repeats, and returns the last result."""
    best = (float("inf"), float("inf"))
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        result = stage()
        best = min(best, (time.perf_counter() - wall, time.process_time() - processor))
    print(f"{name:<40}{best[0]:>8.2f} s  ({best[1]:.2f} s)", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=BUNDLED)
    parser.add_argument("--size", type=int, nargs=2, default=(6000, 4200), metavar=("W", "H"))
    parser.add_argument("--checkpoint", default=hub.BUNDLED)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    picture = Image.open(arguments.photo).convert("RGB").resize(arguments.size, Image.Resampling.BICUBIC)
    photo, sam = np.asarray(picture), hub.load(arguments.checkpoint)
    x, y = (side * share for side, share in zip(arguments.size, (0.28, 0.31), strict=True))
    request = Request(points=((x, y, 1),), boxes=((0.5 * x, 0.5 * y, 2 * x, 2 * y),))

    def compute() -> Any:
        return segment(sam, photo, sam.encode(photo), request, multimask=False)

    timed("compute, first", compute, 1)
    answer = timed("compute", compute, arguments.repeats)
    drawing = Drawing(answer.masks[0, 0], float(answer.iou[0, 0]), ((x, y),), (1,), request.boxes[0])
    drawn = timed("draw the overlay", lambda: overlay(photo, [drawing]), arguments.repeats)
    timed("save it as PNG as Pillow does", lambda: drawn.save(io.BytesIO(), format="PNG"), 1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        timed("write everything", lambda: write_answer(out, "photo", photo, request, answer, {}), arguments.repeats)
    labels = answer.masks[0, 0].astype(np.int32)
    timed("draw the overlay of label maps", lambda: overlay_labels(photo, labels), arguments.repeats)


if __name__ == "__main__":
    main()
