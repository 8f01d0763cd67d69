"""SAM-PARSER: the paper's count, the network it starts from, and where weight decay pulls."""

import jax
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict

from samjax.config import VARIANTS
from samjax.model import abstract_params


def made(sam=SMALL, **options):
    from samjax.train.config import TrainConfig, TuneConfig
    from samjax.train.trainable import make_trainable

    return make_trainable(TrainConfig(tune=TuneConfig("parser", **options)), sam)


def flat(tree):
    return flatten_dict(tree, sep="/")


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_the_papers_512_numbers(variant):
    trained = flat(jax.eval_shape(made(VARIANTS[variant]).split, abstract_params(VARIANTS[variant]))[0])
    assert {name: leaf.shape for name, leaf in trained.items()} == {
        "image_encoder/neck/0/svd/shift": (256,),
        "image_encoder/neck/2/svd/shift": (256,),
    }


def test_more_matrices_by_name():
    trained = flat(made(matrices=(r"blocks/1/attn/proj",)).split(random_params(SMALL))[0])
    assert {name.removesuffix("/svd/shift") for name in trained} == {
        "image_encoder/neck/0",
        "image_encoder/neck/2",
        "image_encoder/blocks/1/attn/proj",
    }
    with pytest.raises(ValueError, match=r"tune\.matrices: no parameter's name fits 'bias'"):
        made(matrices=("bias",))


def test_the_network_is_at_first_the_base_bit_for_bit():
    """And at a shift of zero, to which weight decay pulls: not to singular values of zero."""
    params, way = random_params(SMALL, 1), made()
    trained, frozen = way.split(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(trained))
    merged = way.merge(frozen, trained)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_shifts_move_singular_values_and_nothing_else():
    params, way = random_params(SMALL, 1), made()
    trained, frozen = way.split(params)
    shift = np.linspace(0.5, 0.1, 48, dtype=np.float32)
    trained["image_encoder"]["neck"]["0"]["svd"]["shift"] = shift
    merged, before = flat(way.merge(frozen, trained)), flat(params)
    kernel = "image_encoder/neck/0/kernel"
    assert {name for name in before if not np.array_equal(merged[name], before[name])} == {kernel}
    old, new = (
        np.linalg.svd(leaf.reshape(48, 64).astype(np.float64)) for leaf in (before[kernel], np.asarray(merged[kernel]))
    )
    np.testing.assert_allclose(new.S, old.S + shift, rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(new.U * old.U, axis=0)), 1, atol=1e-4)
