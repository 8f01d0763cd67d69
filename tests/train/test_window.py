"""Training may see a window of the model's input at a time; its positions are those of the whole."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax import encode
from samjax.config import PromptLabel
from samjax.execution import Execution
from samjax.nn.prompt_encoder import PromptEncoder
from samjax.types import Perturbation

PIXELS, TOKENS = 48, 6  # two attention windows of three tokens
ORIGIN = (24, 72)  # (x, y) in pixels
AT_ORIGIN = Perturbation(origin=jnp.array(ORIGIN))
CONFIG = SMALL.with_image_size((144, 96))
PARAMS = jax.tree.map(jnp.asarray, random_params(CONFIG))
PIXELS_SEEN = np.random.RandomState(0).standard_normal((PIXELS, PIXELS, 3)).astype(np.float32)


def test_a_window_is_encoded_as_by_a_model_that_has_the_windows_part_of_the_position_tables():
    encoder = dict(PARAMS["image_encoder"])
    column, row = (place // 8 for place in ORIGIN)
    encoder["pos_embed"] = encoder["pos_embed"][:, row : row + TOKENS, column : column + TOKENS]
    attention = dict(encoder["blocks"]["0"]["attn"])  # the global block; offsets of up to 5 tokens
    for name, side in (("rel_pos_h", 18), ("rel_pos_w", 12)):
        attention[name] = attention[name][side - TOKENS : side + TOKENS - 1]
    encoder["blocks"] = {**encoder["blocks"], "0": {**encoder["blocks"]["0"], "attn": attention}}
    config, params = CONFIG.with_image_size(PIXELS), {"image_encoder": encoder}
    small = encode(config, params, jnp.asarray(PIXELS_SEEN), Execution()).image
    seen = encode(CONFIG, PARAMS, jnp.asarray(PIXELS_SEEN), Execution(), perturbation=AT_ORIGIN).image
    np.testing.assert_allclose(seen, small, rtol=1e-5, atol=1e-5)


def test_without_global_attention_a_window_has_the_features_of_its_place_in_the_whole():
    config = dataclasses.replace(CONFIG, image_encoder=dataclasses.replace(CONFIG.image_encoder, global_blocks=()))
    params = jax.tree.map(jnp.asarray, random_params(config))
    whole = np.random.RandomState(1).standard_normal((*config.image_size, 3)).astype(np.float32)
    x, y = ORIGIN
    window = jnp.asarray(whole[y : y + PIXELS, x : x + PIXELS])
    seen = encode(config, params, window, Execution(), perturbation=AT_ORIGIN).image
    expected = encode(config, params, jnp.asarray(whole), Execution()).image
    expected = expected[y // 8 : y // 8 + TOKENS, x // 8 : x // 8 + TOKENS]
    inner = slice(1, -1)  # the neck's 3x3 convolution sees zeros beyond the window
    np.testing.assert_allclose(seen[inner, inner], expected[inner, inner], rtol=1e-4, atol=1e-5)


def test_prompts_and_cells_of_a_window_have_the_positions_of_the_whole():
    encoder = PromptEncoder(CONFIG, jnp.dtype(jnp.float32))
    variables = {"params": PARAMS["prompt_encoder"]}
    points = jnp.array([[3.0, 40.0], [0.0, 0.0], [47.0, 1.5], [9.0, 9.0]])
    labels = jnp.array([1, PromptLabel.NOT_A_POINT, 3, PromptLabel.ABSENT])
    origin = jnp.array(ORIGIN)
    seen = encoder.apply(variables, points, labels, origin, method="tokens")
    moved = encoder.apply(variables, points + jnp.array([ORIGIN], jnp.float32), labels, method="tokens")
    np.testing.assert_allclose(seen, moved, atol=1e-6)
    cells = encoder.apply(variables, (TOKENS, TOKENS), origin, method="grid_positions")
    whole = encoder.apply(variables, method="grid_positions")
    np.testing.assert_allclose(cells, whole[9:15, 3:9], atol=2e-5)


def test_pixels_of_another_size_are_no_window_unless_their_place_is_given():
    with pytest.raises(ValueError, match=r"pixels must be \(height, width\) \(144, 96\), got \(48, 48\)"):
        encode(CONFIG, PARAMS, jnp.asarray(PIXELS_SEEN), Execution())


def test_windows_lie_at_all_aligned_places_and_nowhere_else():
    from samjax.train.window import window_origins

    origins = np.asarray(window_origins(CONFIG, PIXELS, jax.random.split(jax.random.key(0), 300)))
    assert {tuple(origin) for origin in origins.tolist()} == {(x, y) for x in (0, 24, 48) for y in (0, 24, 48, 72, 96)}
    assert window_origins(CONFIG, None, jax.random.split(jax.random.key(0), 3)) is None


@pytest.mark.parametrize("side", [0, 20, 120])
def test_windows_that_would_cut_attention_windows_are_refused(side):
    from samjax.train.window import check_window

    with pytest.raises(ValueError, match=r"model.window must be a multiple of 24 .* at most the model's input"):
        check_window(side, CONFIG)
    check_window(48, CONFIG)


RUN = """
import dataclasses, json, os
from pathlib import Path
import jax
jax.config.update("jax_disable_most_optimizations", True)
from example_training import PICO, nano_recipe
from samjax.config import VARIANTS
from samjax.train import loop
from samjax.train.tasks.interactive import task
VARIANTS["pico"] = PICO
folder = Path(os.environ["FOLDER"])
recipe = nano_recipe(folder, steps=2, validate_every=2, batch=2, images_together=2, validation_images=2)
recipe = dataclasses.replace(
    recipe,
    model=dataclasses.replace(recipe.model, image_size=48, window=24),
    data=dataclasses.replace(recipe.data, val=recipe.data.train),
)
seen = []
make_step, validate = loop.make_step, task.validate
def noted(*args):
    inner = make_step(*args)
    def step(state, batch):
        seen.append(batch.image.shape)
        return inner(state, batch)
    return step
def validated(config, params, batches, execution):
    batches = list(batches)
    seen.extend(batch.image.shape for batch in batches)
    return validate(config, params, batches, execution)
loop.make_step, task.validate = noted, validated
outcome = loop.train(recipe, folder / "run")
print(json.dumps([seen, outcome.metrics["masks"]]))
"""


@pytest.mark.heavy
def test_a_run_sees_windows_and_is_validated_on_whole_inputs(run_python, root, tmp_path):
    printed = run_python(RUN, FOLDER=str(tmp_path), PYTHONPATH=str(root / "tests"))
    shapes, masks = json.loads(printed.splitlines()[-1])
    assert shapes == [[2, 48, 48, 3], *[[2, 24, 24, 3]] * 2, [2, 48, 48, 3]]
    assert masks > 0
