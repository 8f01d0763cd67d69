"""Photos a second that the training pipeline makes ready: read, decoded, augmented, masks sampled and packed.

    python benchmarks/data.py --source sa1b=FOLDER [--sizes 256 1024] [--masks 16 64] [--threads 1 2] [--out table.md]

"a core" counts processor seconds of all threads, which other work on the machine disturbs less than the clock; it is
what a machine with more cores multiplies. Jitter is large-scale jitter 0.1 to 2, flips and all colour jitter.
"""

import argparse
import itertools
import math
import tempfile
import time
from pathlib import Path

from contest import machine

from samjax import SamConfig
from samjax.readers.sources import open_sources
from samjax.train.config import DataConfig
from samjax.train.data.pipeline import Pipeline
from samjax.train.data.report import BadRecords

JITTER = {"flip": 0.5, "scale": (0.1, 2.0), "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
BATCH = 16


def measure(pipeline: Pipeline, seconds: float) -> tuple[float, float, float]:
    """Photos a second by the clock and by processor time, and valid masks a photo; the first two batches warm up."""
    with pipeline.batches() as batches:
        for _ in range(2):
            next(batches)
        photos = masks = 0
        clock, busy = time.perf_counter(), time.process_time()
        while time.perf_counter() - clock < seconds:
            batch = next(batches)
            photos += len(batch.record)
            masks += int(batch.valid.sum())
        return photos / (time.perf_counter() - clock), photos / (time.process_time() - busy), masks / photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="as in data.train: FORMAT=PATH")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--masks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()

    rows = [
        "| input | mask slots | jitter | threads | photos/s | photos/s a core | masks a photo |",
        "|---|---|---|---|---|---|---|",
    ]
    source = open_sources((options.source,))
    print(f"{options.source}, {len(source)} records, {options.workers} workers; {machine()}")
    print(*rows, sep="\n", flush=True)
    for size, masks, jitter, threads in itertools.product(options.sizes, options.masks, (False, True), options.threads):
        config = DataConfig(masks_per_image=masks, threads=threads, workers=options.workers, **JITTER if jitter else {})
        with tempfile.TemporaryDirectory() as folder:
            report = BadRecords(Path(folder) / "report.jsonl")
            model = SamConfig().with_image_size(size)
            pipeline = Pipeline(config, source, model, batch=BATCH, seed=0, report=report)
            wall, core, valid = measure(pipeline, options.seconds)
            core = math.nan if options.workers else core  # workers' time is their own
        rows.append(
            f"| {size} | {masks} | {'yes' if jitter else 'no'} | {threads} | {wall:.1f} | {core:.1f} | {valid:.1f} |"
        )
        print(rows[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
