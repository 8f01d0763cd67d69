"""How good a checkpoint is on photos it has not seen, source by source: the tables of the bundled model's card.

    python benchmarks/bundled.py DATA [--model samjax-tiny] [--only pets coco ...] [--photos 20] [--out table.md]

DATA holds the folders of `samjax.train.packing`; photos and masks are the whole ones of val, at their own size. Of each
photo five objects are drawn, always the same; GrabCut's photos are left out. Every object counts the same in a row, and
"all" has every object of the rows above it. "filled" is the IoU of the object with its filled box. The protocols are
those of `samjax evaluate boxes` and `points`.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import samjax
from samjax.evaluation.metrics.object_records import rank_correlation
from samjax.evaluation.protocol import Object, Sample
from samjax.evaluation.protocols.boxes import Boxes
from samjax.evaluation.protocols.points import Points
from samjax.evaluation.segmenters import SamSegmenter
from samjax.readers.sources import open_sources
from samjax.train.packing import GRABCUT, SOURCES, group_of, sound

OBJECTS = 5  # of a photo
COLUMNS = ("filled", "box", "1 point", "best of 3", "3 points", "5 points", "Spearman, box", "Spearman, 1 point")


def samples(data: Path, split: str, only: list[str], photos: int | None) -> Iterator[tuple[str, Sample]]:
    """(source, photo), source by source."""
    for name, spec in SOURCES.items():
        seen: dict[str, int] = {}
        for number, record in enumerate(sound(open_sources([spec.format(data=data, split=split)]))):
            group = group_of(name, record.origin)
            if record.origin in GRABCUT or (only and group not in only) or seen.get(group, 0) == photos:
                continue
            seen[group] = seen.get(group, 0) + 1
            random = np.random.default_rng(number)
            chosen = sorted(random.permutation(len(record.masks))[:OBJECTS].tolist())
            objects = tuple(Object(record.masks[index], index) for index in chosen)
            yield group, Sample(record.name, record.rgb, objects)


def judged(segmenter: SamSegmenter, sample: Sample) -> list[dict[str, float]]:
    """By object: IoUs and predicted IoUs."""
    (boxes,) = Boxes().judge(segmenter, [sample])
    (points,) = Points((1, 3, 5)).judge(segmenter, [sample])
    found = []
    for boxed, pointed in zip(boxes["objects"], points["objects"], strict=True):
        x0, y0, x1, y1 = boxed["box"]
        one, three, five = pointed["answers"]
        found.append(
            {
                "filled": boxed["area"] / ((x1 - x0 + 1) * (y1 - y0 + 1)),
                "box": boxed["iou"],
                "box predicted": boxed["predicted"],
                "1 point": one["iou"],
                "1 point predicted": one["predicted"],
                "best of 3": one["best_iou"],
                "3 points": three["iou"],
                "5 points": five["iou"],
            }
        )
    return found


def row(name: str, photos: int, objects: list[dict[str, float]]) -> str:
    def column(key: str) -> list[float]:
        return [entry[key] for entry in objects]

    cells = [f"{np.mean(column(key)):.3f}" for key in COLUMNS[:6]]
    for prompt in ("box", "1 point"):
        correlation = rank_correlation(column(f"{prompt} predicted"), column(prompt))
        cells.append("" if correlation is None else f"{correlation:.2f}")
    return f"| {name} | {photos} | {len(objects)} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="samjax-tiny", help="a known name or a checkpoint")
    parser.add_argument("--split", default="val", help="train: what a run has held out, with --only")
    parser.add_argument("--only", nargs="*", default=[], help="sources")
    parser.add_argument("--photos", type=int, help="of each source, the first ones")
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()

    segmenter = SamSegmenter(samjax.load(options.model))
    by_source: dict[str, list[list[dict[str, float]]]] = {}
    for group, sample in samples(options.data, options.split, options.only, options.photos):
        by_source.setdefault(group, []).append(judged(segmenter, sample))
    lines = ["| source | photos | objects | " + " | ".join(COLUMNS) + " |", "|---" * (3 + len(COLUMNS)) + "|"]
    for group, photos in by_source.items():
        lines.append(row(group, len(photos), list(itertools.chain(*photos))))
    everything = [photo for photos in by_source.values() for photo in photos]
    lines.append(row("all", len(everything), list(itertools.chain(*everything))))
    print(*lines, sep="\n")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
