"""`samjax evaluate PROTOCOL`: a model, a data set and a protocol become numbers, a table and plots."""

import dataclasses
import hashlib
import sys
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from tyro.conf import arg

from samjax import hub
from samjax.atomic import check_writable
from samjax.cli.everything import process_share
from samjax.cli.options import Dtype, ImageSize, TunedFile
from samjax.evaluation import report
from samjax.evaluation.datasets import (
    FORMATS,
    Chosen,
    First,
    MapPairs,
    fingerprint,
    grey_pairs,
    identity_of,
    label_pairs,
    open_dataset,
    parts_of,
    read_bsds,
)
from samjax.evaluation.datasets.annotated import AnnotatedPhotos
from samjax.evaluation.protocol import Dataset, EvaluationProtocol, Segmenter
from samjax.evaluation.protocols.boxes import Boxes
from samjax.evaluation.protocols.detection import BoxDetections
from samjax.evaluation.protocols.edges import Edges, HumanEdges
from samjax.evaluation.protocols.interactive import Interactive
from samjax.evaluation.protocols.points import Points
from samjax.evaluation.protocols.proposals import Proposals
from samjax.evaluation.protocols.saliency import Saliency
from samjax.evaluation.protocols.semantic import VOID, Semantic
from samjax.evaluation.runner import evaluate
from samjax.evaluation.segmenters import SamSegmenter, from_spec
from samjax.evaluation.user.recorded import User
from samjax.lock import check_share
from samjax.names import printable
from samjax.readers.left_out import Problem
from samjax.readers.sources import describe_formats
from samjax.sharding import make_mesh

DESCRIPTION = """Measure how good a model is, by the protocols that papers use.

Results go into DIR: results.json, results.txt and plots. A run that was stopped resumes where it was when the same
command is given again; photos that fail are listed at the end. Several processes may share DIR."""

app = tyro.extras.SubcommandApp()


@dataclasses.dataclass(frozen=True)
class Model:
    """The model to evaluate: a checkpoint, or any predictor with Meta's interface."""

    checkpoint: Annotated[
        str | None,
        arg(metavar="C", help="A known name (vit_b, vit_l, vit_h), a file or a folder; samjax-tiny by default."),
    ] = None
    tuned: TunedFile = None
    predictor: Annotated[
        str | None,
        arg(
            metavar="MODULE:FACTORY",
            help="Instead of a checkpoint, a function without arguments that returns what has the interface of "
            "segment_anything.SamPredictor; its module is also looked for in the current folder.",
        ),
    ] = None
    dtype: Dtype = "float32"
    image_size: ImageSize = None

    def __post_init__(self) -> None:
        """Raises ValueError for options that do not go together."""
        if self.checkpoint is not None and self.predictor is not None:
            raise ValueError("give either --checkpoint or --predictor")
        if self.tuned is not None and self.predictor is not None:
            raise ValueError("--tuned belongs to --checkpoint")
        if self.predictor is not None and (self.image_size is not None or self.dtype != "float32"):
            raise ValueError("--dtype and --image-size belong to --checkpoint; a --predictor decides these itself")

    def given(self) -> dict[str, str]:
        """Options that the results mention."""
        return {} if self.predictor else {"checkpoint": self.checkpoint or hub.BUNDLED}

    def open(self) -> tuple[Segmenter, dict[str, Any]]:
        """The segmenter, over all devices of this process, and what identifies it."""
        if self.predictor is not None:
            segmenter = from_spec(self.predictor)
            return segmenter, {"predictor": self.predictor, **segmenter.fingerprint()}
        path = hub.locate(self.checkpoint or hub.BUNDLED)
        sam = hub.load(path, image_size=self.image_size, tuned=self.tuned).with_dtype(self.dtype)
        sam.check_reads_files()
        identity = {
            "variant": sam.config.variant,
            "image_size": list(sam.config.image_size),
            "dtype": self.dtype,
            "checksum": hub.describe(path).checksum,  # as `samjax info` and model cards have it
            "config": hashlib.sha256(repr(sam.config).encode()).hexdigest()[:16],
            "samjax": version("samjax"),
            "backend": jax.default_backend(),
            "matmul_precision": getattr(jax.config, "jax_default_matmul_precision") or "default",  # noqa: B009 (unknown to static tools),
        }
        if self.tuned is not None:
            identity["tuned"] = hashlib.sha256(self.tuned.read_bytes()).hexdigest()
        devices = jax.local_devices()
        return SamSegmenter(sam, make_mesh(devices=devices) if len(devices) > 1 else None), identity


