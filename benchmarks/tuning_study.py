"""Ways to tune compared on real data: the bundled model, several ways, few photos to many, three seeds; resumable.

    python benchmarks/tuning_study.py DATA --out runs/study --rates      # first: learning rates, on photos of training
    python benchmarks/tuning_study.py DATA --out runs/study [--only dsb2018/lora]
    python benchmarks/tuning_study.py DATA --out runs/study --table      # the table and the plot of what is there

DATA has dsb2018/ (nuclei) and buildings/ in COCO format, and sa_mini/val and more/val in SA-1B's, on which what the
tuned model has forgotten is measured. Each run is `samjax train few_images` in a process of its own, for as many steps
as five minutes of two idle cores hold (`SECONDS`), so that its result does not depend on what else the machine does.
What is finished is kept in `docs/tuning_study.json` and skipped when the command is given again. All runs together take
about five hours of two idle cores.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

RESULTS = Path(__file__).parents[1] / "docs" / "tuning_study.json"
PLOT = RESULTS.with_suffix(".png")
BUDGET = 300  # seconds of training in each run
BATCH, VIEWS = 4, 8  # of the recipe
# Seconds of a step, and of computing the features of a photo where they are kept: estimates for two idle cores.
SECONDS = {
    "decoder": (0.9, 0.1),
    "lora": (2.0, 0.0),
    "parser": (1.0, 0.1),
    "last_blocks": (1.0, 0.1),
    "full": (2.0, 0.0),
}
# To be chosen from what `--rates` finds; until then those that papers and trials by hand suggest.
RATES = {"decoder": 1e-4, "lora": 1e-3, "parser": 1e-2, "last_blocks": 1e-4, "full": 5e-5}
TRIED = {
    "decoder": (3e-5, 1e-4, 3e-4),
    "lora": (3e-4, 1e-3, 3e-3),
    "parser": (3e-3, 1e-2, 3e-2),
    "last_blocks": (3e-5, 1e-4, 3e-4),
    "full": (1e-5, 5e-5, 1e-4),
}
TRIAL_STEPS, TRIALS_SEED = 60, 100  # the seed is none of the study's
SCORES = ("iou_1", "iou_3", "iou_5", "iou_box")


class Run(NamedTuple):
    """One training run."""

    part: str  # "study", or "rates": held out are other photos of the training data
    data: str
    mode: str
    photos: int | None  # None: all of them
    seed: int
    rate: float

    @property
    def name(self) -> str:
        if self.part == "rates":
            return f"rates/{self.mode}/{self.rate:g}"
        return f"{self.data}/{self.mode}/{self.photos or 'all'}/{self.seed}"


def study() -> Iterator[Run]:
    """All runs, those of one seed before the next, so that an unfinished study has something of everything."""
    for seed, photos, mode in itertools.product(range(3), (10, 50, None), RATES):
        yield Run("study", "dsb2018", mode, photos, seed, RATES[mode])
        if seed == 0 and photos is None and mode in ("decoder", "lora"):
            yield Run("study", "buildings", mode, None, 0, RATES[mode])


def trials() -> Iterator[Run]:
    """One run for each rate that is tried, on 50 photos of nuclei."""
    for mode, rates in TRIED.items():
        yield from (Run("rates", "dsb2018", mode, 50, TRIALS_SEED, rate) for rate in rates)


def steps_in(seconds: float, mode: str, photos: int) -> int:
    """How many steps of a run fit in so many seconds of idle cores."""
    step, encoding = SECONDS[mode]
    until_kept = photos * VIEWS // BATCH  # steps: each meets photos that are new
    steps = seconds / (step + BATCH * encoding)
    if steps > until_kept:
        steps = until_kept + (seconds - until_kept * (step + BATCH * encoding)) / step
    return int(steps)


def subset(annotations: Path, chosen: np.ndarray, target: Path) -> Path:
    """A COCO file with some of the photos, by their numbers."""
    coco = json.loads(annotations.read_text())
    kept = [coco["images"][i] for i in sorted(chosen)]
    ids = {image["id"] for image in kept}
    coco |= {"images": kept, "annotations": [a for a in coco["annotations"] if a["image_id"] in ids]}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(coco))
    return target


def sources(run: Run, data: Path, out: Path) -> tuple[list[str], int]:
    """The options that name a run's photos, drawn by its seed, and how many of them it learns from."""
    folder = data / run.data
    images = {part: folder / "images" / part if run.data == "dsb2018" else folder / part for part in ("train", "val")}
    annotations = folder / "train.json"
    order = np.random.default_rng(run.seed).permutation(len(json.loads(annotations.read_text())["images"]))
    chosen, target = order[: run.photos], out / "subsets" / f"{run.data}_{run.photos}_{run.seed}.json"
    train = annotations if run.photos is None else subset(annotations, chosen, target)
    val = f"{images['val']},{folder / 'val.json'}"
    if run.part == "rates":
        val = f"{images['train']},{subset(annotations, order[-50:], target.with_stem(target.stem + '_held_out'))}"
    return ["--data.train", f"coco={images['train']},{train}", "--data.val", f"coco={val}"], len(chosen)


