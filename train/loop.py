"""A training run from its first batch to its last checkpoint, resumable at every step."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from samjax import convert, hub
from samjax.config import VARIANTS, SamConfig
from samjax.data.sources import open_sources
from samjax.sam import Params
from samjax.sharding import batch_sharding, make_mesh, partition

from . import run_folder
from .batch import Batch
from .checkpoints import Checkpoints, check_room
from .config import TrainConfig
from .data.pipeline import Pipeline
from .data.report import BadRecords
from .losses import MaskLoss
from .mae import load_mae
from .metrics import MetricWriters
from .optim import is_frozen, make_optimizer, make_schedule
from .pictures import picture
from .prefetch import Prefetched, data_part, prefetch_to_device
from .progress import Progress
from .state import TrainState
from .step import Metrics, abstract_state, fresh_params, init_state, make_step, validation_execution
from .validation import on_host, validate


class NotFinite(ArithmeticError):
    """Loss or gradient became NaN or infinite; the message names the photos of the batch."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where a run has come to."""

    folder: Path
    step: int
    finished: bool  # False: it was asked to stop, and goes on from here when it is started again
    metrics: dict[str, float]  # of the last validation


def train(config: TrainConfig, out: Path) -> Outcome:
    """Trains as `config` says, into the folder `out`; where that holds the same run already, goes on with it.

    Everything that can be checked is checked before anything is computed. SIGTERM or Ctrl-C saves a checkpoint and
    ends; so does the last step.

    Raises:
        ValueError: the configuration, or `out` holds another run.
        FolderInUse: `out` is being trained in by another process.
        OSError: the folder cannot be written or has no room, or data cannot be reached.
        TooManyBadRecords: more of the data is bad than `data.max_bad_share`.
        NotFinite: with the names of the batch's photos; the checkpoints stay.
    """
    if ":/" in str(out):
        raise ValueError(f"a run's folder must be local or mounted, got {out}; data may be remote, runs may not")
    with run_folder.alone_in(Path(out)):
        return _train(config, Path(out))


def _train(config: TrainConfig, out: Path) -> Outcome:
    """`train`, in a folder that no other job writes into."""
    run = config.run
    mesh = make_mesh(run.data_axis, run.fsdp_axis, run.tensor_axis)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if run.batch % (shards * run.accumulate):
        raise ValueError(
            f"run.batch {run.batch} must be a multiple of run.accumulate {run.accumulate} times the {shards} devices "
            "along the mesh's axes data and fsdp"
        )
    started = run_folder.is_started(out)
    if started:
        run_folder.check_same_run(out, config)
    sam = run_folder.read_config(out)[1] if started else network(config)
    optimizer = make_optimizer(config.optim, sam, run.steps)
    wanted = abstract_state(config, sam, optimizer, mesh)
    check_room(out / run_folder.CHECKPOINTS, wanted, run.keep_last, run.keep_best)
    training, validation = pipelines(config, sam, mesh, out)
    if jax.process_index() == 0 and not started:
        run_folder.write_config(out, config, sam)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(out / run_folder.CHECKPOINTS, run.keep_last, run.keep_best))
        batches = stack.enter_context(training.batches())
        start, window = 0, Window()
        if (latest := checkpoints.latest()) is not None:
            state, saved = checkpoints.restore(wanted)
            start, window = latest, Window(**saved["window"])
            batches.set_state(saved["data"])
        else:
            state = init_state(config, starting_params(config, sam, mesh), optimizer, mesh)
        writers = stack.enter_context(
            MetricWriters(
                out,
                resumed_at=latest,
                tensorboard=run.tensorboard,
                wandb=run.wandb,
                config=dataclasses.asdict(config),
            )
        )
        if start >= run.steps:
            return Outcome(out, start, True, checkpoints.metrics(start))
        loop = Loop(config, sam, mesh, training, validation, checkpoints, writers, window)
        prefetched = stack.enter_context(prefetch_to_device(batches, batch_sharding(mesh), config.data.prefetch))
        stop = stack.enter_context(stop_requests())
        return loop.go(state, start, make_step(config, sam, optimizer, mesh), prefetched, stop, out)