@dataclasses.dataclass(frozen=True)
class Data:
    """Photos with objects."""

    data: Annotated[str, arg(metavar="FORMAT=PATH[,PATH]", help=f"Photos with masks: {describe_formats(FORMATS)}.")]
    limit: Annotated[int | None, arg(metavar="N", help="Only the first N photos.")] = None
    objects_per_image: Annotated[
        int | None, arg(metavar="N", help="Only N objects of each photo, drawn with --seed.")
    ] = None
    min_area: Annotated[int, arg(metavar="PX", help="Only objects of at least this many pixels.")] = 1
    seed: Annotated[int, arg(help="Of the objects that are drawn.")] = 0

    def open(self, out: Path, exclude: Collection[Path] = ()) -> tuple[Dataset, tuple[Problem, ...], dict[str, Any]]:
        """The data set, what belongs to no photo, and what identifies it beside the photos' names; the folder of
        results and the files in `exclude` are none of its."""
        opened = open_dataset(self.data)
        strays = opened.strays if isinstance(opened, AnnotatedPhotos) else ()
        if isinstance(opened, AnnotatedPhotos) and opened.left_out:
            listed = printable(f"; {out / report.LEFT_OUT} will list what belongs to no photo") if strays else ""
            print(f"{self.data}: {len(opened):,} photos; {opened.left_out}{listed}")
        dataset = Chosen(
            opened,
            limit=self.limit,
            objects_per_image=self.objects_per_image,
            min_area=self.min_area,
            seed=self.seed,
        )
        identity: dict[str, Any] = {**identity_of(self.data, [out, *exclude]), "min_area": self.min_area}
        if self.objects_per_image is not None:
            identity |= {"objects_per_image": self.objects_per_image, "seed": self.seed}
        return dataset, strays, identity


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder of the results, and the part of the work that is this process's."""

    out: Annotated[Path, arg(metavar="DIR", help="Folder of the results; continues a run it holds.")]
    process_index: Annotated[
        int | None, arg(metavar="I", help="Do every N-th photo from the I-th (from 0); jax.distributed's by default.")
    ] = None
    process_count: Annotated[int | None, arg(metavar="N", help="Of how many processes this is one.")] = None

    def __post_init__(self) -> None:
        """Raises ValueError if nothing can be written, and for a process that is none; makes no folder."""
        check_share(*self.share)
        check_writable(next(place for place in (self.out, *self.out.absolute().parents) if place.exists()))

    @property
    def share(self) -> tuple[int, int]:
        """The number of this process, and how many there are."""
        return process_share(self.process_index, self.process_count)


ModelOptions = Annotated[Model, arg(name="")]
DataOptions = Annotated[Data, arg(name="")]
PlaceOptions = Annotated[Place, arg(name="")]
UserOption = Annotated[
    User,
    arg(help="Who clicks: the protocol's rule, or whoever made the objects of --data, if clicks were recorded."),
]


@app.command
def interactive(
    data: DataOptions,
    place: PlaceOptions,
    clicks: Annotated[int, arg(help="At most, for each object.")] = 20,
    thresholds: Annotated[tuple[float, ...], arg(metavar="IOU...", help="IoUs of NoC.")] = (0.8, 0.85, 0.9),
    user: UserOption = "simulated",
    model: ModelOptions = Model(),
) -> int:
    """A user who corrects masks: clicks to an IoU (NoC), mean IoU by click; RITM's protocol."""
    return run(Interactive(clicks, thresholds, user=user), model, data, place)


@app.command
def points(
    data: DataOptions,
    place: PlaceOptions,
    points: Annotated[tuple[int, ...], arg(metavar="N...", help="Numbers of points to report.")] = (1, 2, 3, 5, 9),
    user: UserOption = "simulated",
    model: ModelOptions = Model(),
) -> int:
    """Central points: mean IoU of the most confident mask and of the best of three; SAM's zero-shot protocol."""
    return run(Points(points, user), model, data, place)


