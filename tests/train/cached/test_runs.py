"""Whole runs with kept features: the curve of a run without, however it is interrupted and on however many devices."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from example_training import NANO, PICO, nano_recipe

THIN = dataclasses.replace(NANO, mask_decoder=PICO.mask_decoder)

TWO_DEVICES = """
import sys
sys.path[:0] = ["tests", "tests/train/cached"]
import jax, numpy as np
from pathlib import Path
from example_models import random_params
from example_training import nano_batch
from test_batches import THIN, recipe
from samjax.sharding import batch_sharding, make_mesh
from samjax.train.cached.batches import FeatureCache
from samjax.train.cached.plan import make_plan
from samjax.train.config import TuneConfig
from samjax.train.optim import make_optimizer
from samjax.train.state import init_state
from samjax.train.step import make_step

jax.config.update("jax_numpy_dtype_promotion", "strict")
assert len(jax.devices()) == 2
config, params, found = recipe(TuneConfig(mode="last_blocks", last=1)), random_params(THIN), []
for devices in (1, 2):
    mesh = make_mesh(devices=jax.devices()[:devices])
    optimizer = make_optimizer(config.optim, THIN, 100)
    state, step = init_state(config, THIN, params, optimizer, mesh), make_step(config, THIN, optimizer, mesh)
    cache = FeatureCache(make_plan(config, THIN, 8, 0)[0], config, THIN, mesh, params, Path())
    losses = []
    for number in range(10):
        batch = nano_batch(4, seed=number % 2)
        batch = batch if devices == 1 else cache.attach(batch, keep_images=False)
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
        losses.append(float(metrics["loss"]))
    found.append(losses)
