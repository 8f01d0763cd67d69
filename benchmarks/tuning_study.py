"""Ways to tune compared on real data: the bundled model, several ways, few photos to many, three seeds; resumable.

    python benchmarks/tuning_study.py DATA --out runs/study [--minutes 5] [--only dsb2018/lora]
    python benchmarks/tuning_study.py DATA --out runs/study --table      # the table and the plot of what is there

DATA has dsb2018/ (nuclei) and buildings/ in COCO format, and sa_mini/val and more/val in SA-1B's, on which what the
tuned model has forgotten is measured. Each run is `samjax train few_images` in a process of its own, for so many
minutes of the clock: leave the machine to it. What is finished is kept in `docs/tuning_study.json` and skipped when the
command is given again. All runs together take about five hours on two cores.
"""

import argparse
import itertools
import json
import os
import platform
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
MODES: dict[str, list[str]] = {
    "decoder": ["--tune.mode", "decoder"],
    "lora": ["--tune.mode", "lora"],
    "parser": ["--tune.mode", "parser"],
    "last_blocks": ["--tune.mode", "last_blocks"],
    "full": ["--tune.mode", "full"],
}
SCORES = ("iou_1", "iou_3", "iou_5", "iou_box")


class Run(NamedTuple):
    """One training run of the study."""

    data: str
    mode: str
    photos: int | None  # None: all of them
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}/{self.mode}/{self.photos or 'all'}/{self.seed}"


def runs() -> Iterator[Run]:
    """All runs, those of one seed before the next, so that an unfinished study has something of everything."""
    for seed, photos, mode in itertools.product(range(3), (10, 50, None), MODES):
        yield Run("dsb2018", mode, photos, seed)
        if seed == 0 and photos is None and mode in ("decoder", "lora"):
            yield Run("buildings", mode, None, 0)


def subset(annotations: Path, photos: int | None, seed: int, target: Path) -> tuple[Path, int]:
    """A COCO file with so many of the photos, drawn by the seed, and their number."""
    coco = json.loads(annotations.read_text())
    images = coco["images"]
    if photos is None:
        return annotations, len(images)
    chosen = np.random.default_rng(seed).permutation(len(images))[:photos]
    kept = [images[i] for i in sorted(chosen)]
    ids = {image["id"] for image in kept}
    coco |= {"images": kept, "annotations": [a for a in coco["annotations"] if a["image_id"] in ids]}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(coco))
    return target, len(kept)


def train(run: Run, data: Path, out: Path, minutes: float) -> dict[str, Any]:
    """Trains, and returns what is kept of a run."""
    folder = data / run.data
    photos = {part: folder / "images" / part if run.data == "dsb2018" else folder / part for part in ("train", "val")}
    chosen, count = subset(
        folder / "train.json", run.photos, run.seed, out / "subsets" / f"{run.photos}_{run.seed}.json"
    )
    recipe = [
        *("--model.init", "samjax-tiny", *MODES[run.mode], "--run.seed", str(run.seed)),
        *(
            "--data.train",
            f"coco={photos['train']},{chosen}",
            "--data.val",
            f"coco={photos['val']},{folder / 'val.json'}",
        ),
        *(
            "--data.max-bad-share",
            "1",
            "--eval.retain",
            f"sa1b={data / 'sa_mini' / 'val'}",
            f"sa1b={data / 'more' / 'val'}",
        ),
        *("--run.minutes", f"{minutes:g}", "--run.validate-minutes", "1e6"),
    ]
    target = out / "runs" / run.name
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "samjax", "train", "few_images", *recipe, "--out", str(target)], stdout=sys.stderr
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{run.name} ended with status {process.returncode}")
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if "val/iou" in line]
    steps = [line for line in lines if "step_seconds" in line]
    seconds = statistics.median(line["step_seconds"] for line in steps[1:] or steps)
    batch = json.loads((target / "config.json").read_text())["config"]["run"]["batch"]
    return {
        **run._asdict(),
        "training_photos": count,
        "steps": lines[-1]["step"],
        "seconds": round(time.perf_counter() - start, 1),
        "seconds_per_step": round(seconds, 3),
        "seconds_per_epoch": round(seconds * count / batch, 2),
        "peak_bytes": usage.ru_maxrss * 1024,
        "trained": trained_numbers(target),
        "before": scores_of(validations[0]),
        "after": scores_of(validations[-1]),
    }


def trained_numbers(run: Path) -> int:
    """How many numbers a run trains."""
    from samjax.train import run_folder
    from samjax.train.trainable import abstract_network, make_trainable

    config, sam = run_folder.read_config(run)[0], run_folder.network(run)
    trained, _ = jax.eval_shape(make_trainable(config, sam).split, abstract_network(config, sam))
    return sum(leaf.size for leaf in jax.tree.leaves(trained))


def machine() -> str:
    """What the runs were made on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}"


def scores_of(line: dict[str, float]) -> dict[str, float]:
    """The scores of a validation, on the new data and on the old."""
    return {name: round(value, 5) for name, value in line.items() if name.startswith(("val/iou", "retain/"))}


def key(result: dict[str, Any]) -> tuple[str, int, int, str]:
    """The order of rows: data, photos, then the ways in their order."""
    return result["data"], result["training_photos"], list(MODES).index(result["mode"]), result["mode"]


def table(results: list[dict[str, Any]]) -> str:
    """A row for each way and number of photos: means over the seeds, and their standard deviation."""
    header = ["photos", "way", "trained", "1 click", "3", "5", "box"]
    header += ["old: 1 click", "old: 5", "old: box", "s/epoch", "GB"]
    lines = []
    for data, of_data in itertools.groupby(sorted(results, key=key), lambda result: result["data"]):
        rows = list(of_data)
        lines += ["", f"{data}:", "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        cells = [["", "before", "", *_cells(rows, "before"), "", ""]]
        for (photos, mode), same in itertools.groupby(rows, lambda row: (row["training_photos"], row["mode"])):
            these = list(same)
            epoch = statistics.mean(row["seconds_per_epoch"] for row in these)
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
    nuclei = [result for result in results if result["data"] == "dsb2018"]
    for axis, name, title in zip(axes, ("val/iou", "retain/iou"), ("nuclei", "photos of other kinds"), strict=True):
        for mode in MODES:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("data", type=Path, help="the folder of data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder for the runs")
    parser.add_argument("--minutes", type=float, default=5, help="of training in each run")
    parser.add_argument("--only", default="", help="runs whose name DATA/MODE/PHOTOS/SEED begins with this")
    parser.add_argument("--table", action="store_true", help="show what is there and run nothing")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {Run(**{field: result[field] for field in Run._fields}) for result in results}
    for run in runs():
        if args.table or run in done or not run.name.startswith(args.only):
            continue
        print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
        results.append(train(run, args.data.resolve(), args.out, args.minutes) | {"machine": machine()})
        temporary = RESULTS.with_suffix(".new")
        temporary.write_text(json.dumps(results, indent=1) + "\n")
        temporary.replace(RESULTS)
    print(table(results))
    plot(results, PLOT)


if __name__ == "__main__":
    main()
