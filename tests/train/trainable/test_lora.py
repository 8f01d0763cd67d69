"""LoRA: which kernels, how many numbers, and the network it starts from."""

import jax
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from samjax.config import VARIANTS
from samjax.model import abstract_params

ALL = ("q", "k", "v", "proj", "mlp")
QKV = "image_encoder/blocks/0/attn/qkv"


def made(sam=SMALL, seed=0, **options):
    from samjax.train.config import RunConfig, TrainConfig, TuneConfig
    from samjax.train.trainable import make_trainable

    return make_trainable(TrainConfig(tune=TuneConfig("lora", **options), run=RunConfig(seed=seed)), sam)


def flat(tree):
    return flatten_dict(tree, sep="/")


def trained_numbers(sam, **options):
    leaves = jax.tree.leaves(jax.eval_shape(made(sam, **options).split, abstract_params(sam))[0])
    return sum(leaf.size for leaf in leaves)


def drawn(trained, seed=5):
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), trained)


@pytest.mark.parametrize(("variant", "numbers"), [("vit_b", 147_456), ("vit_l", 393_216), ("vit_h", 655_360)])
def test_rank_four_on_queries_and_values_has_the_papers_count(variant, numbers):
    """SAMed (arXiv 2304.13785): two factors of 4 x width for q and v of each block."""
    assert trained_numbers(VARIANTS[variant]) == numbers


def test_counts_of_other_targets():
    width, depth = 768, 12
    vit_b = VARIANTS["vit_b"]
    assert trained_numbers(vit_b, targets=("qkv",)) == depth * 4 * (width + 3 * width)
    assert trained_numbers(vit_b, targets=("proj",), rank=8) == depth * 8 * 2 * width
    assert trained_numbers(vit_b, targets=("mlp",)) == depth * 4 * 2 * (width + 4 * width)
    assert trained_numbers(vit_b, late=3) == 147_456 // 4
    # q and v: in each of two layers one attention at 256 and two at 128, and a last one at 128.
    assert trained_numbers(vit_b, where=("decoder",)) == 2 * 4 * (2 * (512 + 2 * 384) + 384)


@pytest.mark.parametrize("targets", [ALL, ("qkv",)], ids=str)
def test_the_network_is_at_first_the_base_bit_for_bit(targets):
    params, way = random_params(SMALL, 1), made(targets=targets, where=("encoder", "decoder"))
    trained, frozen = way.split(params)
    assert frozen == params
    merged = way.merge(frozen, trained)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_merged_kernels_are_sums_with_the_scaled_products():
    params, way = random_params(SMALL, 1), made(targets=ALL, where=("encoder", "decoder"), alpha=6.0, rank=3)
    trained, frozen = way.split(params)
    trained = drawn(trained)
    merged, factors = flat(way.merge(frozen, trained)), flat(trained)
    expected = {name: leaf.astype(np.float64) for name, leaf in flat(params).items()}
    changed = set()
    for name in factors:
        if name.endswith("/a"):
            module, lora = name.removesuffix("/a").rsplit("/", 1)
            product = 2.0 * factors[name].astype(np.float64) @ factors[f"{name[:-1]}b"]
            block = {"lora": 0, "lora_q": 0, "lora_k": 1, "lora_v": 2}[lora]
            columns = product.shape[1]
            expected[f"{module}/kernel"][:, block * columns : (block + 1) * columns] += product
            changed.add(f"{module}/kernel")
    assert len(changed) == 2 * 4 + 2 * (3 * 4 + 2) + 4  # blocks; layers; the last attention
    for name, leaf in expected.items():
        np.testing.assert_allclose(merged[name], leaf, rtol=0, atol=1e-4 if name in changed else 0)
    assert changed == {name for name in expected if not np.array_equal(merged[name], flat(params)[name])}