assert cache.encoded == 8
np.testing.assert_allclose(*found, rtol=1e-5)
print("agree")
"""


@pytest.mark.heavy
def test_on_two_devices_losses_are_those_of_one_without(root):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "agree", done.stderr[-3000:]


@pytest.fixture
def run(tmp_path, monkeypatch, quick_compilation):
    """Trains 8 steps of 4 of 6 photos; gives the losses and how many photos were encoded."""
    from samjax.config import VARIANTS
    from samjax.train import loop
    from samjax.train.config import CacheConfig, TuneConfig

    monkeypatch.setitem(VARIANTS, "thin", THIN)
    caches = []

    class Noted(loop.FeatureCache):
        def __init__(self, *args):
            super().__init__(*args)
            caches.append(self)
            self.measured_pixels = []

        def attach(self, batch, **how):
            attached = super().attach(batch, **how)
            if how.get("measured"):
                self.measured_pixels.append(attached.image.size)
            return attached

    monkeypatch.setattr(loop, "FeatureCache", Noted)

    def run(out, mode="decoder", *, brightness=0.0, dies_at=None, **cache):
        recipe = nano_recipe(tmp_path, cpu_devices=1, data_axis=1)
        val = recipe.data.train if cache.pop("val", False) else ()
        config = dataclasses.replace(
            recipe,
            model=dataclasses.replace(recipe.model, variant="thin"),
            data=dataclasses.replace(recipe.data, flip=0.0, brightness=brightness, val=val),
            tune=TuneConfig(mode=mode),
            cache=CacheConfig(**cache),
        )
        caches.clear()
        if dies_at is not None:
            logged = loop.Loop._log

            def dying(self, step, position):
                if step == dies_at:
                    raise KeyError("died")
                logged(self, step, position)

            with monkeypatch.context() as patch:
                patch.setattr(loop.Loop, "_log", dying)
                with pytest.raises(KeyError, match="died"):
                    loop.train(config, tmp_path / out)
        else:
            loop.train(config, tmp_path / out)
        lines = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
        run.scores = [line["val/iou"] for line in lines if "val/iou" in line]
        return losses, caches[-1].encoded if caches else None

    run.caches = caches
    return run


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["decoder", "parser"])
def test_a_run_has_the_losses_of_one_without_and_resumes_to_the_same(run, mode):
    without, encoded = run("without", mode, features="off")
    assert encoded is None
    kept, encoded = run("kept", mode, features="memory")
    assert encoded == 6
    assert kept.keys() == without.keys() == set(range(1, 9))
    np.testing.assert_allclose(list(kept.values()), list(without.values()), rtol=1e-5)
    before, _ = run("died", mode, features="memory", dies_at=5)
    assert max(before) < 5
    assert run("died", mode, features="memory")[0] == kept


@pytest.mark.heavy
def test_a_run_may_resume_without_what_it_kept(run):
    kept, _ = run("kept", features="memory")
    run("died", features="memory", dies_at=5)
    resumed, encoded = run("died", features="off")
    assert encoded is None
    np.testing.assert_allclose(list(resumed.values()), list(kept.values()), rtol=1e-5)


def test_a_view_is_encoded_once(run):
    _, encoded = run("views", brightness=0.5, features="memory", views=2)
    assert encoded == 12  # of 32 rows


@pytest.mark.heavy
def test_validation_shares_what_is_kept_and_takes_pixels_for_pictures_alone(run):
    _, encoded = run("validated", features="memory", val=True)
    assert encoded == 7  # the black photo that fills its last batch is one
    first, *_, last = pixels = run.caches[-1].measured_pixels
    assert (pixels[:4], first, last > 0) == ([0] * 4, 0, True)  # twice all of them, and then a picture


@pytest.mark.heavy
def test_the_scores_before_the_first_step_are_those_of_features_that_are_not_rounded(run):
    run("exact", features="off", val=True)
    expected = run.scores[0]
    _, encoded = run("rounded", features="memory", dtype="bfloat16", val=True)
    assert encoded == 6 + 7
    assert run.scores[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.heavy
def test_another_run_finds_what_one_kept_on_disk(run, tmp_path):
    folder = str(tmp_path / "features")
    first, encoded = run("first", features="disk", folder=folder)
    assert encoded == 6
    again, encoded = run("again", features="disk", folder=folder)
    assert (again, encoded) == (first, 0)


def test_what_cannot_be_kept_ends_a_run_before_its_first_step(run):
    with pytest.raises(ValueError, match=r"cache\.features memory keeps nothing here: .*cache\.budget_gb is 1e-09"):
        run("small", features="memory", budget_gb=1e-9)
    with pytest.raises(ValueError, match=r"tune\.mode full trains the image encoder from its first layer on"):
        run("full", "full", features="disk")


def test_a_folder_that_cannot_be_written_ends_a_run_before_its_first_step(run, tmp_path):
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(ValueError, match=r"cache\.folder: cannot write into the folder .*taken"):
        run("unwritable", features="disk", folder=str(tmp_path / "taken"))
    assert not (tmp_path / "unwritable" / "config.json").exists()


def test_resuming_with_other_views_or_another_dtype_is_refused(run):
    run("views", brightness=0.5, features="memory", views=2, dies_at=5)
    with pytest.raises(ValueError, match=r"cache\.views: 2, now 3"):
        run("views", brightness=0.5, features="memory", views=3)
    with pytest.raises(ValueError, match=r"cache\.dtype: None, now 'bfloat16'"):
        run("views", brightness=0.5, features="memory", views=2, dtype="bfloat16")


@pytest.mark.heavy
def test_features_that_are_rounded_are_never_left_out_silently(run, monkeypatch):
    """Where a run resumes with less memory, auto would compute others than it began with."""
    from samjax.train.cached import plan

    run("rounded", features="auto", dtype="bfloat16", dies_at=5)
    monkeypatch.setattr(plan, "physical_memory", lambda: 8)
    assert run("rounded", features="auto", dtype="bfloat16")[1] == 6
    with pytest.raises(ValueError, match=r"cache\.dtype bfloat16 rounds features.*cache\.budget_gb is 1e-09"):
        run("small", features="auto", dtype="bfloat16", budget_gb=1e-9)
