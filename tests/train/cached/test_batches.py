"""Features of photos that are kept: the same numbers as without, computed once, never those of something else."""

import dataclasses

import jax
import numpy as np
import pytest
from example_models import random_params
from example_training import NANO, PICO, nano_batch

from samjax.sharding import make_mesh
from samjax.train.cached import plan
from samjax.train.cached.batches import FeatureCache
from samjax.train.cached.plan import make_plan
from samjax.train.config import (
    CacheConfig,
    DataConfig,
    InteractionConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    TuneConfig,
)

THIN = dataclasses.replace(NANO, mask_decoder=PICO.mask_decoder)  # two blocks of the encoder, one layer of the decoder


def recipe(tune=None, cache=None, **run):
    return TrainConfig(
        tune=tune or TuneConfig(mode="decoder"),
        cache=cache or CacheConfig(features="memory"),
        interaction=InteractionConfig(corrections=1, refinements=0),
        run=RunConfig(**{"steps": 100, "batch": 4, "images_together": 2, "masks_together": 2, **run}),
    )


def cache_of(config, params, tmp_path, sam=THIN, photos=4):
    kept, _ = make_plan(config, sam, photos, 0)
    return FeatureCache(kept, config, sam, make_mesh(devices=jax.devices()[:1]), params, tmp_path)


def losses(config, params, steps, cached=None):
    """Of steps on a batch in turn with another one."""
    from samjax.train.optim import make_optimizer
    from samjax.train.state import init_state
    from samjax.train.step import make_step

    mesh = make_mesh(devices=jax.devices()[:1])
    optimizer = make_optimizer(config.optim, THIN, 100)
    state, step = init_state(config, THIN, params, optimizer, mesh), make_step(config, THIN, optimizer, mesh)
    found = []
    for number in range(steps):
        batch = nano_batch(4, seed=number % 2)
        if cached is not None:
            batch = cached.attach(batch, keep_images=False)
            assert batch.image.size == 0
        state, metrics = step(state, batch)
        found.append(float(metrics["loss"]))
    return found


@pytest.mark.parametrize(
    ("tune", "accumulate"),
    [
        pytest.param(TuneConfig(mode="decoder"), 2, marks=pytest.mark.heavy),
        pytest.param(TuneConfig(mode="parser+decoder"), 1, marks=pytest.mark.heavy),
        pytest.param(TuneConfig(mode="parser"), 1, marks=pytest.mark.heavy),
        pytest.param(TuneConfig(mode="last_blocks", last=1), 1, marks=pytest.mark.heavy),
        (TuneConfig(mode="lora", late=1, targets=("qkv",)), 1),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_losses_are_those_without(tune, accumulate, tmp_path):
    params, config = random_params(THIN), recipe(tune, accumulate=accumulate)
    cache = cache_of(config, params, tmp_path)
    with_cache = losses(config, params, 10, cache)
    np.testing.assert_allclose(with_cache, losses(config, params, 10), rtol=1e-5)
    assert len(set(with_cache)) == 10
    assert cache.encoded == 8  # each photo once


def test_a_validation_is_the_one_without(tmp_path):
    from samjax.execution import Execution
    from samjax.train.tasks.interactive.validation import validate

    params, batch = random_params(THIN), nano_batch(3)
    for tune in (TuneConfig(mode="decoder"), TuneConfig(mode="parser")):
        cache = cache_of(recipe(tune), params, tmp_path)
        assert np.array_equal(cache.attach(batch, keep_images=True).image, batch.image)
        given = [cache.attach(batch, keep_images=False, measured=True)]
        with_cache, without = (validate(THIN, params, batches, Execution(), (1, 2)) for batches in (given, [batch]))
        assert with_cache == pytest.approx(without, abs=1e-6)


def test_what_is_on_disk_serves_another_run_from_the_same_weights_alone(tmp_path):
    params, batch = random_params(THIN), nano_batch(4)
    config = recipe(cache=CacheConfig(features="disk"))
    first = cache_of(config, params, tmp_path)
    stored = first.attach(batch, keep_images=False).stored["image"]
    again = cache_of(config, params, tmp_path)
    assert np.array_equal(again.attach(batch, keep_images=False).stored["image"], stored)
    assert (first.encoded, again.encoded) == (4, 0)

    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 4
    cut, flipped = files[0].read_bytes()[:-9], bytearray(files[1].read_bytes())
    flipped[-5] ^= 1
    files[0].write_bytes(cut)
    files[1].write_bytes(flipped)
    mended = cache_of(config, params, tmp_path)
    assert np.array_equal(mended.attach(batch, keep_images=False).stored["image"], stored)
    assert mended.encoded == 2

    decoder = {**params, "mask_decoder": jax.tree.map(lambda leaf: leaf + 1, params["mask_decoder"])}
    other = {**params, "image_encoder": jax.tree.map(lambda leaf: leaf * 1.01, params["image_encoder"])}
    half = dataclasses.replace(config, cache=CacheConfig(features="disk", dtype="bfloat16"))
    for how, weights, encoded in ((config, decoder, 0), (config, other, 4), (half, params, 4)):
        cache = cache_of(how, weights, tmp_path)
        cache.attach(batch, keep_images=False)
        assert cache.encoded == encoded


def test_parameters_leave_the_devices_once_all_photos_are_kept_and_serve_others_still(tmp_path):
    params, batch = random_params(THIN), nano_batch(4)
    cache, roomy = (cache_of(recipe(), params, tmp_path, photos=photos) for photos in (4, 5))
    for one in (cache, roomy):
        one.attach(batch, keep_images=False)
    assert {type(leaf) for leaf in cache._params.values()} == {np.ndarray}
    assert np.ndarray not in {type(leaf) for leaf in roomy._params.values()}
    other = nano_batch(4, seed=1)
    found, expected = (one.attach(other, keep_images=False).stored["image"] for one in (cache, roomy))
    assert np.array_equal(found, expected)


def test_a_photo_is_known_by_its_pixels_and_its_size(tmp_path):
    batch = nano_batch(4)
    cache = cache_of(recipe(), random_params(THIN), tmp_path)
    cache.attach(batch, keep_images=False)
    brighter, narrower = np.array(batch.image), np.array(batch.size)
    brighter[0, 0, 0] += 1
    cache.attach(dataclasses.replace(batch, image=brighter), keep_images=False)
    assert cache.encoded == 5
    narrower[1] -= 1
    cache.attach(dataclasses.replace(batch, size=narrower), keep_images=False)
    assert cache.encoded == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tune": TuneConfig(mode="full")}, "tune.mode full trains the image encoder from its first layer on"),
        ({"model": ModelConfig(window=24)}, "another window of a photo each time"),
        ({"run": RunConfig(drop_path=0.1)}, "paths are dropped"),
        ({"data": DataConfig(flip=0.5)}, "augmented anew each time; --cache.views"),
        ({"data": DataConfig(hue=0.1)}, "augmented anew"),
    ],
)
def test_what_cannot_be_kept_is_refused_or_computed_at_each_step(change, said):
    config = dataclasses.replace(recipe(), **change)
    with pytest.raises(ValueError, match=f"cache.features memory keeps nothing here: .*{said}"):
        make_plan(config, THIN, 4, 0)
    auto = dataclasses.replace(config, cache=CacheConfig())
    kept, reason = make_plan(auto, THIN, 4, 0)
    assert kept is None
    assert said in reason
    assert make_plan(dataclasses.replace(config, cache=CacheConfig(features="off")), THIN, 4, 0) == (None, "")


