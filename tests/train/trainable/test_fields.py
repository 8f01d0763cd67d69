"""Modes that add a field to the configuration: what is new, what of it is trained, and what stays to the bit."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from example_models import SMALL, random_params, shapes_photo
from example_training import PICO, nano_batch
from flax.traverse_util import flatten_dict

from samjax.config import VARIANTS
from samjax.model import abstract_params

HQ = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")


def recipe(mode, **options):
    from samjax.train.config import InteractionConfig, RunConfig, TrainConfig, TuneConfig

    interaction = InteractionConfig(corrections=1, refinements=0, box_multimask=False)
    run = RunConfig(steps=100, batch=2, images_together=2, masks_together=2)
    return TrainConfig(interaction=interaction, run=run, tune=TuneConfig(mode=mode, **options))


def trained_shapes(config, base):
    from samjax.train.trainable import grown_network, make_trainable

    sam = grown_network(config.tune, base)
    trained, _ = jax.eval_shape(make_trainable(config, sam).split, abstract_params(sam))
    return flatten_dict(trained, sep="/")


@pytest.mark.parametrize(
    ("mode", "options", "variant", "count"),
    [
        ("adapter", {}, "vit_b", 12 * (2 * 64 * 768 + 64 + 768 + 1)),
        ("adapter", {"adapter": 8}, "vit_h", 32 * (2 * 8 * 1280 + 8 + 1280 + 1)),
        ("patch_embed", {"channels": 6}, "vit_b", 16 * 16 * 6 * 768 + 768),
        ("hq", {}, "vit_b", 1_071_104),
        ("hq", {}, "vit_l", 1_333_248),
        ("hq", {}, "vit_h", 1_595_392),
    ],
)
def test_as_many_numbers_are_trained_as_the_new_part_has(mode, options, variant, count):
    shapes = trained_shapes(recipe(mode, **options), VARIANTS[variant])
    assert sum(math.prod(leaf.shape) for leaf in shapes.values()) == count


def test_names_say_what_is_trained():
    names = {mode: set(trained_shapes(recipe(mode), SMALL)) for mode in ("adapter", "patch_embed", "hq")}
    assert {name.split("/")[3] for name in names["adapter"]} == {"adaptmlp"}
    assert names["patch_embed"] == {f"image_encoder/patch_embed/proj/{leaf}" for leaf in ("kernel", "bias")}
    assert {name.split("/")[1] for name in names["hq"]} == set(HQ)
    joined = set(trained_shapes(recipe("adapter+decoder"), SMALL))
    decoder = {name for name in joined if name.startswith("mask_decoder/")}
    assert decoder
    assert joined == names["adapter"] | decoder


def test_channels_that_the_model_has_not_seen_start_at_zero():
    from samjax.train.trainable import grown_network, grown_params

    tune, base = recipe("patch_embed", channels=5).tune, random_params(SMALL)
    sam = grown_network(tune, SMALL)
    grown = grown_params(tune, sam, base, lambda: jax.tree.map(jnp.asarray, random_params(sam, 1)))
    kernel = np.asarray(grown["image_encoder"]["patch_embed"]["proj"]["kernel"])
    np.testing.assert_array_equal(kernel[:, :, :3], base["image_encoder"]["patch_embed"]["proj"]["kernel"])
    assert not kernel[:, :, 3:].any()
    assert sam.channels == 5


@pytest.mark.parametrize(
    ("mode", "options", "network", "message"),
    [
        ("hq+decoder", {}, SMALL, "hq trains a token .* joins no other mode"),
        ("adapter", {}, {"adapter": 8}, "tune.adapter is 64, and the model has adapters of 8 already"),
        ("patch_embed", {}, {"channels": 5}, "tune.channels is 4, and the model takes 5 channels already"),
        ("decoder", {"channels": 5}, SMALL, "tune.channels is an option of patch_embed"),
    ],
)
def test_what_makes_no_sense_is_refused(mode, options, network, message):
    from samjax.train.trainable import grown_network

    if isinstance(network, dict):
        network = dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, **network))
    with pytest.raises(ValueError, match=message):
        grown_network(recipe(mode, **options).tune, network)


@pytest.fixture(scope="module")
def steps():
    """Two steps of plain gradient descent in a mode: the parameters before and after, and the metrics of each step."""
    from samjax.sharding import make_mesh
    from samjax.train.state import fresh_params, init_state
    from samjax.train.step import make_step
    from samjax.train.trainable import grown_network, make_trainable

    def run(mode, **options):
        config, mesh, descent = recipe(mode, **options), make_mesh(devices=jax.devices()[:1]), optax.sgd(0.05)
        sam = grown_network(config.tune, PICO)
        before = fresh_params(config, sam, mesh)
        kept = flatten_dict(jax.device_get(before), sep="/")
        state, step = init_state(config, sam, before, descent, mesh), make_step(config, sam, descent, mesh)
        batch = nano_batch(2)
        more = np.random.default_rng(0).integers(0, 256, (*batch.image.shape[:3], sam.channels - 3), np.uint8)
        batch = dataclasses.replace(batch, image=np.concatenate([batch.image, more], -1))
        metrics = []
        for _ in range(2):
            state, found = step(state, batch)
            metrics.append(jax.device_get(found))
        after = make_trainable(config, sam).merge(state.frozen, state.params)
        return kept, flatten_dict(jax.device_get(after), sep="/"), metrics

    return run


@pytest.mark.parametrize(
    ("mode", "options", "parts"),
    [
        pytest.param("hq", {}, HQ, id="hq"),
        pytest.param("adapter", {"adapter": 4}, ("adaptmlp",), id="adapter", marks=pytest.mark.heavy),
        pytest.param("patch_embed", {"channels": 5}, ("patch_embed",), id="patch_embed", marks=pytest.mark.heavy),
    ],
)
def test_steps_change_what_is_new_and_leave_all_else_to_the_bit(steps, mode, options, parts):
    before, after, metrics = steps(mode, **options)
    assert all(found["finite"] for found in metrics)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(any(part in name.split("/") for part in parts) for name in changed)
    if mode == "hq":
        assert {name.split("/")[1] for name in changed} == set(HQ)
        # A predicted IoU is SAM's, and no loss of the token's.
        terms = metrics[0]["terms"]
        np.testing.assert_allclose(terms.total, 20 * terms.focal + terms.dice, rtol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["hq", "patch_embed"])
def test_a_run_from_a_checkpoint_ends_in_an_export_that_differs_in_the_new_part_alone(mode, monkeypatch, tmp_path):
    """Photos are TIFF files: of four bands for patch_embed."""
    import tifffile
    from PIL import Image

    import samjax
    from samjax.convert import write
    from samjax.train import run_folder
    from samjax.train.config import DataConfig, ModelConfig, RunConfig
    from samjax.train.export import export
    from samjax.train.loop import train

    monkeypatch.setitem(VARIANTS, "pico", PICO)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        photo, masks = shapes_photo(48, 64, seed=number)
        bands = np.concatenate([photo, photo[:, :, :1]], 2) if mode == "patch_embed" else photo
        tifffile.imwrite(tmp_path / "photos" / f"{number}.tif", bands, photometric="rgb")
        Image.fromarray(masks[0].astype(np.uint8) * 255).save(tmp_path / "masks" / f"{number}.png")
    base = random_params(PICO)
    write(tmp_path / "base.pth", PICO, base)
    data = f"pairs={tmp_path / 'photos'},{tmp_path / 'masks'}"
    config = dataclasses.replace(
        recipe(mode),
        model=ModelConfig(init=str(tmp_path / "base.pth")),
        data=DataConfig(train=(data,), val=(data,), masks_per_image=2, min_area=4, threads=1),
        run=RunConfig(steps=2, batch=2, images_together=2, tensorboard=False, log_every=1, validation_images=2),
    )
    train(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "tuned.pth")
    tuned = samjax.load(tmp_path / "tuned.pth")
    after, before = flatten_dict(tuned.params, sep="/"), flatten_dict(base, sep="/")
    changed = {name for name in after if name not in before or not np.array_equal(before[name], after[name])}
    assert {name.split("/")[1] for name in changed} == (set(HQ) if mode == "hq" else {"patch_embed"})
    export(tmp_path / "run", tmp_path / "part.safetensors", tuned=True)
    applied = samjax.load(tmp_path / "base.pth", tuned=tmp_path / "part.safetensors")
    assert applied.config == run_folder.network(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, applied.params, tuned.params)
    found = tuned.config.mask_decoder.hq, tuned.config.channels
    assert found == ((True, 3) if mode == "hq" else (False, 4))
