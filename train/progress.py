"""The bar on the terminal: loss terms, images a second, step time, wait for data, MFU where it is known."""

import time
from collections.abc import Mapping
from types import TracebackType

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from samjax.config import SamConfig

from .config import TrainConfig
from .flops import peak_flops, step_flops, utilisation

_SHOWN = ("loss", "focal", "dice", "iou_error", "iou_last")  # of what is logged


class Progress:
    """A bar of steps, shown by the first process only; every process may call it. A context manager.

    Steps are dispatched asynchronously, so the time between two calls of `step`, each made when the numbers of one
    more step are there, is what a step takes. The first one compiles and is not counted.

    Args:
        config: of the run.
        sam: the network that it trains.
        mesh: what it trains on.
        done: steps after which the run goes on.
        trains_encoder: whether the image encoder has a backward pass.
    """

    def __init__(self, config: TrainConfig, sam: SamConfig, mesh: Mesh, done: int, trains_encoder: bool) -> None:
        self._config, self._sam, self._trains_encoder = config, sam, trains_encoder
        self._devices = mesh.size
        self._peak = peak_flops(mesh.devices.flat[0].device_kind, config.run.compute_dtype)
        first = jax.process_index() == 0
        self._bar = tqdm(total=config.run.steps, initial=done, unit="step", disable=not first, dynamic_ncols=True)
        self._compiled = False
        self._count, self._seconds, self._waited = 0, 0.0, 0.0
        self._last = time.perf_counter()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, waited: float) -> None:
        """The numbers of one more step are there; the loop waited `waited` seconds for its batch."""
        now = time.perf_counter()
        if self._compiled:
            self._count += 1
            self._seconds += now - self._last
            self._waited += waited
        self._compiled, self._last = True, now
        self._bar.update()

    def restart_clock(self) -> None:
        """What was done since the last `step` (validation, pictures, checkpoints) is not part of the next one."""
        self._last = time.perf_counter()

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
            flops = step_flops(
                self._sam,
                images=images,
                masks=masks / images,
                passes=self._config.interaction.passes,
                prompt_tokens=2 + self._config.interaction.corrections,
                trains_encoder=self._trains_encoder,
            )
            values["mfu"] = utilisation(flops, seconds, self._devices, self._peak)
        return values

    def show(self, values: Mapping[str, float]) -> None:
        """Writes loss terms and speed, of those that are there, beside the bar."""
        shown = {name: f"{values[name]:.4g}" for name in _SHOWN if name in values}
        if "step_seconds" in values:
            shown["img/s"] = f"{values['images_per_second']:.3g}"
            shown["step"] = f"{values['step_seconds']:.3g}s"
            shown["wait"] = f"{values['data_wait_seconds']:.2g}s"
        if "mfu" in values:
            shown["MFU"] = f"{100 * values['mfu']:.1f}%"
        self._bar.set_postfix(shown)

    def message(self, text: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(text)
