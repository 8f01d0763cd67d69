"""Which axis of which parameter lies where, and meshes that fit the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from samjax.config import VARIANTS
from samjax.model import abstract_params
from samjax.sharding import AXES, batch_sharding, make_mesh, partition, path_name, shardings

MESH = Mesh(np.array(jax.devices()[:1] * 16).reshape(2, 4, 2), AXES)  # its shape is all that matters here

ENCODER = VARIANTS["vit_b"].image_encoder

COLUMNS, ROWS = ("fsdp", "tensor"), ("tensor", "fsdp")  # what comes out is spread; what comes in
# Module and parameter at the end of a name, and the axes of its last axes, written out for every kind there is.
EXPECTED = {
    "image_encoder": {
        "pos_embed": ("fsdp",),
        "patch_embed/proj/kernel": ("fsdp",),
        "attn/qkv/kernel": COLUMNS,
        "attn/qkv/bias": ("tensor",),
        "attn/proj/kernel": ROWS,
        "mlp/lin1/kernel": COLUMNS,
        "mlp/lin1/bias": ("tensor",),
        "mlp/lin2/kernel": ROWS,
        "neck/0/kernel": ("fsdp",),
        "neck/2/kernel": ("fsdp",),
    },
    "prompt_encoder": {
        "mask_downscaling/0/kernel": ("fsdp",),
        "mask_downscaling/3/kernel": ("fsdp",),
        "mask_downscaling/6/kernel": ("fsdp",),
    },
    "mask_decoder": {
        **{f"{projection}_proj/kernel": COLUMNS for projection in "qkv"},
        **{f"{projection}_proj/bias": ("tensor",) for projection in "qkv"},
        "out_proj/kernel": ROWS,
        "mlp/lin1/kernel": COLUMNS,
        "mlp/lin1/bias": ("tensor",),
        "mlp/lin2/kernel": ROWS,
        "output_upscaling/0/kernel": ("fsdp",),
        "output_upscaling/3/kernel": ("fsdp",),
        **{f"layers/{layer}/kernel": ("fsdp", None) for layer in range(3)},  # of the MLPs behind the tokens
    },
}
WHOLE = ("scale", "embedding", "rel_pos_h", "rel_pos_w", "positional_encoding_gaussian_matrix", "bias")


def expected_axes(name, shape):
    part = EXPECTED[name.split("/")[0]]
    (axes,) = [axes for end, axes in part.items() if name.endswith(f"/{end}")] or [()]
    assert axes or name.endswith(WHOLE), f"{name} has no entry in this test's table"
    return (None,) * (len(shape) - len(axes)) + axes


def whole(spec, shape):
    """A spec with an entry for each axis."""
    return tuple(spec) + (None,) * (len(shape) - len(spec))


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_every_parameter_lies_as_its_name_says(variant):
    for name, leaf in flatten_dict(abstract_params(VARIANTS[variant]), sep="/").items():
        expected = [
            axis if axis and side % MESH.shape[axis] == 0 else None
            for axis, side in zip(expected_axes(name, leaf.shape), leaf.shape, strict=True)
        ]
        assert whole(partition(name, leaf.shape, MESH, ENCODER), leaf.shape) == tuple(expected), name


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_nearly_all_numbers_are_spread_over_fsdp(variant):
    leaves = flatten_dict(abstract_params(VARIANTS[variant]), sep="/")
    spread = {name for name, leaf in leaves.items() if "fsdp" in partition(name, leaf.shape, MESH, ENCODER)}
    sizes = {name: np.prod(leaf.shape) for name, leaf in leaves.items()}
    assert sum(sizes[name] for name in spread) > 0.995 * sum(sizes.values())


def test_optimiser_state_and_average_lie_with_their_parameters():
    from samjax.train.config import OptimConfig
    from samjax.train.optim import make_optimizer
    from samjax.train.state import TrainState
    from samjax.train.trainable import Patterns

    config = VARIANTS["vit_b"]
    params = abstract_params(config)
    optimizer = make_optimizer(OptimConfig(clip_norm=1.0), config, 10)

    def start(params):
        key = jnp.zeros(2, jnp.uint32)
        trained, frozen = Patterns().split(params)
        return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), trained, key, frozen)

    state = jax.eval_shape(start, params)
    specs = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda x: x.spec, shardings(state, MESH, ENCODER)))
    of_params = {
        name: partition(name, leaf.shape, MESH, ENCODER) for name, leaf in flatten_dict(params, sep="/").items()
    }
    followers = dict.fromkeys(of_params, 0)
    for path, spec in specs:
        name = path_name(path)
        parameter = next((one for one in of_params if name.endswith(f"/{one}")), None)
        if parameter is None:
            assert spec == P(), name  # steps, counts and the key
        else:
            followers[parameter] += 1
            assert spec == of_params[parameter], name
    # the parameter, its average and two moments; the Fourier matrix is frozen
    assert followers == {name: 1 if "gaussian" in name else 4 for name in of_params}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 6), ("fsdp", "tensor")), ((6, 8), (None, "tensor")), ((8, 3), ("fsdp", None)), ((6, 3), (None, None))],
)
def test_axes_that_the_mesh_does_not_divide_stay_whole(shape, expected):
    assert tuple(partition("image_encoder/blocks/0/attn/qkv/kernel", shape, MESH, ENCODER)) == expected


def test_rules_fit_whole_names_only():
    assert partition("image_encoder/blocks/0/attn/not_qkv/kernel", (8, 8), MESH, ENCODER) == P()
    assert partition("image_encoder/blocks/0/attn/qkv/kernel/more", (8, 8), MESH, ENCODER) == P()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 1, -1), (1, 1, 8)), ((8, 1, 1), (8, 1, 1))],
)
def test_minus_one_takes_the_devices_that_are_left(monkeypatch, sizes, expected):
    made = {}
    monkeypatch.setattr(jax, "make_mesh", lambda shape, axes, **_: made.update(shape=shape, axes=axes))
    devices = jax.devices()[:1] * 8
    with pytest.raises(Exception, match="Mesh"):  # the annotation's word about what is returned here
        make_mesh(*sizes, devices=devices)
    assert made == {"shape": expected, "axes": AXES}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 1), (-1, 0, 1), (16, 1, 1), (-2, -4, 1)])
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(sizes):
    with pytest.raises(ValueError, match=r"does not fit 8 device"):
        make_mesh(*sizes, devices=jax.devices()[:1] * 8)


def test_by_default_all_devices_have_parts_of_the_batch():
    mesh = make_mesh()
    assert mesh.axis_names == AXES
    assert dict(mesh.shape) == {"data": len(jax.devices()), "fsdp": 1, "tensor": 1}
    assert batch_sharding(mesh).spec == P(("data", "fsdp"))