@app.command
def boxes(
    data: DataOptions,
    place: PlaceOptions,
    refinements: Annotated[int, arg(help="How often the most confident mask is fed back.")] = 0,
    model: ModelOptions = Model(),
) -> int:
    """The objects' own boxes: mean IoU of the masks they give."""
    return run(Boxes(refinements), model, data, place)


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """Photos with boundaries."""

    data: Annotated[Path, arg(metavar="FOLDER", help="BSDS500 as it is published: images/ and groundTruth/.")]
    split: Annotated[Literal["train", "val", "test"], arg(help="Of BSDS500.")] = "test"
    limit: Annotated[int | None, arg(metavar="N", help="Only the first N photos.")] = None

    def run(self, protocol: EvaluationProtocol, model: Model | None, place: Place) -> int:
        """Evaluates on them, and prints the table."""
        segmenter, model_identity = _opened(model)
        dataset = First(read_bsds(self.data, self.split), self.limit)
        identity = {"format": "bsds500", "split": self.split, "folder": fingerprint(str(self.data), [place.out])}
        given = {"data": str(self.data), **({} if model is None else model.given())}
        return _run(protocol, segmenter, dataset, place, data=identity, model=model_identity, given=given)


BoundariesOptions = Annotated[Boundaries, arg(name="")]


@app.command
def edges(
    data: BoundariesOptions,
    place: PlaceOptions,
    points_per_side: Annotated[int, arg(help="Points along each side of the photo.")] = 16,
    nms_threshold: Annotated[float, arg(help="IoU of boxes above which a mask is a duplicate.")] = 0.7,
    points_per_batch: Annotated[int, arg(help="Points asked for together: memory, not results.")] = 64,
    model: ModelOptions = Model(),
) -> int:
    """Outlines of everything against those that people drew: ODS, OIS, AP, R50 on BSDS500."""
    return data.run(Edges(points_per_side, nms_threshold, points_per_batch=points_per_batch), model, place)


@app.command
def human_edges(data: BoundariesOptions, place: PlaceOptions) -> int:
    """Agreement among people: each annotator's outlines against the others'; published for BSDS500: F 0.80."""
    return data.run(HumanEdges(), None, place)


@app.command
def detections(
    data: DataOptions,
    place: PlaceOptions,
    detections: Annotated[
        Path,
        arg(metavar="RESULTS.json", help="A detector's boxes as COCO results: image_id, category_id, bbox, score."),
    ],
    annotations: Annotated[
        Path | None,
        arg(metavar="ANNOTATIONS.json", help="What is judged against; by default the JSON of --data."),
    ] = None,
    refinements: Annotated[int, arg(help="How often the most confident mask is fed back.")] = 1,
    model: ModelOptions = Model(),
) -> int:
    """A detector's boxes as prompts: COCO's average precision of the masks."""
    if data.objects_per_image is not None or data.min_area > 1:
        raise ValueError("detections are judged against all annotations: leave --objects-per-image and --min-area out")
    judged_against = parts_of(data.data)[1].get("annotations") if annotations is None else str(annotations)
    if judged_against is None:
        raise ValueError("--annotations ANNOTATIONS.json is missing: --data names no JSON to judge detections against")
    protocol = BoxDetections(judged_against, detections, refinements)
    given = {
        "detections": str(detections),
        "annotations": judged_against,
        "annotations_sha256": protocol.annotations_digest,
    }
    return run(protocol, model, data, place, exclude=[Path(judged_against)], **given)


@app.command
def proposals(
    data: DataOptions,
    place: PlaceOptions,
    points_per_side: Annotated[int, arg(help="Points along each side of the photo.")] = 64,
    nms_threshold: Annotated[float, arg(help="IoU of boxes above which a mask is a duplicate.")] = 0.9,
    points_per_batch: Annotated[int, arg(help="Points decoded together: memory, not results.")] = 64,
    model: ModelOptions = Model(),
) -> int:
    """Everything in a photo, ranked: class-agnostic average recall of the best 10, 100 and 1000."""
    return run(Proposals(points_per_side, nms_threshold, points_per_batch), model, data, place)


