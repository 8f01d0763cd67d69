"""What patterns freeze: by name, without loss, and nothing by mistake."""

import jax
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict

from samjax.model import abstract_params

MATRIX = "prompt_encoder/pe_layer/positional_encoding_gaussian_matrix"
NAMES = sorted(flatten_dict(abstract_params(SMALL), sep="/"))
FROZEN = (r"^image_encoder/", r"mask_decoder/transformer/layers/0/mlp/lin1")


def patterns(*frozen):
    from samjax.train.trainable import Patterns

    return Patterns(frozen)


def made(*frozen, **options):
    from samjax.train.config import OptimConfig, TrainConfig
    from samjax.train.trainable import make_trainable

    return make_trainable(TrainConfig(optim=OptimConfig(frozen=frozen, **options)), SMALL)


def names(tree):
    return set(flatten_dict(tree, sep="/"))


def test_a_tree_is_split_by_name_and_merged_again():
    params = random_params(SMALL, 1)
    trained, frozen = patterns(*FROZEN).split(params)
    still = {name for name in NAMES if name.startswith("image_encoder/") or "layers/0/mlp/lin1" in name}
    assert names(frozen) == still | {MATRIX}
    assert names(trained) == set(NAMES) - names(frozen)
    merged = patterns(*FROZEN).merge(frozen, trained)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_the_fourier_matrix_is_never_trained():
    """A buffer in the reference."""
    trained, frozen = patterns().split(random_params(SMALL, 1))
    assert names(frozen) == {MATRIX}
    assert names(trained) == set(NAMES) - {MATRIX}


def test_a_recipe_names_what_is_frozen():
    params = random_params(SMALL, 1)
    jax.tree.map(np.testing.assert_array_equal, made(*FROZEN).split(params), patterns(*FROZEN).split(params))
    jax.tree.map(np.testing.assert_array_equal, made(*FROZEN).merge(*made(*FROZEN).split(params)[::-1]), params)


def test_patterns_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match=r"optim\.frozen: .*image_encodr/"):
        made(r"bias$", r"^image_encodr/")
    with pytest.raises(ValueError, match=r"optim\.no_decay: .*image_encodr/"):
        made(no_decay=(r"bias$", r"^image_encodr/"))


def test_freezing_everything_is_refused():
    with pytest.raises(ValueError, match="nothing is left to train"):
        made(r"^image_encoder/", r"^mask_decoder/", r"^prompt_encoder/(?!pe_layer)")
