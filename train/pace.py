"""The progress of a run: by its steps or, if it has been given minutes, by the clock."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from .config import RunConfig


class Pace:
    """The end of a run, its place in the schedules, and the times of its validations.

    The time of a run counts from the moment that this is made, compiling and validating included, and continues
    from where it was when the run is resumed. The schedules begin with the first step.

    Args:
        run: its settings; `run.minutes` makes it a timed run.
        clock: seconds from some moment on.
    """

    def __init__(self, run: RunConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._start = clock()
        self._first_step: float | None = None  # seconds of the run before it
        self._validated = 0.0

    @property
    def is_timed(self) -> bool:
        """True if minutes end the run, not a number of steps."""
        return self._run.minutes is not None

    @property
    def _length(self) -> float:
        """Seconds that a timed run takes."""
        assert self._run.minutes is not None
        return 60 * self._run.minutes

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken."""
        return self._clock() - self._start

    @property
    def seconds_left(self) -> float:
        """Seconds left of a timed run."""
        return max(self._length - self.seconds, 0.0)

    def position(self) -> np.float32 | None:
        """The position of a timed run's next step in schedules that are laid over `run.steps`: 0 at its first step,
        `run.steps` at its end. None for a run that counts steps."""
        if not self.is_timed:
            return None
        now = self.seconds
        if self._first_step is None:
            self._first_step = self._validated = now
        share = (now - self._first_step) / max(self._length - self._first_step, 1e-9)
        return np.float32(self._run.steps * min(share, 1.0))

    def is_over(self, step: int) -> bool:
        """True if `step` updates are all of the run."""
        return self.seconds_left == 0 if self.is_timed else step >= self._run.steps

    def wants_validation(self, step: int) -> bool:
        """True if a validation is due after `step` updates."""
        if self._run.validate_minutes is None:
            return step % self._run.validate_every == 0
        return self.seconds - self._validated >= 60 * self._run.validate_minutes

    def validated(self) -> None:
        """Notes a validation: the time to the next one counts from now."""
        self._validated = self.seconds

    def state(self) -> dict[str, float]:
        """The state for a checkpoint, as JSON takes it."""
        return {"seconds": self.seconds, "first_step": self._first_step or 0.0}

    def resume(self, state: Mapping[str, float]) -> None:
        """Continues from where `state` was called."""
        self._start -= state["seconds"]
        self._first_step, self._validated = state["first_step"], self.seconds
