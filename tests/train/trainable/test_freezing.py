"""Freezing a part of what any way to train trains, and patterns for its names."""

import jax
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict, unflatten_dict

LIN1 = "image_encoder/blocks/0/mlp/lin1"


class Factors:
    """Trains a change of one kernel, as a product of two factors, and the biases of the neck's norms."""

    def split(self, params):
        kernel = params["image_encoder"]["blocks"]["0"]["mlp"]["lin1"]["kernel"]
        encoder, neck = dict(params["image_encoder"]), dict(params["image_encoder"]["neck"])
        bias = neck["1"]["bias"]
        neck["1"] = {"scale": neck["1"]["scale"]}
        rows, columns = kernel.shape
        factors = {"a": jax.numpy.ones((rows, 1)), "b": jax.numpy.zeros((1, columns))}
        trained = {"factors": {"lin1": factors}, "image_encoder": {"neck": {"1": {"bias": bias}}}}
        return trained, {**params, "image_encoder": {**encoder, "neck": neck}}

    def merge(self, frozen, trained):
        flat = flatten_dict(frozen, sep="/")
        factors = trained["factors"]["lin1"]
        flat[f"{LIN1}/kernel"] = flat[f"{LIN1}/kernel"] + factors["a"] @ factors["b"]
        flat["image_encoder/neck/1/bias"] = trained["image_encoder"]["neck"]["1"]["bias"]
        return unflatten_dict(flat, sep="/")


@pytest.fixture
def factors(monkeypatch):
    """Recipes train by factors."""
    from samjax.train.trainable import trainable

    monkeypatch.setattr(trainable, "_way", lambda config, sam: Factors())


def made(**options):
    from samjax.train.config import OptimConfig, TrainConfig
    from samjax.train.trainable import make_trainable

    return make_trainable(TrainConfig(optim=OptimConfig(**options)), SMALL)


def names(tree):
    return set(flatten_dict(tree, sep="/"))


A, B, BIAS = "factors/lin1/a", "factors/lin1/b", "image_encoder/neck/1/bias"


@pytest.mark.parametrize(
    ("frozen", "trained"),
    [((), {A, B, BIAS}), (("^image_encoder/",), {A, B}), (("/a$",), {B, BIAS}), (("^factors/",), {BIAS})],
)
def test_patterns_freeze_what_another_way_would_train(factors, frozen, trained):
    """The encoder's kernels fit one of the patterns too, and stay on the frozen side of the way itself."""
    params = random_params(SMALL, 1)
    way = made(frozen=frozen)
    moving, still = way.split(params)
    assert names(moving) == trained
    assert names(still) == (names(params) | {A, B}) - trained
    jax.tree.map(np.testing.assert_array_equal, way.merge(still, moving), params)
    moved = flatten_dict(way.merge(still, jax.tree.map(lambda leaf: leaf + 1, moving)), sep="/")
    before = flatten_dict(params, sep="/")
    changed = {name for name in before if not np.array_equal(moved[name], before[name])}
    assert changed == {BIAS} & trained | ({f"{LIN1}/kernel"} if B in trained else set())


def test_freezing_all_that_another_way_would_train_is_refused(factors):
    with pytest.raises(ValueError, match=r"optim\.frozen: nothing is left to train"):
        made(frozen=("^factors/", "neck"))


@pytest.mark.parametrize("option", ["no_decay", "frozen"])
def test_patterns_may_fit_names_of_the_network_and_of_what_is_trained(factors, option):
    made(**{option: ("^factors/", "^mask_decoder/")})
    with pytest.raises(ValueError, match=rf"optim\.{option}: no parameter's name fits 'factor/'"):
        made(**{option: ("^factors/", "factor/")})


def test_a_pattern_of_no_decay_may_fit_frozen_parameters_only():
    made(no_decay=("^image_encoder/.*bias$",), frozen=("^image_encoder/",))
