"""Trains the model of `shapes.npz`: `PYTHONPATH=tests python tests/models/train_shapes.py` (half an hour).

It segments what it is asked for in pictures of `example_models.shapes_photo`, so that tests of mask generation have
masks that mean something. Not a recipe: one point a prompt, no refinement, no augmentation.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from example_models import SHAPES, shapes_photo
from flax.traverse_util import flatten_dict

from samjax import Execution, Sam, transforms
from samjax.amg.program import point_prompts
from samjax.model import decode, encode
from samjax.ops.batching import map_batch
from samjax.types import Embedding

STEPS, BATCH, PROMPTS, RATE = 4000, 4, 6, 2e-3
EXECUTION = Execution()


def example(random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, PROMPTS points and their masks at low resolution."""
    side = SHAPES.image_size[0]
    photo, masks = shapes_photo(side, side, random.randint(2**31))
    points, targets = [], []
    for _ in range(PROMPTS):
        while True:
            x, y = random.randint(0, side, 2)
            hit = next((mask for mask in masks[::-1] if mask[y, x]), None)
            if hit is not None:
                break
        points.append((x, y))
        step = side // SHAPES.mask_size[0]
        targets.append(hit.reshape(side // step, step, side // step, step).mean((1, 3)) > 0.5)
    return transforms.to_pixels(photo, SHAPES), np.array(points, np.float32), np.array(targets)


def loss(params, pixels, points, targets):
    side = jnp.array(SHAPES.image_size)

    def of_image(features, points, targets):
        prediction = decode(
            SHAPES, params, Embedding(features, side, side), point_prompts(points), EXECUTION, multimask=True
        )
        logits, target = prediction.logits, targets[:, None].astype(jnp.float32)
        probability = jax.nn.sigmoid(logits)
        cross = optax.sigmoid_binary_cross_entropy(logits, target)
        hit = jnp.where(target == 1, probability, 1 - probability)
        focal = ((1 - hit) ** 2 * cross).mean((2, 3))
        overlap = (probability * target).sum((2, 3))
        dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
        both = ((logits > 0) & (target == 1)).sum((2, 3))
        iou = both / jnp.maximum(((logits > 0) | (target == 1)).sum((2, 3)), 1)
        return (20 * focal + dice).min(1).mean() + ((prediction.iou - iou) ** 2).mean(), iou.max(1).mean()

    features = encode(SHAPES, params, pixels, EXECUTION).image
    losses, iou = map_batch(of_image, features, points, targets, together=None)
    return losses.mean(), iou.mean()


def main() -> None:
    random = np.random.RandomState(0)
    params = Sam.init(SHAPES, jax.random.key(0)).params
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, 200, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, *batch):
        (value, iou), gradient = jax.value_and_grad(loss, has_aux=True)(params, *batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value, iou

    for number in range(STEPS):
        batch = [np.stack(column) for column in zip(*(example(random) for _ in range(BATCH)), strict=True)]
        params, state, value, iou = step(params, state, *batch)
        if number % 100 == 0:
            print(number, float(value), float(iou), flush=True)
    arrays = {name: np.asarray(leaf, np.float16) for name, leaf in flatten_dict(params, sep="/").items()}
    np.savez_compressed(Path(__file__).parent / "shapes.npz", **arrays)


if __name__ == "__main__":
    main()