def test_first_factors_are_uniform_and_follow_seed_and_name():
    params = random_params(SMALL)
    trained = flat(made(rank=48).split(params)[0])
    q, v = (trained[f"{QKV}/lora_{block}/a"] for block in "qv")
    bound = 48**-0.5
    assert q.shape == (48, 48)
    for factor in (q, v):
        assert np.abs(factor).max() <= bound
        np.testing.assert_allclose(np.std(factor), bound / np.sqrt(3), rtol=0.03)
    assert abs(np.corrcoef(q.ravel(), v.ravel())[0, 1]) < 0.06
    assert not np.array_equal(q, flat(made(rank=48, seed=1).split(params)[0])[f"{QKV}/lora_q/a"])
    # What else is trained changes no draw.
    np.testing.assert_array_equal(q, flat(made(rank=48, targets=("q", "mlp")).split(params)[0])[f"{QKV}/lora_q/a"])
    assert not np.any(trained[f"{QKV}/lora_q/b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("q", "query")}, "tune.targets: there is no 'query'; there are q, k, v, qkv, proj, mlp"),
        ({"where": ("neck",)}, "tune.where: there is no 'neck'; there are encoder, decoder"),
        ({"targets": ()}, "tune.targets is empty, so lora trains nothing"),
        ({"targets": ("q", "v", "q")}, "tune.targets names q twice"),
        ({"where": ("encoder", "encoder")}, "tune.where names encoder twice"),
        ({"targets": ("qkv", "v")}, "qkv changes the columns of v already"),
        ({"late": 3}, "tune.late is 3, and the image encoder has 2 blocks"),
        ({"late": 1, "where": ("decoder",)}, "tune.where has none"),
    ],
    ids=str,
)
def test_targets_that_there_are_not_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rank": 49},
            "lora_q changes 48 x 48 parameters of image_encoder/blocks/0/attn/qkv/kernel, whose rank is 48",
        ),
        ({"rank": 129, "where": ("decoder",)}, r"lora changes .* parameters of mask_decoder/.*q_proj/kernel"),
        ({"rank": 100_000, "targets": ("mlp",)}, r"tune\.rank is 100000, and lora changes 48 x \d+ .*mlp/lin1/kernel"),
    ],
    ids=str,
)
def test_a_rank_above_that_of_a_kernel_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mode": "lora+decoder", "where": ("decoder",)},
            "lora changes mask_decoder/.*, and decoder trains it too; .* by --tune.targets, --tune.where, --tune.late",
        ),
        ({"mode": "lora+decoder", "where": ("encoder", "decoder")}, "lora changes mask_decoder/.*, and decoder trains"),
        (
            {"mode": "last_blocks+lora", "last": 2},
            "lora changes image_encoder/blocks/0/attn/.*, and last_blocks trains it too",
        ),
        (
            {"mode": "lora+parser", "matrices": ("blocks/1/attn/qkv",)},
            "lora changes image_encoder/blocks/1/attn/qkv/kernel, and parser",
        ),
    ],
    ids=str,
)
def test_one_kernel_has_one_way_to_change(options, message):
    from samjax.train.config import TrainConfig, TuneConfig
    from samjax.train.trainable import make_trainable

    with pytest.raises(ValueError, match=message):
        make_trainable(TrainConfig(tune=TuneConfig(**options)), SMALL)


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({"mode": "lora", "last": 2}, ("0", "1")),
        ({"mode": "lora+last_blocks", "last": 1}, ("0",)),
        ({"mode": "last_blocks+lora", "last": 1}, ("0",)),
        ({"mode": "lora+patterns", "patterns": ("blocks/0/attn",)}, ("1",)),
    ],
    ids=str,
)
def test_kernels_that_another_mode_trains_whole_get_no_factors(options, blocks):
    from samjax.train.config import TrainConfig, TuneConfig
    from samjax.train.trainable import make_trainable

    way, params = make_trainable(TrainConfig(tune=TuneConfig(**options)), SMALL), random_params(SMALL, 1)
    trained, frozen = way.split(params)
    assert {name.split("/")[2] for name in flat(trained) if "/lora_" in name} == set(blocks)
    jax.tree.map(np.testing.assert_array_equal, way.merge(frozen, trained), params)


def test_low_rank_and_singular_changes_and_whole_parameters_together():
    from samjax.train.config import TrainConfig, TuneConfig
    from samjax.train.trainable import make_trainable

    way = make_trainable(TrainConfig(tune=TuneConfig("decoder+lora+parser")), SMALL)
    params = random_params(SMALL, 1)
    trained, frozen = way.split(params)
    jax.tree.map(np.testing.assert_array_equal, way.merge(frozen, trained), params)
    merged = flat(way.merge(frozen, drawn(trained)))
    changed = {name for name, leaf in flat(params).items() if not np.array_equal(merged[name], leaf)}
    encoder = {
        f"image_encoder/{name}/kernel" for name in ("blocks/0/attn/qkv", "blocks/1/attn/qkv", "neck/0", "neck/2")
    }
    assert changed == encoder | {name for name in flat(params) if name.startswith("mask_decoder/")}


@pytest.mark.parametrize(
    "name", ["image_encoder/blocks/0/attn/qkv/lora_q", "mask_decoder/transformer/layers/0/mlp/lin2/lora"]
)
def test_factors_learn_at_the_rate_of_their_layer_by_adam_and_lie_as_their_kernel(name):
    from samjax.sharding import AXES, partition
    from samjax.train.config import OptimConfig
    from samjax.train.optim import is_matrix, learning_rate_factor

    config, kernel = OptimConfig(layer_decay=0.5, encoder_rate=0.1), f"{name.rpartition('/')[0]}/kernel"
    mesh = Mesh(np.array(jax.devices()[:1] * 8).reshape(1, 2, 4), AXES)  # its shape is all that matters here
    for factor, shape in (("a", (48, 4)), ("b", (4, 48))):
        leaf = f"{name}/{factor}"
        assert learning_rate_factor(config, SMALL, leaf) == learning_rate_factor(config, SMALL, kernel)
        assert is_matrix(SMALL, kernel, shape)
        assert not is_matrix(SMALL, leaf, shape)
        axes, of_kernel = (partition(each, shape, mesh, SMALL.image_encoder) for each in (leaf, kernel))
        assert tuple(axes) == ((of_kernel[0], None) if factor == "a" else (None, of_kernel[1]))
        assert set(of_kernel) == {"fsdp", "tensor"}
