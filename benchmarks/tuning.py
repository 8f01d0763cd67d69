"""Ways to tune: seconds of a training step and peak memory, with and without kept features; each in a fresh process.

    python benchmarks/tuning.py --source sa1b=FOLDER [--variant vit_b] [--images 1] [--masks 4] [--steps 3]

Random weights, float32, AdamW, real photos and masks; 11 passes for each mask as in the paper, or one (`--passes 1`).
Features are kept where the way allows it, filled before the clock starts. Peak memory is the process's largest resident
set while steps are timed, weights and libraries included.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from contest import apart
from training import feature_cache, read_batch, write_checkpoint

# Names for the table, with options of `tune`; the first is what the others are compared with.
WAYS: dict[str, dict[str, Any]] = {
    "full": {"mode": "full"},
    "last_blocks": {"mode": "last_blocks"},
    "lora": {"mode": "lora"},
    "lora+decoder": {"mode": "lora+decoder"},
    "lora, the last 4 blocks": {"mode": "lora", "late": 4},
    "parser": {"mode": "parser"},
    "decoder": {"mode": "decoder", "prompt_encoder": True},
}


class Measured(NamedTuple):
    """A way to tune, measured."""

    seconds: float  # of a step, the median, with the look-up of features where they are kept
    lookup: float  # of those
    first: float  # of the first one, which compiles
    peak: int  # bytes


def measure(
    checkpoint: Path, batch: Any, options: dict[str, Any], kept: bool, passes: int, steps: int
) -> Measured | None:
    """Measures one way; None where features are to be kept and cannot be."""
    import samjax
    from samjax.convert import describe
    from samjax.sharding import make_mesh
    from samjax.train.config import CacheConfig, InteractionConfig, OptimConfig, RunConfig, TrainConfig, TuneConfig
    from samjax.train.cores import use_cores
    from samjax.train.optim import make_optimizer
    from samjax.train.state import init_state
    from samjax.train.step import make_step

    later = max(passes - 1, 0)
    config = TrainConfig(
        tune=TuneConfig(**options),
        cache=CacheConfig(features="memory" if kept else "off"),
        interaction=InteractionConfig(corrections=later - later // 5, refinements=later // 5),
        optim=OptimConfig(learning_rate=1e-5, schedule="constant", warmup_steps=0),
        run=RunConfig(batch=len(batch.image), remat=False),
    )
    use_cores(config, lambda: describe(checkpoint).config)
    sam = samjax.load(checkpoint)
    mesh, optimizer = make_mesh(), make_optimizer(config.optim, sam.config, 100)
    state = init_state(config, sam.config, sam.params, optimizer, mesh)
    cache = None
    if kept:
        try:
            cache = feature_cache(config, sam.config, mesh, state, batch)
        except ValueError:
            return None
        cache.attach(batch, keep_images=False)
    step_function = make_step(config, sam.config, optimizer, mesh)
    del sam

    times, lookups = [], []
    for number in range(1 + steps):
        if number == 1:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (proc(5))
        start = time.perf_counter()
        given = batch if cache is None else cache.attach(batch, keep_images=False)
        lookups.append(time.perf_counter() - start)
        state, metrics = step_function(state, given)
        print(f"loss {float(metrics['loss']):.4f}", file=sys.stderr)
        times.append(time.perf_counter() - start)
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return Measured(statistics.median(times[1:]), statistics.median(lookups[1:]), times[0], int(peak) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="as in data.train: FORMAT=PATH")
    parser.add_argument("--variant", default="vit_b")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--masks", type=int, default=4)
    parser.add_argument("--passes", type=int, default=11, help="of each mask")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "random.pth"
        apart(write_checkpoint, arguments.variant, checkpoint)
        batch = apart(read_batch, arguments.variant, arguments.source, arguments.images, arguments.masks, folder)
        masks = int(batch.valid.sum())
        print(f"{arguments.variant}, {arguments.images} photo(s), {masks} masks, {arguments.passes} passes, float32,")
        print(f"median of {arguments.steps}\n")
        print(
            "| way | features | s a step | of which look-up | steps to one of full | peak GB | first step s |\n"
            "|---|---|---|---|---|---|---|"
        )
        full: float | None = None
        for way in arguments.ways:
            for kept in (False, True):
                found = apart(measure, checkpoint, batch, WAYS[way], kept, arguments.passes, arguments.steps)
                if found is None:
                    continue
                full = found.seconds if way == "full" else full
                ratio = "" if full is None else f"{full / found.seconds:.1f}"
                features = "kept" if kept else "computed"
                lookup = f"{found.lookup:.3f}" if kept else ""
                row = way, features, f"{found.seconds:.2f}", lookup, ratio, f"{found.peak / 1e9:.2f}"
                row = *row, f"{found.first:.0f}"
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
