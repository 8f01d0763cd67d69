"""The command `samjax everything`."""

import collections
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, Suppress, UseAppendAction, arg

from samjax.amg.config import GenerationConfig
from samjax.assets import BUNDLED
from samjax.atomic import check_writable
from samjax.cli.options import Checkpoint, Dtype, ImageSize, TunedFile
from samjax.names import printable

DEFAULTS = GenerationConfig()
# The rows of `samjax.writers.FORMATS`, without loading it; overlays have an option of their own.
FormatName = Literal["coco", "rle", "png", "labelmap", "yolo", "labelme", "geojson"]
_SIMILAR = 512  # pixels that the sides of photos are rounded up to, to explain them together
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str) -> int:
    """2000000000, 2GB (10^9) or 1.5GiB (2^30) as a number of bytes. Raises ValueError for other texts."""
    number = text.rstrip("bBiIkKmMgG ")
    try:
        size = float(number) * _UNITS[text[len(number) :].strip().upper()]
        if not 1 <= size < 2**63:
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(
            f"a memory budget is a number of bytes, or one with KB, MB, GB, MiB, GiB; got {text!r}"
        ) from None
    return int(size)


@dataclasses.dataclass(frozen=True)
class GenerationOptions(GenerationConfig):
    """Settings of finding and filtering masks."""

    points_per_side: Annotated[int, arg(help="Points along each side of the photo.")] = 32
    points_per_batch: Annotated[int, arg(help="Points decoded together: memory, not results.")] = (
        DEFAULTS.points_per_batch
    )
    pred_iou_thresh: Annotated[
        float | None,
        arg(help="Drop masks with no higher predicted IoU; by default the model's own, Meta's 0.88."),
    ] = None
    stability_score_thresh: Annotated[
        float | None, arg(help="Drop masks that are less stable; by default the model's own, Meta's 0.95.")
    ] = None
    stability_score_offset: Annotated[
        float | None,
        arg(help="Shift of the threshold in the stability score; by default the model's own, Meta's 1."),
    ] = None
    box_nms_thresh: Annotated[float, arg(help="IoU above which masks of a crop are duplicates.")] = (
        DEFAULTS.box_nms_thresh
    )
    crop_n_layers: Annotated[int, arg(help="Layers of crops; layer i has 4^i.")] = DEFAULTS.crop_n_layers
    crop_nms_thresh: Annotated[float, arg(help="IoU above which masks of different crops are duplicates.")] = (
        DEFAULTS.crop_nms_thresh
    )
    crop_overlap_ratio: Annotated[float, arg(help="Overlap of crops, share of the shorter side.")] = (
        DEFAULTS.crop_overlap_ratio
    )
    crop_n_points_downscale_factor: Annotated[int, arg(help="Fewer points per side by layer.")] = (
        DEFAULTS.crop_n_points_downscale_factor
    )
    min_mask_region_area: Annotated[int, arg(help="Remove smaller holes and islands, pixels.")] = (
        DEFAULTS.min_mask_region_area
    )
    point_grids: Suppress[None] = None
    memory_budget: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]  (a text, which `checked` reads)
        str | None, arg(metavar="BYTES", help="Choose --points-per-batch to fit, e.g. 2GB; see --explain.")
    ] = None
    nms: Annotated[Literal["box", "mask"], arg(help="Duplicates by boxes, or by masks and nesting.")] = "box"
    containment_thresh: Annotated[float, arg(help="With --nms mask: share inside another mask; 1 is off.")] = (
        DEFAULTS.containment_thresh
    )
    tile: Annotated[int | None, arg(metavar="PX", help="Cut large photos into tiles of this side.")] = None
    overlap: Annotated[int | None, arg(metavar="PX", help="Overlap of tiles; a quarter by default.")] = None

    def __post_init__(self) -> None:
        """Checks nothing: tyro would dress the error up."""

    def checked(self) -> GenerationConfig:
        """The settings; raises ValueError if they make no sense."""
        budget = None if self.memory_budget is None else parse_bytes(self.memory_budget)
        return GenerationConfig(**{**dataclasses.asdict(self), "memory_budget": budget})