@dataclasses.dataclass
class Window:
    """Sums of metrics since they were last logged; kept in checkpoints, so that a resumed run logs the same means."""

    count: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, numbers: dict[str, float]) -> None:
        self.count += 1
        for name, number in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + number

    def take(self) -> dict[str, float]:
        """The means; the window is empty afterwards."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means


class StopRequests:
    """Whether somebody wants the run to end: Ctrl-C or SIGTERM, which clusters send before they take machines back."""

    def __init__(self) -> None:
        self.asked = False

    def reached(self, step: int) -> bool:
        """Asked after every step; true for the same step in all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Listens for signals; the second Ctrl-C interrupts at once."""
    requests = StopRequests()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield requests  # JAX's coordinator listens for SIGTERM
        return

    def ask(number: int, frame: Any) -> None:
        if requests.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Loop:
    """The steps between a state and the end, and what is done every so many of them."""

    def __init__(
        self,
        config: TrainConfig,
        sam: SamConfig,
        mesh: Mesh,
        training: Pipeline,
        validation: Pipeline | None,
        checkpoints: Checkpoints,
        writers: MetricWriters,
        window: Window,
    ) -> None:
        self.config, self.sam, self.mesh = config, sam, mesh
        self.training, self.validation = training, validation
        self.checkpoints, self.writers, self.window = checkpoints, writers, window
        self.schedule = make_schedule(config.optim, config.run.steps)

    def go(
        self,
        state: TrainState,
        start: int,
        step_function: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
        prefetched: Iterator[Prefetched],
        stop: StopRequests,
        out: Path,
    ) -> Outcome:
        """From `start` updates on to the last, or to where a stop is asked for; both leave a checkpoint, and so does
        whatever goes wrong in a validation."""
        run = self.config.run
        measured: dict[str, float] = {}
        trains_encoder = not is_frozen(self.config.optim, self.sam, "image_encoder")
        seen = seen_in_training(self.config, self.sam)
        with Progress(self.config, seen, self.mesh, start, trains_encoder) as progress:
            pending = None
            for step in range(start + 1, run.steps + 1):
                fetched = next(prefetched)
                state, metrics = step_function(state, fetched.batch)
                # The step before has ended by now; this one runs while its numbers are looked at.
                if pending is not None:
                    self._note(*pending, progress)
                pending = step, metrics, fetched
                stops = stop.reached(step)
                if stops:
                    progress.message(f"asked to stop: saving step {step}")
                ends = stops or step == run.steps
                due = {
                    "log": step % run.log_every == 0 or step == run.steps,
                    "validate": self.validation is not None and (step % run.validate_every == 0 or step == run.steps),
                    "picture": self.validation is not None and (step % run.picture_every == 0 or step == run.steps),
                    "checkpoint": step % run.checkpoint_every == 0 or ends,
                }
                if not any(due.values()):
                    continue
                self._note(*pending, progress)
                pending = None
                if due["log"]:
                    self._log(step, progress)
                self.checkpoints.check()
                saved = {"data": fetched.state, "window": dataclasses.asdict(self.window)}
                try:
                    if due["validate"]:
                        measured = self._validate(step, state)
                    if due["picture"]:
                        self._draw(step, state)
                except Exception:
                    self.checkpoints.save(step, state, saved)
                    raise
                if due["checkpoint"] or due["validate"]:
                    self.checkpoints.save(step, state, saved, measured if due["validate"] else None)
                progress.restart_clock()
                if ends:
                    break
        return Outcome(out, step, step == run.steps, measured)

    def _note(self, step: int, metrics: Metrics, fetched: Prefetched, progress: Progress) -> None:
        """Waits for a step's numbers. Raises `NotFinite`."""
        metrics = jax.device_get(metrics)
        if not metrics["finite"]:
            names = [self.training.source.name(int(record)) for record in fetched.records]
            raise NotFinite(
                f"step {step}: the loss is {metrics['loss']} and the gradient's norm {metrics['gradient_norm']}. "
                f"The photos of this batch: {', '.join(names)}. Last checkpoint: {self.checkpoints.latest()}. If it is "
                "not the photos, start a new run, from this one's export if it was good, with a lower "
                "optim.learning_rate or optim.clip_norm"
            )
        self.window.add(numbers_of(metrics))
        progress.step(fetched.waited)

    def _log(self, step: int, progress: Progress) -> None:
        values = self.window.take()
        values["learning_rate"] = float(self.schedule(step - 1))
        values["epoch"] = self.training.epoch_at(step)
        values |= progress.speed(values["masks"])
        self.writers.write(step, values)
        progress.show(values)

    def _weights(self, state: TrainState) -> Params:
        return state.params if state.ema is None else state.ema

    def _validate(self, step: int, state: TrainState) -> dict[str, float]:
        execution = validation_execution(self.config, self.mesh)
        with (
            self.validation.batches() as batches,
            prefetch_to_device(batches, batch_sharding(self.mesh), self.config.data.prefetch) as on_device,
        ):
            measured = validate(self.sam, self._weights(state), (each.batch for each in on_device), execution)
        self.writers.write(step, {f"val/{name}": value for name, value in measured.items()})
        return measured

    def _draw(self, step: int, state: TrainState) -> None:
        execution = validation_execution(self.config, self.mesh)
        with (
            self.validation.batches() as batches,
            prefetch_to_device(batches, batch_sharding(self.mesh), 1) as on_device,
        ):
            batch = next(on_device).batch
            if not on_host(batch.valid).any():  # all of its photos are bad
                return
            drawn = picture(self.sam, self._weights(state), batch, execution)
        self.writers.picture(step, "predictions", drawn)


