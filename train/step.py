"""One training step as one program on a mesh: the gradient of a task's loss in what is trained, and one update."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float32

from samjax.config import EncoderConfig, SamConfig
from samjax.sharding import batch_sharding, shardings
from samjax.types import Params

from .batch import Batch
from .config import TrainConfig
from .optim import optax_numerics
from .state import TrainState, abstract_state, ema_decay
from .tasks import Task, make_task
from .trainable import Trainable, make_trainable

Metrics = dict[str, Any]
StepFunction = Callable[..., tuple[TrainState, Metrics]]  # of state, batch, and the position in the schedules


def make_step(config: TrainConfig, sam: SamConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> StepFunction:
    """The jitted step. It consumes the state (its buffers are reused) and gives the next one with the step's metrics.

    The task's loss, a sum over masks, is divided by their number in the whole batch, wherever on the mesh and in
    whichever piece of an accumulated batch they are. If loss or gradient is not finite the state stays as it
    was, and `metrics["finite"]` is False. A third argument is the position in the schedules, out of `run.steps`;
    without it, that is the number of updates done. Metrics: "loss", "gradient_norm" (of what is trained), "masks"
    (their number), "finite", and "terms", the task's own as means over masks.
    """
    # Written exactly as the first state's: the second step would otherwise be another program, compiled again.
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, sam, optimizer, mesh))
    task, trainable = make_task(config, sam, mesh), make_trainable(config, sam)
    # A method, whose name the compiled program has.
    step = _Step(config, task, trainable, optimizer, mesh, sam.image_encoder).step
    return jax.jit(step, donate_argnums=0, out_shardings=(placed, NamedSharding(mesh, P())))


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """The step as a function, with what does not change from step to step."""

    config: TrainConfig
    task: Task
    trainable: Trainable
    optimizer: optax.GradientTransformation
    mesh: Mesh
    encoder: EncoderConfig

    def step(
        self, state: TrainState, batch: Batch, position: Float32[Array, ""] | None = None
    ) -> tuple[TrainState, Metrics]:
        now = jnp.asarray(state.step if position is None else position)
        gradient, loss, terms = self._sum(state, batch, now)
        masks = self.task.count(batch)
        share = 1 / jnp.maximum(masks, 1).astype(jnp.float32)
        gradient, loss, terms = jax.tree.map(lambda leaf: leaf * share, (gradient, loss, terms))
        gradient = lax.with_sharding_constraint(gradient, shardings(gradient, self.mesh, self.encoder))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        updated = self._update(state, gradient, position, finite)
        return updated, {"loss": loss, "gradient_norm": norm, "masks": masks, "finite": finite, "terms": terms}

    def _sum(self, state: TrainState, batch: Batch, now: Array) -> tuple[Params, Float32[Array, ""], Any]:
        """Gradient, loss and terms, summed over the masks of the whole batch, one piece after the other."""
        pieces = _pieces(batch, self.config.run.accumulate, self.mesh)
        key = jax.random.wrap_key_data(jnp.asarray(state.key))

        def of_piece(piece: Batch) -> tuple[Params, Float32[Array, ""], Any]:
            def loss(trained):
                return self.task.loss(self.trainable.merge(state.frozen, trained), piece, key, now)

            (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
            return gradient, total, terms

        first = jax.tree.map(lambda x: x[0], pieces)
        if self.config.run.accumulate == 1:
            return of_piece(first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_piece, first))
        return lax.scan(lambda sums, piece: (jax.tree.map(jnp.add, sums, of_piece(piece)), None), zeros, pieces)[0]

    def _update(
        self, state: TrainState, gradient: Params, position: Float32[Array, ""] | None, finite: Bool[Array, ""]
    ) -> TrainState:
        """The next state; the same one if loss or gradient is not finite."""
        with optax_numerics():
            told = {} if position is None else {"position": position}
            updates, opt_state = self.optimizer.update(gradient, state.opt_state, state.params, **told)
        params = optax.apply_updates(state.params, updates)
        decay, average = self.config.optim.ema, None
        if decay is not None:
            average = optax.incremental_update(params, state.ema, 1 - ema_decay(decay, state.step))
        updated = dataclasses.replace(
            state, step=state.step + 1, params=params, opt_state=opt_state, ema=average, frozen={}
        )
        before = dataclasses.replace(state, frozen={})
        chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, before)
        return dataclasses.replace(chosen, frozen=state.frozen)


def _pieces(batch: Batch, count: int, mesh: Mesh) -> Batch:
    """(B, ...) as (count, B / count, ...). Piece i has every count-th image, so that each stays on its device."""
    spread = NamedSharding(mesh, P(None, *batch_sharding(mesh).spec))

    def cut(x):
        rows = x.reshape(x.shape[0] // count, count, *x.shape[1:])
        return lax.with_sharding_constraint(rows.swapaxes(0, 1), spread)

    return jax.tree.map(cut, batch)
