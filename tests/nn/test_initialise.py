"""What parameters start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL
from flax.traverse_util import flatten_dict
from scipy import stats

from samjax.model import abstract_params, declared_params, init_params
from samjax.nn.initialise import Constant, Declared, Normal, Uniform


@pytest.fixture(scope="module")
def declared():
    tree = declared_params(SMALL)
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, Declared))[0]
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


@pytest.fixture(scope="module")
def params():
    return flatten_dict(init_params(SMALL, jax.random.key(3)), sep="/")


def test_every_parameter_is_declared_with_the_shape_it_has(declared, params):
    assert {name: leaf.value.shape for name, leaf in declared.items()} == {
        name: array.shape for name, array in params.items()
    }
    abstract = flatten_dict(abstract_params(SMALL), sep="/")
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in abstract.items()} == {
        name: (array.shape, array.dtype) for name, array in params.items()
    }


def test_set_up_alone_declares_what_running_the_layers_would(declared):
    """An encoder that only runs, as one that is no `Layer` may, has the same parameters."""
    from samjax.execution import Execution
    from samjax.nn.encoders.vit import ViT

    encoder = ViT(SMALL.image_encoder, SMALL.width, Execution())
    pixels = jnp.zeros((*SMALL.image_size, 3), jnp.float32)
    run = jax.eval_shape(lambda: encoder.init(jax.random.key(0), pixels)["params"])
    found = jax.tree_util.tree_flatten_with_path(run, is_leaf=lambda leaf: isinstance(leaf, Declared))[0]
    found = {"/".join(["image_encoder", *(entry.key for entry in path)]): leaf for path, leaf in found}
    assert found == {name: leaf for name, leaf in declared.items() if name in found}
    assert len(found) == sum(name.startswith("image_encoder/") for name in declared)


def test_values_follow_their_distributions(declared, params):
    """Kolmogorov and Smirnov's test, of all kernels together and of all embeddings."""
    unit = {Uniform: [], Normal: []}
    for name, leaf in declared.items():
        values = np.asarray(params[name]).ravel()
        match leaf.distribution:
            case Constant(value):
                assert (values == value).all(), name
            case Uniform(fan_in):
                unit[Uniform].append(values * np.sqrt(fan_in))
            case Normal():
                unit[Normal].append(values)
    assert stats.kstest(np.concatenate(unit[Uniform]), stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert stats.kstest(np.concatenate(unit[Normal]), stats.norm.cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("ending", "distribution"),
    [
        ("norm1/scale", Constant(1.0)),
        ("qkv/bias", Constant(0.0)),
        ("pos_embed", Constant(0.0)),
        ("rel_pos_h", Constant(0.0)),
        ("iou_token/embedding", Normal()),
        ("positional_encoding_gaussian_matrix", Normal()),
        ("image_encoder/blocks/0/attn/qkv/kernel", Uniform(SMALL.image_encoder.width)),
        ("patch_embed/proj/kernel", Uniform(SMALL.image_encoder.patch_size**2 * 3)),
        ("neck/2/kernel", Uniform(9 * SMALL.width)),  # 3 x 3 convolution
        ("output_upscaling/0/kernel", Uniform(SMALL.width)),  # transposed: an output sees one of the 2 x 2 places
    ],
)
def test_what_the_reference_starts_from(declared, ending, distribution):
    """PyTorch's defaults for the layers that Meta's code makes, and the numbers that it names."""
    found = {name: leaf.distribution for name, leaf in declared.items() if name.endswith(ending)}
    assert found
    assert set(found.values()) == {distribution}, found


def test_all_is_drawn_at_once():
    jaxpr = str(jax.make_jaxpr(lambda key: init_params(SMALL, key))(jax.random.key(0)))
    assert jaxpr.count("random_bits") == 1


def test_a_key_gives_the_same_values_as_ever(params):
    """Written down when this was: a run from scratch can be repeated."""
    for name, value in FIRST.items():
        np.testing.assert_allclose(params[name].ravel()[0], value, rtol=1e-6)


FIRST = {
    "image_encoder/blocks/0/attn/qkv/kernel": -0.11128838,
    "mask_decoder/output_upscaling/3/kernel": -0.09552079,
    "prompt_encoder/pe_layer/positional_encoding_gaussian_matrix": -0.5086496,
}
