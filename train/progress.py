"""The bar on the terminal: loss terms, images a second, step time, wait for data, MFU. And the same as metrics."""

import dataclasses
import time
from collections.abc import Mapping
from types import TracebackType

import jax
from tqdm import tqdm

from .flops import utilisation


@dataclasses.dataclass(frozen=True)
class Pace:
    """Means over the steps since the last report."""

    seconds: float  # of a step, with everything that the loop does beside it
    wait: float  # seconds of it in which the loop waited for data
    images_per_second: float  # on all devices together
    mfu: float  # model FLOP utilisation, 0 to 1

    def metrics(self) -> dict[str, float]:
        """As `MetricWriters.write` takes it."""
        return {
            "pace/step_seconds": self.seconds,
            "pace/data_wait_seconds": self.wait,
            "pace/images_per_second": self.images_per_second,
            "pace/mfu": self.mfu,
        }


class Progress:
    """A bar of steps, shown by the first process only; every process may call it. A context manager.

    Steps are dispatched asynchronously, so only the time between two reports for whose values the loop has waited tells
    how long steps take.

    Args:
        steps: of the whole run.
        done: steps at which the run goes on.
        images: of one step, on all devices together.
        flops: of one step, on all devices together (`samjax.train.flops.step_flops`).
        peak: FLOP/s of one device (`samjax.train.flops.peak_flops`).
        devices: how many share a step.
        show: False: no bar, only the numbers.
    """

    def __init__(
        self, steps: int, done: int, *, images: int, flops: int, peak: float, devices: int, show: bool = True
    ) -> None:
        self._images, self._flops, self._peak, self._devices = images, flops, peak, devices
        hidden = not show or jax.process_index() != 0
        self._bar = tqdm(total=steps, initial=done, unit="step", disable=hidden, dynamic_ncols=True)
        self._reset()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, wait: float) -> None:
        """One more step was dispatched, for whose batch the loop waited `wait` seconds."""
        self._steps += 1
        self._wait += wait
        self._bar.update()

    def pause(self) -> "Pause":
        """A `with` block whose time is not the steps': validation, pictures, compilation."""
        return Pause(self)

    def report(self, losses: Mapping[str, float]) -> Pace:
        """Shows loss terms, and gives the pace since the last report; call it with values that were waited for."""
        elapsed = time.perf_counter() - self._start - self._paused
        steps = max(self._steps, 1)
        seconds = max(elapsed, 1e-9) / steps
        mfu = utilisation(self._flops, seconds, self._devices, self._peak)
        pace = Pace(seconds, self._wait / steps, self._images / seconds, mfu)
        shown = {name: f"{value:.4g}" for name, value in losses.items()}
        shown |= {"img/s": f"{pace.images_per_second:.3g}", "step": f"{pace.seconds:.3g}s", "wait": f"{pace.wait:.2g}s"}
        self._bar.set_postfix({**shown, "MFU": f"{100 * pace.mfu:.1f}%"})
        self._reset()
        return pace

    def message(self, text: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(text)

    def _reset(self) -> None:
        self._start = time.perf_counter()
        self._steps, self._wait, self._paused = 0, 0.0, 0.0


class Pause:
    """See `Progress.pause`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._progress._paused += time.perf_counter() - self._start