def train(run: Run, data: Path, out: Path) -> dict[str, Any]:
    """Trains, and returns what is kept of a run."""
    chosen, count = sources(run, data, out)
    steps = TRIAL_STEPS if run.part == "rates" else steps_in(BUDGET, run.mode, count)
    recipe = [
        *("--model.init", "samjax-tiny", "--tune.mode", run.mode, "--run.seed", str(run.seed)),
        *("--optim.learning-rate", f"{run.rate:g}", "--optim.warmup-steps", "10"),
        *(*chosen, "--data.max-bad-share", "1"),
        *("--eval.retain", f"sa1b={data / 'sa_mini' / 'val'}", f"sa1b={data / 'more' / 'val'}"),
        *("--run.steps", str(steps), "--run.validate-every", str(steps), "--run.picture-every", str(steps)),
    ]
    target = out / "runs" / run.name
    shutil.rmtree(target, ignore_errors=True)  # one that was broken off: its memory is measured whole
    with subprocess.Popen(
        [sys.executable, "-m", "samjax", "train", "few_images", *recipe, "--out", str(target)], stdout=sys.stderr
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{run.name} ended with status {process.returncode}")
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    before, after = (
        {name: value for line in lines if line["step"] == step for name, value in line.items()} for step in (0, steps)
    )
    return {
        **run._asdict(),
        "training_photos": count,
        "steps": steps,
        "peak_bytes": usage.ru_maxrss * 1024,
        "trained": trained_parameters(target),
        "before": scores_of(before),
        "after": scores_of(after),
    }


def trained_parameters(run: Path) -> int:
    """How many parameters a run trains."""
    from samjax.train import run_folder
    from samjax.train.trainable import trained_shapes

    shapes = trained_shapes(run_folder.read_config(run)[0], run_folder.network(run))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def machine() -> str:
    """What the runs were made on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}"


def scores_of(line: dict[str, float]) -> dict[str, float]:
    """The scores of a validation, on the new data and on the old."""
    return {name: round(value, 5) for name, value in line.items() if name.startswith(("val/iou", "retain/"))}


def key(result: dict[str, Any]) -> tuple[str, int, int, str]:
    """The order of rows: data, photos, then the ways in their order."""
    return result["data"], result["training_photos"], list(RATES).index(result["mode"]), result["mode"]


def table(results: list[dict[str, Any]]) -> str:
    """A row for each way and number of photos: means over the seeds, and their standard deviation."""
    header = ["photos", "way", "trained", "1 click", "3", "5", "box"]
    header += ["old: 1 click", "old: 5", "old: box", "s/epoch", "GB"]
    lines = []
    results = [result for result in results if result["part"] == "study"]
    for data, of_data in itertools.groupby(sorted(results, key=key), lambda result: result["data"]):
        rows = list(of_data)
        lines += ["", f"{data}:", "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        cells = [["", "before", "", *_cells(rows, "before"), "", ""]]
        for (photos, mode), same in itertools.groupby(rows, lambda row: (row["training_photos"], row["mode"])):
            these = list(same)
            epoch = SECONDS[mode][0] * photos / BATCH
            peak = max(row["peak_bytes"] for row in these) / 1e9
            trained = f"{these[0]['trained']:,}"
            cells.append([str(photos), mode, trained, *_cells(these, "after"), f"{epoch:.0f}", f"{peak:.1f}"])
        lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines)


def _cells(rows: list[dict[str, Any]], when: str) -> list[str]:
    cells = []
    for name in (
        *(f"val/{score}" for score in SCORES),
        *(f"retain/{score}" for score in ("iou_1", "iou_5", "iou_box")),
    ):
        values = [row[when][name] for row in rows]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 and when == "after" else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}")
    return cells


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """New against old: each way's gain on nuclei, and what it lost elsewhere, by number of photos."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
    nuclei = [result for result in results if result["part"] == "study" and result["data"] == "dsb2018"]
    for axis, name, title in zip(axes, ("val/iou", "retain/iou"), ("nuclei", "photos of other kinds"), strict=True):
        for mode in RATES:
            of_mode = sorted((r for r in nuclei if r["mode"] == mode), key=lambda r: r["training_photos"])
            points = [
                (photos, [r["after"][name] - r["before"][name] for r in same])
                for photos, same in itertools.groupby(of_mode, lambda r: r["training_photos"])
            ]
            if points:
                numbers, gains = zip(*points, strict=True)
                means = [statistics.mean(gain) for gain in gains]
                below = [mean - min(gain) for mean, gain in zip(means, gains, strict=True)]
                above = [max(gain) - mean for mean, gain in zip(means, gains, strict=True)]
                axis.errorbar(numbers, means, [below, above], marker="o", capsize=3, label=mode)
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(xscale="log", xlabel="training photos", ylabel="change of mean IoU", title=title)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def rates_table(results: list[dict[str, Any]]) -> str:
    """The trials of rates: mean IoU on photos that were held out, and on the old data."""
    lines = ["| way | rate | steps | new | old |", "|---|---|---|---|---|"]
    for row in (result for result in results if result["part"] == "rates"):
        new, old = (f"{row['before'][name]:.3f} → {row['after'][name]:.3f}" for name in ("val/iou", "retain/iou"))
        lines.append(f"| {row['mode']} | {row['rate']:g} | {row['steps']} | {new} | {old} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("data", type=Path, help="the folder of data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder for the runs")
    parser.add_argument("--rates", action="store_true", help="try learning rates instead")
    parser.add_argument("--only", default="", help="runs whose name DATA/MODE/PHOTOS/SEED begins with this")
    parser.add_argument("--table", action="store_true", help="show what is there and run nothing")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {Run(**{field: result[field] for field in Run._fields}) for result in results}
    for run in trials() if args.rates else study():
        if args.table or run in done or not run.name.startswith(args.only):
            continue
        print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
        results.append(train(run, args.data.resolve(), args.out) | {"machine": machine()})
        temporary = RESULTS.with_suffix(".new")
        temporary.write_text(json.dumps(results, indent=1) + "\n")
        temporary.replace(RESULTS)
    if args.rates:
        print(rates_table(results))
    else:
        print(table(results))
        plot(results, PLOT)


if __name__ == "__main__":
    main()
