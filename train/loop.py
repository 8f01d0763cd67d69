"""A training run from its first batch to its last checkpoint, resumable at every step."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from samjax import convert, hub
from samjax.atomic import check_writable
from samjax.config import VARIANTS, SamConfig
from samjax.download import cache_dir
from samjax.readers.sources import Joined, Spread, open_sources
from samjax.sharding import batch_sharding, described, make_mesh, partition
from samjax.tuned import Base
from samjax.types import Params

from . import extension, run_folder
from .automatic import settled
from .cached.batches import CachedBatches, FeatureCache
from .cached.plan import make_plan, views
from .checkpoints import Checkpoints, check_room
from .config import TrainConfig
from .data.clicks import check_clicks
from .data.mixing import OldData
from .data.pipeline import Pipeline
from .data.report import BadRecords
from .groups import table, trained_groups
from .mae import load_mae
from .metrics import MetricWriters
from .optim import make_optimizer, make_schedule
from .pace import Pace
from .prefetch import Batches, Prefetched, data_part, prefetch_to_device
from .progress import Progress
from .retention import Validators, make_validators, warn_of_unseen_prompts
from .state import TrainState, abstract_state, fresh_params, init_state, weights, with_new_params
from .step import Metrics, StepFunction, make_step
from .stopping import StopRequests, stop_requests
from .tasks import Task, make_task
from .trainable import Trainable, grown_network, grown_params, make_trainable
from .trainable.freezing import parameter_names
from .window import check_window, seen_in_training


class NotFinite(ArithmeticError):
    """Loss or gradient became NaN or infinite; the message names the photos of the batch."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run, for now or for good."""

    folder: Path
    step: int
    finished: bool  # False: it was asked to stop, and resumes from here when it is started again
    metrics: dict[str, float]  # of the last validation


def train(config: TrainConfig, out: Path) -> Outcome:
    """Trains as `config` says, into the folder `out`; where that holds the same run already, resumes it.

    Everything that can be checked is checked before anything is computed: all of the validation data is read once. A
    new run is validated before its first step. A run that has finished may be given more steps (`extension`). SIGTERM
    or Ctrl-C saves a checkpoint and ends; so does the last step.

    Raises:
        ValueError: the configuration, or `out` holds another run.
        FolderInUse: `out` is being trained in by another process.
        OSError: the folder cannot be written or has no room, or data cannot be reached.
        TooManyBadRecords: more of the data is bad than `data.max_bad_share`.
        NotFinite: with the names of the batch's photos; the checkpoints stay.
    """
    config, _ = settled(config, Path(out))
    if ":/" in str(out):
        raise ValueError(f"a run's folder must be local or mounted, got {out}; data may be remote, runs may not")
    with run_folder.alone_in(Path(out)):
        return _train(config, Path(out))


