"""Photos, a stand-in for a model, and work on the photos, for tests of `samjax.app`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samjax.app.steps import BadRequest, Step, steps_to_json
from samjax.app.work import NewObject, WorkFolder
from samjax.ops.rle import RLE, encode_rle
from samjax.pictures import image_hash
from samjax.readers.record import Record
from samjax.workfile import WorkPhoto

SIZE = (40, 60)
MODEL = {"name": "squares", "checksum": "c0ffee", "dtype": "float32", "image_size": [64, 64]}
PHOTO = WorkPhoto("a.png", "0" * 64, *SIZE, "../a.png")


def rgb_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)


def square(x: float, y: float, radius: int = 3) -> RLE:
    mask = np.zeros(SIZE, bool)
    mask[max(int(y) - radius, 0) : int(y) + radius + 1, max(int(x) - radius, 0) : int(x) + radius + 1] = True
    return encode_rle(mask)


def clicked(x: float, y: float, **fields: Any) -> NewObject:
    """An object of one click."""
    steps = steps_to_json([Step(points=((float(x), float(y), 1),))])
    return NewObject(square(x, y), "prompts", steps=tuple(steps), score=0.9, **fields)


@dataclasses.dataclass(frozen=True)
class Photo:
    id: str
    name: str
    path: Path | None
    size: tuple[int, int]
    hash: str
    rgb: np.ndarray


class Library:
    """Photos by their ids, which are their names' first letters; `records` are those that are no files."""

    def __init__(self, folder: Path, names: Sequence[str] = ("a.png", "b.png"), records: Sequence[Record] = ()) -> None:
        self.known: dict[str, Photo] = {}
        self.records = {record.name[0]: record for record in records}
        for seed, name in enumerate(names):
            path, rgb = folder / name, rgb_of(seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb).save(path)
            self.known[name[0]] = Photo(name[0], name, path, SIZE, image_hash(rgb), rgb)
        for id, record in self.records.items():
            size = record.rgb.shape[:2]
            self.known[id] = Photo(id, record.name, None, size, image_hash(record.rgb), record.rgb)

    def photos(self) -> Sequence[Photo]:
        return list(self.known.values())

    def facts(self, id: str) -> Photo:
        return self.known[id]

    def read(self, id: str) -> Photo:
        return self.known[id]

    def record(self, id: str) -> Record | None:
        return self.records.get(id)


class Squares:
    """Stands for the model: a square around each point on the object; bars for everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[Step]]] = []

    async def mask_of(self, photo: Any, steps: Sequence[Step], is_gone: Any) -> tuple[RLE, float]:
        self.asked.append((photo.id, steps))
        mask = np.zeros(SIZE, bool)
        for x, y, label in steps[-1].points:
            if label:
                mask[max(int(y) - 3, 0) : int(y) + 4, max(int(x) - 3, 0) : int(x) + 4] = True
        return encode_rle(mask), 0.9

    async def everything_mask(
        self, photo: Any, config: Mapping[str, Any], index: int, is_gone: Any
    ) -> tuple[RLE, float]:
        if index >= 8:
            raise BadRequest(f"there are 8 masks, and no number {index}")
        mask = np.zeros(SIZE, bool)
        mask[5 * index : 5 * index + 3] = True
        return encode_rle(mask), 0.8


def works_in(folder: Path, **more: Any) -> WorkFolder:
    return WorkFolder(folder, MODEL, **more)