def test_the_budget_is_that_of_all_views_and_of_validation():
    photo = 4 * 4 * 32 * 4  # of the features, bytes
    cache = CacheConfig(features="memory", views=3, budget_gb=14 * photo / 1e9)
    full, said = make_plan(dataclasses.replace(recipe(cache=cache), data=DataConfig(flip=0.5)), THIN, 4, 2)
    assert (full.photos, full.photo_bytes) == (14, photo)
    assert "kept in memory: 4 photos x 3 views + 2 for validation, 0.0 MB each in float32, 0.00 GB" in said
    with pytest.raises(
        ValueError, match=r"4 photos x 3 views \+ 3 for validation, 0\.0 MB each in float32, take"
    ) as error:
        make_plan(recipe(cache=cache), THIN, 4, 3)
    ways = "--cache.dtype bfloat16 halves them, fewer --cache.views take less, --cache.budget-gb allows more"
    assert str(error.value).endswith(f"and cache.budget_gb is {14 * photo / 1e9:g}; {ways}")
    with pytest.raises(ValueError, match=r"nothing here: 5 photos, 0\.0 MB each in bfloat16, .*; --cache\.budget-gb"):
        make_plan(recipe(cache=CacheConfig(features="memory", dtype="bfloat16", budget_gb=1e-9)), THIN, 5, 0)
    half, said = make_plan(recipe(cache=dataclasses.replace(cache, dtype="bfloat16")), THIN, 4, 3)
    assert half.total_bytes == 4 * 3 * photo // 2 + 3 * photo
    assert "0.0 MB each in bfloat16 and for validation 0.0 MB in float32" in said


def test_what_auto_leaves_is_said_with_the_options_that_keep_it(monkeypatch):
    monkeypatch.setattr(plan, "physical_memory", lambda: 8)
    kept, reason = make_plan(recipe(cache=CacheConfig()), THIN, 4, 0)
    assert kept is None
    assert reason.endswith("an eighth of the machine's memory at most; --cache.features memory or disk keeps them")


@pytest.mark.parametrize(
    ("tune", "change", "count"),
    [
        (TuneConfig(mode="decoder"), {}, 8),
        (TuneConfig(mode="lora", late=1), {}, 8),
        (TuneConfig(mode="decoder"), {"cache": CacheConfig(features="off", views=8)}, 8),  # as a run with them
        (TuneConfig(mode="lora"), {}, 0),
        (TuneConfig(mode="lora+decoder"), {}, 0),
        (TuneConfig(mode="full"), {}, 0),
        (TuneConfig(mode="decoder"), {"run": RunConfig(drop_path=0.1)}, 0),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_photos_have_fixed_views_only_where_features_can_be_kept(tune, change, count):
    config = recipe(tune, CacheConfig(views=8))
    assert plan.views(dataclasses.replace(config, **change), THIN) == count


def test_features_for_validation_are_not_rounded(tmp_path):
    params, batch = random_params(THIN), nano_batch(4)
    exact = cache_of(recipe(), params, tmp_path).attach(batch, keep_images=False).stored["image"]
    for features in ("memory", "disk"):
        cache = cache_of(recipe(cache=CacheConfig(features=features, dtype="bfloat16")), params, tmp_path)
        trained = cache.attach(batch, keep_images=False).stored["image"]
        measured = cache.attach(batch, keep_images=False, measured=True).stored["image"]
        assert (str(trained.dtype), cache.encoded) == ("bfloat16", 8)
        np.testing.assert_array_equal(measured, exact, strict=True)