@app.command
def semantic(
    predicted: Annotated[Path, arg(metavar="DIR", help="Label maps that a model made.")],
    truth: Annotated[Path, arg(metavar="DIR", help="True label maps of the same names.")],
    place: PlaceOptions,
    classes: Annotated[int | None, arg(metavar="K", help="Labels are 0 to K - 1.")] = None,
    names: Annotated[
        Path | None, arg(metavar="FILE", help="Instead of --classes their names, one a line, in the order of labels.")
    ] = None,
    void: Annotated[int, arg(help="True label of pixels that are not judged; -1 for none.")] = VOID,
) -> int:
    """Label maps against label maps: pixel accuracy, mean accuracy, mean IoU, dice."""
    if (classes is None) == (names is None):
        raise ValueError("give either --classes K or --names FILE")
    labels = class_names(names) if names is not None else classes
    protocol = Semantic(labels or 0, None if void < 0 else void)
    return _run_maps(protocol, label_pairs(str(predicted), str(truth)), place, predicted, truth)


@app.command
def saliency(
    predicted: Annotated[Path, arg(metavar="DIR", help="Saliency maps that a model made: grey, 8 bits.")],
    truth: Annotated[Path, arg(metavar="DIR", help="True maps of the same names: black and white.")],
    place: PlaceOptions,
) -> int:
    """Saliency maps against objects that stand out: F (beta² = 0.3; best, mean, adaptive) and mean absolute error."""
    return _run_maps(Saliency(), grey_pairs(str(predicted), str(truth)), place, predicted, truth)


def main(args: Sequence[str]) -> int:
    """The command. Raises ValueError and OSError for what the user can mend."""
    return app.cli(prog="samjax evaluate", description=DESCRIPTION, args=list(args) or ["--help"])


def run(
    protocol: EvaluationProtocol,
    model: Model,
    data: Data,
    place: Place,
    exclude: Collection[Path] = (),
    **given: str,
) -> int:
    """Evaluates on photos with objects, and prints the table. The files in `exclude` do not decide the records."""
    segmenter, model_identity = _opened(model)
    dataset, strays, identity = data.open(place.out, exclude)
    mentioned = {"data": data.data, **given, **model.given()}
    return _run(protocol, segmenter, dataset, place, strays, data=identity, model=model_identity, given=mentioned)


def class_names(path: Path) -> list[str]:
    """The lines of a file, up to the last that is not empty. Raises ValueError for an empty one before, and OSError."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines()]
    if not all(lines):
        raise ValueError(
            f"{path}: line {lines.index('') + 1 if lines else 1} has no name; the lines are labels 0, 1, ..."
        )
    return lines


def _run_maps(protocol: EvaluationProtocol, pairs: MapPairs, place: Place, predicted: Path, truth: Path) -> int:
    given = {"predicted": str(predicted), "truth": str(truth)}
    return _run(protocol, None, pairs, place, data=pairs.digests(), model={}, given=given)


def _opened(model: Model | None) -> tuple[Segmenter | None, dict[str, Any]]:
    """`model` is None for a protocol that judges what is there already."""
    return (None, {}) if model is None else model.open()


def _run(
    protocol: EvaluationProtocol,
    segmenter: Segmenter | None,
    dataset: Any,
    place: Place,
    strays: Sequence[Problem] = (),
    **identity: Any,
) -> int:
    """`identity` is `evaluate`'s: "data", "model", "given"."""
    index, count = place.share
    try:
        outcome = evaluate(
            *(protocol, segmenter, dataset, place.out),
            strays=strays,
            process_index=index,
            process_count=count,
            **identity,
        )
    except KeyboardInterrupt:
        print(f"stopped; {place.out} keeps what is judged, and the same command resumes it", file=sys.stderr)
        raise
    if outcome.skipped:
        total = outcome.skipped + outcome.judged
        print(f"{outcome.skipped} of {total} photo(s) had been judged before, in {printable(place.out)}")
    if outcome.summary is None:
        print(f"{outcome.judged} photo(s) judged; {outcome.left} are left to other processes, then there are results")
    else:
        print((place.out / report.TABLE).read_text(encoding="utf-8"), end="")
        print("\n".join(map(printable, outcome.files)))
    if not outcome.failures:
        return 0
    failed = f"{len(outcome.failures)} photo(s) failed; the same command tries them again"
    if outcome.summary is None:  # there is no table yet that names them
        some = [printable(f"{name}: {reason}") for name, reason in list(outcome.failures.items())[: report.LISTED]]
        more = len(outcome.failures) - len(some)
        listed = "\n  ".join([*some, *([f"and {more} more"] if more else [])])
        raise ValueError(f"{failed}:\n  {listed}")
    raise ValueError(f"{failed}; {printable(place.out / report.RESULTS)} lists them")
