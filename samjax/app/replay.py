"""Work computed again: the masks of all steps and searches, compared with those that are kept."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from samjax import pictures
from samjax.app.embeddings import BoundedStore
from samjax.app.library import OpenPhoto, photo_id
from samjax.app.searching import generation_config
from samjax.app.service import Service
from samjax.app.steps import steps_from_json
from samjax.embeddings import model_hash
from samjax.names import printable
from samjax.ops.rle import RLE, coco_masks, rle_area, rle_iou
from samjax.sam import Sam
from samjax.types import Embedding
from samjax.workfile import SNAPSHOT, WorkObject, WorkState, find_work, read_work


class Difference(NamedTuple):
    """An object whose mask came out differently."""

    id: str
    iou: float  # of the kept and the new mask
    pixels: int  # that differ


@dataclasses.dataclass(frozen=True)
class Replayed:
    """The outcome of one work file."""

    path: Path
    same: int  # objects with the very mask that is kept
    differences: tuple[Difference, ...]
    imported: int  # objects that no model made
    others: int  # objects that another model made

    def __str__(self) -> str:
        count = self.same + len(self.differences)
        text = f"{self.path}: {self.same} of {count} masks the same"
        text += f", {self.imported} imported" if self.imported else ""
        text += f", {self.others} of another model left out" if self.others else ""
        details = (f"\n  {id}: IoU {iou:.4f}, {pixels:,} pixels differ" for id, iou, pixels in self.differences)
        return printable(text) + "".join(details)


class FreshEmbeddings(BoundedStore):
    """Keeps nothing on disk, so that embeddings come from the photo."""

    def __init__(self, sam: Sam) -> None:
        self.model_hash = model_hash(sam)

    def has(self, hash: str) -> bool:
        return False

    def get(self, hash: str) -> Embedding | None:
        return None

    def put(self, hash: str, embedding: Embedding) -> None:
        return None


def work_files(paths: Iterable[Path]) -> list[Path]:
    """The work files that files and folders stand for. Raises ValueError if there are none."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inner = find_work(path)
            if not inner:
                raise ValueError(f"there is no work file in {path}: they are called NAME{SNAPSHOT}")
            found.update(dict.fromkeys(inner))
        elif path.is_file() and path.name.endswith(SNAPSHOT):
            found[path] = None
        else:
            raise ValueError(f"{path} is no work file, which are called NAME{SNAPSHOT}, and no folder of some")
    if not found:
        raise ValueError("no work file was given")
    return list(found)


def made_by(paths: Sequence[Path]) -> dict[str, dict]:
    """The models that made masks of these files: what is known of each, by its checksum. Raises BadWorkFile."""
    known: dict[str, dict] = {}
    used = set()
    for path in paths:
        state = read_work(path).state
        known.update((model["checksum"], dict(model)) for model in state.models)
        used.update(kept.model for kept in state.objects if kept.model and kept.source != "import")
    return {checksum: known.get(checksum, {"checksum": checksum}) for checksum in sorted(used)}


def replay(path: Path, service: Service) -> Replayed:
    """Computes all masks of a work file again that the service's model made, also those of deleted objects.

    Raises ValueError if the photo is missing or has changed, or if masks were made and none by this model.
    """
    state = read_work(path).state
    made = [kept for kept in state.objects if kept.source != "import"]
    mine = [kept for kept in made if kept.model == service.model.checksum]
    if made and not mine:
        raise ValueError(_other_model(path, state, made[0], service))
    differences = []
    if mine:
        photo = _photo(path, state)
        for kept in mine:
            if difference := _compared(kept, _again(kept, photo, service)):
                differences.append(difference)
    same = len(mine) - len(differences)
    return Replayed(path, same, tuple(differences), len(state.objects) - len(made), len(made) - len(mine))


def _again(kept: WorkObject, photo: OpenPhoto, service: Service) -> RLE | None:
    def read() -> OpenPhoto:
        return photo

    if kept.everything is None:
        steps = steps_from_json(list(kept.steps))
        (mask,) = service.masks(photo.size, service.answer(photo, read, steps), only=[steps[-1].chosen])
        return mask.rle
    found = service.everything(photo, read, generation_config(kept.everything["config"]), _unheard)
    index = kept.everything["index"]
    return found[index]["segmentation"] if index < len(found) else None


def _unheard(share: float) -> None:
    """The progress of a search, which nobody asks for."""


def _compared(kept: WorkObject, again: RLE | None) -> Difference | None:
    if again is None:
        return Difference(kept.id, 0.0, rle_area(kept.rle))
    common = rle_area(coco_masks().merge([kept.rle, again], intersect=True))
    pixels = rle_area(kept.rle) + rle_area(again) - 2 * common
    return Difference(kept.id, float(rle_iou([kept.rle], [again])[0, 0]), pixels) if pixels else None


def _photo(path: Path, state: WorkState) -> OpenPhoto:
    if state.photo.path is None:
        raise ValueError(f"{printable(path)} names no file of its photo {state.photo.name}")
    file = path.parent / state.photo.path
    if not file.exists():
        raise ValueError(f"{printable(path)}: its photo {printable(file)} is missing: bring it back to replay the work")
    rgb = pictures.read_image(file)
    hash = pictures.image_hash(rgb)
    if hash != state.photo.sha256:
        raise ValueError(
            f"{printable(path)}: its photo {printable(file)} has changed, its pixels are others than those worked on: "
            "bring the photo back to replay the work"
        )
    return OpenPhoto(photo_id(state.photo.name), state.photo.name, file, rgb.shape[:2], hash, rgb)


def _other_model(path: Path, state: WorkState, kept: WorkObject, service: Service) -> str:
    known = next((model for model in state.models if model["checksum"] == kept.model), {})
    named = f"{known.get('name', 'a model')} in {known.get('dtype', 'an unknown dtype')} (checksum {kept.model:.12})"
    mine = f"{service.model.name} in {service.model.dtype} (checksum {service.model.checksum:.12})"
    return (
        f"the masks of {printable(path)} were made by {named}, and this is {mine}: give that model by --checkpoint, "
        "--tuned, --dtype and --image-size"
    )


def run(
    works: Sequence[Path],
    load: Callable[[str | None, str | None, tuple[int, int] | None], tuple[Sam, str]],
    say: Callable[[str], None] = print,
) -> int:
    """The command: a line per file; 1 if any mask differs. Raises ValueError for what cannot be replayed, when the
    other files are done.

    `load` makes a model and its name of the name, dtype and image size in the work files, None where it is unknown.
    """
    paths = work_files(works)
    models = made_by(paths)
    only = next(iter(models.values())) if len(models) == 1 else {}
    size = only.get("image_size")
    sam, name = load(only.get("name"), only.get("dtype"), None if size is None else (size[0], size[1]))
    service = Service(sam, name, FreshEmbeddings(sam))
    failures, differ = [], False
    for path in paths:
        try:
            outcome = replay(path, service)
        except (ValueError, OSError) as error:
            failures.append(str(error))
            continue
        say(str(outcome))
        differ |= bool(outcome.differences)
    if failures:
        raise ValueError(
            failures[0] if len(failures) == 1 else "\n  ".join(["some work cannot be replayed:", *failures])
        )
    return int(differ)