def numbers_of(metrics: Metrics) -> dict[str, float]:
    """A step's metrics on the host as named numbers. Loss terms are means over passes, unweighted."""
    terms: MaskLoss = metrics["passes"]
    numbers = {
        "loss": metrics["loss"],
        "focal": terms.focal.mean(),
        "dice": terms.dice.mean(),
        "balanced": terms.balanced.mean(),
        "iou_error": terms.iou_error.mean(),
        "iou_first": terms.iou[0],  # of the first pass's most confident mask
        "iou_first_oracle": terms.best_iou[0],
        "iou_last": terms.iou[-1],
        "gradient_norm": metrics["gradient_norm"],
        "masks": metrics["masks"],
    }
    return {name: float(number) for name, number in numbers.items()}


def network(config: TrainConfig) -> SamConfig:
    """Which network a new run trains."""
    model = config.model
    if model.init is not None:
        if model.mae is not None:
            raise ValueError("model.init and model.mae were both given; a run starts from one of them")
        sam = convert.describe(hub.locate(model.init)).config
    elif model.variant in VARIANTS:
        sam = VARIANTS[model.variant]
    else:
        raise ValueError(f"model.variant: unknown {model.variant!r}; known are {', '.join(VARIANTS)}")
    sam = sam if model.image_size is None else sam.with_image_size(model.image_size)
    check_window(model.window, sam)
    return sam


def check_window(side: int | None, sam: SamConfig) -> None:
    """Raises ValueError where the windows that training sees would cut the encoder's attention windows."""
    stride = sam.image_encoder.patch_size * sam.image_encoder.window_size
    if side is not None and (side < stride or side % stride or side > min(sam.image_size)):
        raise ValueError(
            f"model.window must be a multiple of {stride} (patch times attention window) and at most the model's input "
            f"{sam.image_size}, got {side}"
        )


def seen_in_training(config: TrainConfig, sam: SamConfig) -> SamConfig:
    """The network for the part of its input that training sees."""
    return sam if config.model.window is None else sam.with_image_size(config.model.window)


def starting_params(config: TrainConfig, sam: SamConfig, mesh: Mesh) -> Params:
    """What a new run starts from, on the mesh."""
    if config.model.init is not None:

        def placed(name: str, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
            return NamedSharding(mesh, partition(name, leaf.shape, mesh))

        return hub.load(config.model.init, sharding=placed, image_size=sam.image_size).params
    params = fresh_params(config, sam, mesh)
    return params if config.model.mae is None else load_mae(config.model.mae, sam, params)


def pipelines(config: TrainConfig, sam: SamConfig, mesh: Mesh, out: Path) -> tuple[Pipeline, Pipeline | None]:
    """Of training, and of validation where the recipe names data for it."""
    run = config.run
    if not config.data.train:
        raise ValueError("data.train names no data: give it as --data.train FORMAT=PATH, e.g. sa1b=/data/sa1b")

    def pipeline(specs: tuple[str, ...], sam: SamConfig, report: str, batch: int, images: int | None) -> Pipeline:
        source = open_sources(specs)
        index, count = data_part(batch_sharding(mesh), batch)
        report = BadRecords(out / report, config.data.max_bad_share)
        return Pipeline(
            config.data,
            source,
            sam,
            batch=batch,
            seed=run.seed,
            report=report,
            process_index=index,
            process_count=count,
            validation_images=images,
        )

    seen = seen_in_training(config, sam)
    training = pipeline(config.data.train, seen, run_folder.BAD_TRAINING, run.batch, None)
    if not config.data.val:
        return training, None
    pieces = run.batch // run.accumulate, run.validation_images
    validation = pipeline(config.data.val, sam, run_folder.BAD_VALIDATION, *pieces)
    validation.batch_at(0)  # what is wrong with all of it is said now
    return training, validation