def _train(config: TrainConfig, out: Path) -> Outcome:
    """`train`, in a folder that no other job writes into."""
    run, pace = config.run, Pace(config.run)
    if pace.is_timed and jax.process_count() > 1:
        raise ValueError("run.minutes needs a single process: several would not agree on the time; use run.steps")
    mesh = make_mesh(run.data_axis, run.fsdp_axis, run.tensor_axis)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if run.batch % (shards * run.accumulate):
        raise ValueError(
            f"run.batch {run.batch} must be a multiple of run.accumulate {run.accumulate} times the {shards} devices "
            "along the mesh's axes data and fsdp"
        )
    started, more = run_folder.is_started(out), None
    if started:
        run_folder.check_same_run(out, config)
        more = extension.requested(out, config)
    sam = run_network(config, out)
    optimizer = make_optimizer(config.optim, sam, run.steps)
    trainable, task = make_trainable(config, sam), make_task(config, sam, mesh)
    wanted = abstract_state(config, sam, optimizer, mesh)
    sources = open_data(config, sam)
    check_room(out / run_folder.CHECKPOINTS, wanted, run.keep_last, run.keep_best)
    training, validation, retained = pipelines(config, sources, sam, mesh, out)
    measured = sum(pipeline.photos for pipeline in (validation, retained) if pipeline is not None)
    plan, about_cache = make_plan(config, sam, training.photos, measured)
    features = Path(config.cache.folder or cache_dir() / "features")
    if plan is not None and plan.on_disk:
        check_writable(features, "cache.folder")
    if jax.process_index() == 0 and not started:
        suited = hub.thresholds(config.model.init) if config.model.init is not None else None
        run_folder.write_config(out, config, sam, thresholds=suited, base=base_of(config))

    read = {"data.train": training, "data.val": validation, "eval.retain": retained}
    say_left_out(read, even_nothing=True)
    with contextlib.ExitStack() as stack:
        stack.callback(say_left_out, read, even_nothing=False)
        checkpoints = stack.enter_context(Checkpoints(out / run_folder.CHECKPOINTS, run.keep_last, run.keep_best))
        batches = stack.enter_context(training.batches())
        latest = checkpoints.latest()
        start, sums = latest or 0, MetricSums()
        writers = stack.enter_context(
            MetricWriters(
                out,
                resumed_at=latest,
                tensorboard=run.tensorboard,
                wandb=run.wandb,
                config=dataclasses.asdict(config),
            )
        )
        if not pace.is_timed and start >= run.steps:
            return Outcome(out, start, True, checkpoints.metrics(start))
        trained, kept = frozenset(parameter_names(wanted.params)), None if plan is None else plan.point
        flops = functools.partial(task.step_flops, trained=trained, kept=kept)
        progress = stack.enter_context(Progress(config, mesh, start, flops, pace))
        progress.message(f"training on {described(mesh)}")
        if latest is None:
            progress.message(f"tune.mode {config.tune.mode}\n{table(trained_groups(config, sam))}")
        if about_cache:
            progress.message(about_cache)
        validator = make_validators(config, task, mesh, validation, retained, progress, out)
        if validator is not None:
            validator.open()
        if latest is not None:
            state, saved = checkpoints.restore(wanted)
            sums = MetricSums(**saved["window"])
            batches.set_state(saved["data"])
            if pace.is_timed:
                pace.resume(saved["pace"])
                if pace.is_over(start):
                    return Outcome(out, start, True, checkpoints.metrics(start))
        else:
            warn_of_unseen_prompts(config)
            state = _first_state(config, sam, optimizer, mesh)
        if more is not None:
            progress.message(extension.explained(more, config))
            if jax.process_index() == 0:
                extension.record(out, more)
        loop = Loop(config, task, trainable, training, validator, checkpoints, writers, sums, progress, pace)
        source: Batches = batches
        if plan is not None:
            cache = FeatureCache(plan, config, sam, mesh, trainable.merge(state.frozen, state.params), features)
            source = CachedBatches(batches, cache)
            if validator is not None:
                validator.take_features(cache)
        prefetched = stack.enter_context(prefetch_to_device(source, batch_sharding(mesh), config.data.prefetch))
        stop = stack.enter_context(stop_requests())
        return loop.go(state, start, make_step(config, sam, optimizer, mesh), prefetched, stop, out)


