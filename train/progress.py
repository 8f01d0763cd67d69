"""Messages of a run: what it compiles, loss terms, speed, and how long the rest will take.

On a terminal the steps are a bar. Elsewhere (the log of a cluster's job) each log of the run is a line with the time of
day, and nothing is overwritten. All of it goes to standard error, from the first process only.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from .config import TrainConfig
from .flops import peak_flops, utilisation
from .pace import Pace

_SHOWN = ("loss", "focal", "dice", "iou_error", "iou_last")  # of what is logged
_STEADY = 5  # steps after which their mean tells what the rest takes
_MEMORY = 50  # steps over which that mean is taken, the older ones counting less


class Progress:
    """The console of a run; every process may call it. A context manager.

    Steps are dispatched asynchronously, so the time between two calls of `step`, each made when the numbers of one
    more step are there, is what a step takes. The first one compiles and is not counted.

    Args:
        config: of the run.
        mesh: what it trains on.
        done: steps after which the run resumes.
        step_flops: operations of a step with so many valid masks.
        pace: when it ends.
    """

    def __init__(
        self,
        config: TrainConfig,
        mesh: Mesh,
        done: int,
        step_flops: Callable[[float], int],
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace or Pace(config.run)
        self._config, self._step_flops = config, step_flops
        self._devices = mesh.size
        self._peak = peak_flops(mesh.devices.flat[0].device_kind, config.run.compute_dtype)
        self._shown = jax.process_index() == 0
        self._terminal = self._shown and sys.stderr.isatty()
        self._bar: _Bar | None = None
        self._done = done
        self._begun = self._told = False
        self._count, self._seconds, self._waited = 0, 0.0, 0.0  # since `speed` was asked last
        self._timed, self._step_seconds = 0, 0.0  # steps that were timed, and their mean
        self._asides: dict[str, float] = {}  # seconds that each kind of aside took last
        self._compiling = 0.0  # seconds, of all that was compiled
        self._last = time.perf_counter()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, waited: float) -> None:
        """The numbers of one more step are there; the loop waited `waited` seconds for its batch."""
        now = time.perf_counter()
        if self._begun:
            seconds = now - self._last
            self._count += 1
            self._seconds += seconds
            self._waited += waited
            self._timed += 1
            self._step_seconds += (seconds - self._step_seconds) / min(self._timed, _MEMORY)
        self._begun, self._last = True, now
        self._done += 1
        if self._terminal and self._bar is None:  # only now: its clock runs from here
            self._bar = _Bar(total=self._steps, initial=self._done - 1, unit="step", dynamic_ncols=True)
        left = self.seconds_left()
        if self._bar is not None:
            self._bar.left = "?" if left is None else tqdm.format_interval(left)
            self._bar.update()
        if left is not None and not self._told and self._steps is not None and self._done < self._steps:
            self._told = True
            steps = self._steps - self._done
            self.message(f"the other {steps:,} steps take about {_duration(left)}{self._named_asides()}")

    @property
    def _steps(self) -> int | None:
        """The number of all steps; None: the clock ends the run."""
        return None if self._pace.is_timed else self._config.run.steps

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """Says that something is compiled, and how long it took; what else the block does is counted with it."""
        self.message(f"compiling {what} ...")
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._compiling += seconds
        self.message(f"compiled {what} in {_duration(seconds)}")

    @contextlib.contextmanager
    def aside(self, kind: str) -> Iterator[None]:
        """Times work between steps: "validation", "picture" or "checkpoint". It tells how long others of its kind will
        take; what is compiled in it is not counted."""
        start, compiled = time.perf_counter(), self._compiling
        yield
        self._asides[kind] = time.perf_counter() - start - (self._compiling - compiled)

    def restart_clock(self) -> None:
        """Leaves out of the next step what was done since the last one (logging, asides)."""
        self._last = time.perf_counter()

    def seconds_left(self) -> float | None:
        """Seconds that the rest of the run takes, validations, pictures and checkpoints included, as far as one of them
        has been seen. None until steps are steady."""
        if self._steps is None:
            return self._pace.seconds_left
        if self._timed < _STEADY:
            return None
        asides = sum(self._asides.get(kind, 0.0) * count for kind, count in self._asides_left().items())
        return (self._steps - self._done) * self._step_seconds + asides

    def speed(self, masks: float | None) -> dict[str, float]:
        """Means over the steps since the last call; {} where there was none.

        "step_seconds", and "data_wait_seconds" of it; "images_per_second" of all devices together; "mfu", model FLOP
        utilisation, 0 to 1, where it is known how many `masks` of a step are valid and what the devices can do.
        """
        if not self._count:
            return {}
        seconds, waited = max(self._seconds, 1e-9) / self._count, self._waited / self._count
        self._count, self._seconds, self._waited = 0, 0.0, 0.0
        images = self._config.run.batch
        values = {"step_seconds": seconds, "data_wait_seconds": waited, "images_per_second": images / seconds}
        if masks is not None and self._peak is not None:
            values["mfu"] = utilisation(self._step_flops(masks), seconds, self._devices, self._peak)
        return values

    def show(self, values: Mapping[str, float]) -> None:
        """Shows loss terms and speed, of those that are there: beside the bar, or as a line."""
        shown = {name: f"{values[name]:.4g}" for name in _SHOWN if name in values}
        if "step_seconds" in values:
            shown["img/s"] = f"{values['images_per_second']:.3g}"
            shown["step"] = f"{values['step_seconds']:.3g}s"
            shown["wait"] = f"{values['data_wait_seconds']:.2g}s"
        if "mfu" in values:
            shown["MFU"] = f"{100 * values['mfu']:.1f}%"
        if self._bar is not None:
            self._bar.set_postfix(shown)
        elif not self._terminal:
            left = self.seconds_left()
            if left is not None:
                shown["left"] = tqdm.format_interval(left)
            words = ", ".join(f"{name}={value}" for name, value in shown.items())
            self.message(f"step {self._done}{'' if self._steps is None else f'/{self._steps}'}: {words}")

    def message(self, text: str) -> None:
        """A line, above the bar if there is one."""
        if self._shown:
            stamp = "" if self._terminal else time.strftime("%Y-%m-%d %H:%M:%S ")
            tqdm.write(f"{stamp}{text}", file=sys.stderr)
            sys.stderr.flush()

    def over(self, items: Any, what: str, total: int) -> Iterator[Any]:
        """The items, with a bar of their own on a terminal while they are gone through."""
        with tqdm(total=total, desc=what, unit="batch", leave=False, disable=not self._terminal) as bar:
            for item in items:
                yield item
                bar.update()

    def _asides_left(self) -> dict[str, int]:
        run, done = self._config.run, self._done

        def due(every: int) -> int:
            """The number of multiples of `every`, and the last step, that are still to come."""
            return 0 if done >= run.steps else run.steps // every - done // every + bool(run.steps % every)

        measured = self._config.data.val or self._config.eval.retain
        validations = due(run.validate_every) if measured and run.validate_minutes is None else 0
        pictures = due(run.picture_every) if measured else 0
        return {"validation": validations, "picture": pictures, "checkpoint": due(run.checkpoint_every)}

    def _named_asides(self) -> str:
        """The asides whose time is known."""
        counts = {kind: count for kind, count in self._asides_left().items() if count and kind in self._asides}
        named = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items()]
        return f", with {' and '.join(named)}" if named else ""


class _Bar(tqdm):
    """A bar whose estimate is ours: tqdm's counts what lies between steps as if each step had it."""

    left = "?"

    def __init__(self, **kwargs: Any) -> None:
        shape = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}" if kwargs["total"] else "{n_fmt} steps"
        super().__init__(bar_format=shape + " [{elapsed}<{left}{postfix}]", **kwargs)

    @property
    def format_dict(self) -> dict[str, Any]:
        return {**super().format_dict, "left": self.left}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.2g} s" if seconds < 10 else f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