def everything(
    images: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="IMAGE|FOLDER...", help="Photos, and folders searched for photos.")
    ],
    out: Annotated[Path, arg(metavar="DIR", help="Folder for the results; photos that are done there are skipped.")],
    checkpoint: Checkpoint = BUNDLED,
    tuned: TunedFile = None,
    format: Annotated[
        UseAppendAction[tuple[FormatName, ...]],
        arg(help="What to write beside an overlay picture, coco by default. Repeatable."),
    ] = (),
    convert_to_rle: Annotated[bool, arg(help="The same as --format rle.")] = False,
    polygons: Annotated[bool, arg(help="COCO with polygons instead of run-length encoding.")] = False,
    polygon_tolerance: Annotated[
        float, arg(metavar="PX", help="How far a simplified polygon may leave the mask's outline, pixels.")
    ] = 0.5,
    labelmap_suffix: Annotated[
        Literal["png", "tiff"], arg(help="Label maps have 16 bits; TIFF has 32 where 16 are too few.")
    ] = "png",
    crs: Annotated[
        str | None,
        arg(metavar="EPSG:N", help="GeoJSON: coordinate system of photos that do not name theirs (world files)."),
    ] = None,
    overlay: Annotated[bool, arg(help="Write a picture with all masks.")] = True,
    generation: Annotated[GenerationOptions, OmitArgPrefixes] = GenerationOptions(),
    explain: Annotated[bool, arg(help="Print the expected memory by size of photo, and stop.")] = False,
    dtype: Dtype = "float32",
    image_size: ImageSize = None,
    process_index: Annotated[
        int | None, arg(metavar="I", help="Do every N-th photo from the I-th (from 0); jax.distributed's by default.")
    ] = None,
    process_count: Annotated[int | None, arg(metavar="N", help="Of how many processes this is one.")] = None,
    overwrite: Annotated[bool, arg(help="Also redo photos that are done.")] = False,
) -> int:
    """Segment everything in photos, without prompts.

    A stopped run resumes where it was; photos that fail are listed at the end. In folders hidden files are
    skipped, and sub-folders are searched and appear in the results.
    """
    from samjax import hub
    from samjax.amg.generator import MaskGenerator
    from samjax.embeddings import model_hash
    from samjax.everything import Job, find_photos, run
    from samjax.writers import Options

    photos = find_photos(images, out)
    options = Options(polygons, polygon_tolerance, labelmap_suffix, crs)
    index, count = process_share(process_index, process_count)
    config = generation.checked()
    chosen: list[str] = list(dict.fromkeys([*format, *(["rle"] if convert_to_rle else [])] or ["coco"]))
    # Checked before the model is loaded, on which its settings depend.
    job = Job(out, (*chosen, *(["overlay"] if overlay else [])), {}, options, index, count, overwrite)
    if not explain:
        check_writable(out)
    sam = hub.load(checkpoint, image_size=image_size, tuned=tuned).with_dtype(dtype)
    sam.check_reads_files()
    generator = MaskGenerator(sam, config)
    if explain:
        return _explain(photos, generator)
    if config.memory_budget is not None and (sizes := _sizes(photos)[0]):
        generator.explain(max(sizes, key=_area))  # raises where the budget is too small
    job = dataclasses.replace(job, settings={"model": model_hash(sam), **generator.config.journal_key()})
    summary = run(photos, _announcing(generator), job, report=_report, say=_say, progress=_bar)
    if summary.skipped:
        print(f"{summary.skipped} photo(s) were done before and are skipped; --overwrite does them again")
    if summary.failures:
        reasons = [reason if path in reason else f"{path}: {reason}" for path, reason in summary.failures.items()]
        listed = "\n  ".join(map(printable, reasons))
        raise ValueError(f"{len(summary.failures)} photo(s) failed:\n  {listed}")
    return 0


def _announcing(generator: Any) -> Callable[[Any], Any]:
    """`generator.generate`, which says beforehand that programs have to be compiled for photos of a new size."""
    ready: set[Any] = set()

    def generate(rgb: Any) -> Any:
        height, width = rgb.shape[:2]
        if new := generator.programs((height, width)) - ready:
            ready.update(new)
            _say(f"compiling for photos of about {width} x {height} pixels: some seconds, once")
        return generator.generate(rgb)

    return generate


def process_share(index: int | None, count: int | None) -> tuple[int, int]:
    """The number of this process and how many there are: as asked for, or jax.distributed's where that runs."""
    if (index is None) != (count is None):
        raise ValueError("--process-index and --process-count belong together")
    if index is not None and count is not None:
        return index, count
    import jax

    return (jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else (0, 1)


def _explain(photos: Any, generator: Any) -> int:
    """Prints the memory that the largest photo of each group of similar sizes needs."""
    sizes, unreadable = _sizes(photos)
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for size in sizes:
        groups.setdefault(tuple(-(-side // _SIMILAR) for side in size), []).append(size)
    for _, group in sorted(groups.items()):
        size = max(group, key=_area)
        number = sum(sizes[one] for one in group)
        print(f"{number} photo(s){'' if len(group) == 1 else ', the largest'} of {size[1]} x {size[0]} pixels")
        print(generator.explain(size))
    for message in unreadable:
        print(printable(message), file=sys.stderr)
    return 2 if unreadable else 0


def _sizes(photos: Any) -> tuple[collections.Counter[tuple[int, int]], list[str]]:
    """Counts the photos of each (height, width), and lists the problems of those that cannot be read."""
    from samjax.everything import photo_size

    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    unreadable = []
    for photo in photos:
        try:
            sizes[photo_size(photo.path)] += 1
        except (ValueError, OSError) as error:
            unreadable.append(" ".join(str(error).split()))
    return sizes, unreadable


def _area(size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """A key to compare sizes by; between equal areas the choice is always the same."""
    return size[0] * size[1], size


def _report(done: Any) -> None:
    from tqdm import tqdm

    masks = "1 mask" if done.masks == 1 else f"{done.masks} masks"
    tqdm.write(printable(f"{done.photo.path}: {masks} in {done.seconds:.1f} s -> {done.files[-1]}"))


def _say(message: str) -> None:
    from tqdm import tqdm

    tqdm.write(printable(message))


def _bar(photos: Any) -> Any:
    from tqdm import tqdm

    return tqdm(photos, unit="image", disable=len(photos) <= 1)