def _first_state(
    config: TrainConfig, sam: SamConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The state before the first step, alone: the parameters that it is made of leave the devices with this call."""
    params = with_new_params(config, sam, starting_params(config, sam, mesh), mesh)
    return init_state(config, sam, params, optimizer, mesh)


@dataclasses.dataclass
class MetricSums:
    """Sums of metrics since they were last logged; kept in checkpoints, so that a resumed run logs the same means."""

    count: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, numbers: dict[str, float]) -> None:
        """Adds the numbers of one step."""
        self.count += 1
        for name, number in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + number

    def take(self) -> dict[str, float]:
        """The means; nothing is summed afterwards."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means


class Loop:
    """The steps between a state and the end, and what is done every so many of them."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        trainable: Trainable,
        training: Pipeline,
        validator: Validators | None,
        checkpoints: Checkpoints,
        writers: MetricWriters,
        sums: MetricSums,
        progress: Progress,
        pace: Pace,
    ) -> None:
        self.config, self.task, self.trainable = config, task, trainable
        self.training, self.validator = training, validator
        self.checkpoints, self.writers, self.sums, self.progress = checkpoints, writers, sums, progress
        self.pace = pace
        self.schedule = make_schedule(config.optim, config.run.steps)

    def go(
        self,
        state: TrainState,
        start: int,
        step_function: StepFunction,
        prefetched: Iterator[Prefetched],
        stop: StopRequests,
        out: Path,
    ) -> Outcome:
        """Runs from `start` updates to the last, or until a stop is asked for; both leave a checkpoint, and so does
        whatever goes wrong in a validation. A stop before the first step leaves none: there is nothing to keep."""
        run, progress, validator, pace = self.config.run, self.progress, self.validator, self.pace
        prefetched = itertools.chain([next(prefetched)], prefetched)  # bad data stop the run before anything compiles
        measured: dict[str, float] = {}
        if start == 0 and validator is not None:
            measured = validator.measure(0, weights(self.trainable, state), self.writers)
            if stop.reached(0):
                return Outcome(out, 0, False, measured)
        pending = None
        for step in itertools.count(start + 1):
            fetched, position = next(prefetched), pace.position()
            scheduled = () if position is None else (position,)
            with progress.compiling("the step") if step == start + 1 else contextlib.nullcontext():
                state, metrics = step_function(state, fetched.batch, *scheduled)
            # The step before has ended by now; this one runs while its numbers are looked at.
            if pending is not None:
                self._note(*pending)
            pending = step, metrics, fetched
            stops = stop.reached(step)
            if stops:
                progress.message(f"asked to stop: saving step {step}")
            over = pace.is_over(step)
            ends = stops or over
            due = {
                "log": step % run.log_every == 0 or over,
                "validate": validator is not None and (pace.wants_validation(step) or over),
                "picture": validator is not None and (step % run.picture_every == 0 or over),
                "checkpoint": step % run.checkpoint_every == 0 or ends,
            }
            if not any(due.values()):
                continue
            self._note(*pending)
            pending = None
            if due["log"]:
                self._log(step, float(step - 1 if position is None else position))
            self.checkpoints.check()
            saved = {"data": fetched.state, "window": dataclasses.asdict(self.sums)}
            if pace.is_timed:
                saved["pace"] = pace.state()
            try:
                if due["validate"] and validator is not None:
                    measured = validator.measure(step, weights(self.trainable, state), self.writers)
                    pace.validated()
                if due["picture"] and validator is not None:
                    validator.draw(step, weights(self.trainable, state), self.writers)
            except Exception:
                self.checkpoints.save(step, state, saved)
                raise
            if due["checkpoint"] or due["validate"]:
                with progress.aside("checkpoint"):
                    self.checkpoints.save(step, state, saved, measured if due["validate"] else None)
            progress.restart_clock()
            if ends:
                break
        return Outcome(out, step, over, measured)

    def _note(self, step: int, metrics: Metrics, fetched: Prefetched) -> None:
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
        numbers = {name: float(metrics[name]) for name in ("loss", "gradient_norm", "masks")}
        self.sums.add(numbers | self.task.numbers(metrics["terms"]))
        self.progress.step(fetched.waited)

    def _log(self, step: int, position: float) -> None:
        """`position`: of the last step in the schedules."""
        values = self.sums.take()
        values["learning_rate"] = float(self.schedule(position))
        values["epoch"] = self.training.epoch_at(step)
        values |= self.progress.speed(values["masks"])
        self.writers.write(step, values)
        self.progress.show(values)


def network(config: TrainConfig) -> SamConfig:
    """The network that a new run trains, with what the modes of `tune` add to it. Raises ValueError for an unknown
    variant, size, checkpoint or mode."""
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
    sam = grown_network(config.tune, sam)
    check_window(model.window, sam)
    return sam


def base_of(config: TrainConfig) -> Base | None:
    """The checkpoint that a new run starts from, as what is tuned of it names it; None if there is none."""
    init = config.model.init
    if init is None:
        return None
    described = convert.describe(hub.locate(init))
    return Base(init if init in (hub.BUNDLED, *hub.OFFICIAL) else Path(init).name, described.checksum, described.config)


def run_network(config: TrainConfig, out: Path) -> SamConfig:
    """The network of the run in `out`, or where there is none yet, the one that `config` trains."""
    return run_folder.network(out) if run_folder.is_started(out) else network(config)


def say_left_out(read: Mapping[str, Pipeline | None], *, even_nothing: bool) -> None:
    """Prints, in the first process, how much of the data is left out, why, and which file lists it.

    `read` are the pipelines by the options that name their data.
    """
    if jax.process_index() != 0:
        return
    for name, pipeline in read.items():
        if pipeline is None:
            continue
        parts = [(name, pipeline.new_records, pipeline.report)]
        if pipeline.old is not None:
            parts.append(("data.mix", len(pipeline.old.source), pipeline.old.report))
        for part, records, report in parts:
            tally = report.tally()
            if tally or even_nothing:
                print(f"{part}: {records:,} records; {tally}" + f"; see {report.path}" * bool(tally))


def starting_params(config: TrainConfig, sam: SamConfig, mesh: Mesh) -> Params:
    """The parameters that a new run starts from, on the mesh: a checkpoint's, and fresh ones where it has none."""
    if config.model.init is not None:

        def placed(name: str, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
            return NamedSharding(mesh, partition(name, leaf.shape, mesh, sam.image_encoder))

        loaded = hub.load(config.model.init, sharding=placed, image_size=sam.image_size).params
        return grown_params(config.tune, sam, loaded, functools.partial(fresh_params, config, sam, mesh))
    params = fresh_params(config, sam, mesh)
    return params if config.model.mae is None else load_mae(config.model.mae, sam, params)


def open_data(config: TrainConfig, sam: SamConfig) -> dict[str, Joined | Spread]:
    """The sources of "data.train" and, where the recipe names data for them, of the other options.

    Raises ValueError and OSError.
    """
    data, channels = config.data, sam.channels
    if channels != 3 and any((data.brightness, data.contrast, data.saturation, data.hue)):
        raise ValueError(
            f"data.brightness, contrast, saturation and hue change red, green and blue, and the model takes {channels} "
            "channels: leave them at 0"
        )
    if not data.train:
        raise ValueError("data.train names no data: give it as --data.train FORMAT=PATH, e.g. sa1b=/data/sa1b")
    options = {"data.train": data.train, "data.val": data.val, "data.mix": data.mix, "eval.retain": config.eval.retain}
    sources: dict[str, Joined | Spread] = {}
    learnt: dict[str, Joined] = {}
    for name, specs in options.items():
        if specs:
            try:
                opened = open_sources(specs, channels=channels)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            sources[name] = Spread(opened, config.eval.retain_images) if name == "eval.retain" else opened
            if name in ("data.train", "data.mix"):
                learnt[name] = opened
    check_clicks(config.interaction, learnt)
    return sources


def pipelines(
    config: TrainConfig, sources: Mapping[str, Joined | Spread], sam: SamConfig, mesh: Mesh, out: Path
) -> tuple[Pipeline, Pipeline | None, Pipeline | None]:
    """The pipelines of training, and of validation on new and on old data where there is data for it."""
    run = config.run

    def reported(source: Joined | Spread, name: str) -> BadRecords:
        report = BadRecords(out / name, config.data.max_bad_share)
        if jax.process_index() == 0:
            report.add_known(source.flawed, source.left_out)
        return report

    def pipeline(option: str, sam: SamConfig, name: str, batch: int, **options: Any) -> Pipeline:
        index, count = data_part(batch_sharding(mesh), batch)
        source, whose = sources[option], {"process_index": index, "process_count": count}
        report = reported(source, name)
        return Pipeline(config.data, source, sam, batch=batch, seed=run.seed, report=report, **whose, **options)

    def measured(option: str, name: str, images: int) -> Pipeline | None:
        if option not in sources:
            return None
        return pipeline(option, sam, name, run.batch // run.accumulate, validation_images=images)

    mixed = sources.get("data.mix")
    old = None if mixed is None else OldData(mixed, reported(mixed, run_folder.BAD_MIXED))
    seen = seen_in_training(config, sam)
    shown = {"old": old, "views": views(config, sam), "clicks": config.interaction.recorded_share > 0}
    training = pipeline("data.train", seen, run_folder.BAD_TRAINING, run.batch, **shown)
    validation = measured("data.val", run_folder.BAD_VALIDATION, run.validation_images)
    return training, validation, measured("eval.retain", run_folder.BAD_RETAINED, config.eval.retain_images)
