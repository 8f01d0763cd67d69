"""FLOPs: those that are written in the traced program, and close to what XLA counts."""

import math

import jax
import jax.numpy as jnp
import pytest
from example_models import SMALL
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import VARIANTS, Embedding, Prompts
from samjax.execution import Execution
from samjax.model import abstract_params, decode, encode, encode_from
from samjax.nn.encoders import family_of
from samjax.ops.attention import Plain
from samjax.train.config import TrainConfig, TuneConfig

PLAIN = Execution(attention=Plain())
TOKENS = 10


def encoding(config):
    """A function of its arguments that encodes an image, and the shapes of those arguments."""
    pixels = jax.ShapeDtypeStruct((*config.image_size, 3), jnp.float32)
    return lambda params, pixels: encode(config, params, pixels, PLAIN), (abstract_params(config), pixels)


def decoding(config, *, multimask, mask_prompt):
    def run(params, features, points, mask):
        size = jnp.zeros(2, jnp.int32)
        labels, yes = jnp.ones((1, TOKENS), jnp.int32), jnp.ones(1, bool)
        prompts = Prompts(points, labels, yes, mask if mask_prompt else None, yes if mask_prompt else None)
        taps = {name: jnp.zeros((*config.grid, config.image_encoder.width)) for name in config.decoder_taps}
        answer = decode(config, params, Embedding(features, size, size, taps), prompts, PLAIN, multimask=multimask)
        return answer.logits, answer.iou

    shapes = (*config.grid, config.width), (1, TOKENS, 2), (1, *config.mask_size)
    return run, (abstract_params(config), *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


def traced(function, arguments):
    """FLOPs of the matrix products and convolutions of a traced function, loops included."""

    def of(jaxpr, times):
        total = 0
        for equation in jaxpr.eqns:
            result = equation.outvars[0].aval
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                total += 2 * times * result.size * math.prod(shape[axis] for axis in contracted)
            elif equation.primitive.name == "conv_general_dilated":
                total += 2 * times * result.size * math.prod(equation.invars[1].aval.shape[:-1])
            loops = equation.params["length"] if equation.primitive.name == "scan" else 1
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += of(inner, times * loops)
        return total

    return of(jax.make_jaxpr(function)(*arguments).jaxpr, 1)


def analysed(function, arguments):
    """The operations that XLA counts, with all that is no matrix product."""
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


@pytest.mark.parametrize(("variant", "giga"), [("vit_b", 942), ("vit_l", 2851), ("vit_h", 5666)])
def test_encoders_of_the_paper(variant, giga):
    from samjax.train.flops import encoder_flops

    assert round(encoder_flops(VARIANTS[variant]) / 1e9) == giga


@pytest.mark.parametrize("config", [SMALL, VARIANTS["vit_tiny"]], ids=["small", "vit_tiny"])
def test_encoder(config):
    from samjax.train.flops import encoder_flops

    assert encoder_flops(config) == traced(*encoding(config))
    assert encoder_flops(config) == pytest.approx(analysed(*encoding(config)), rel=0.1)


@pytest.mark.parametrize(("multimask", "mask_prompt"), [(True, False), (False, True)])
@pytest.mark.parametrize(
    ("config", "folds"),
    [
        (SMALL, False),
        (VARIANTS["vit_tiny"], False),
        (VARIANTS["vit_b"].with_image_size(256), True),
        (VARIANTS["vit_tiny"].with_hq(), False),
    ],
    ids=["small", "vit_tiny", "vit_b", "hq"],
)
def test_decoder(config, folds, multimask, mask_prompt):
    """`folds`: whether so few tokens attend that the decoder folds the image's projections into them."""
    from samjax.train.flops import decoder_flops, hq_side_flops, image_side_flops

    decoder = config.mask_decoder
    assert ((1 + config.mask_tokens + TOKENS) * decoder.heads <= config.width // decoder.downsample) == folds
    ours = decoder_flops(config, prompt_tokens=TOKENS, multimask=multimask, mask_prompt=mask_prompt)
    ours += hq_side_flops(config) + (0 if mask_prompt else image_side_flops(config))
    program = decoding(config, multimask=multimask, mask_prompt=mask_prompt)
    assert ours == pytest.approx(traced(*program), rel=1e-3)  # Fourier features are not counted
    assert ours == pytest.approx(analysed(*program), rel=0.2)  # softmax and norms weigh more in small models


def test_a_step_is_three_times_what_is_trained():
    from samjax.train.flops import decoder_flops, encoder_flops, image_side_flops, step_flops

    first = decoder_flops(SMALL, prompt_tokens=10, multimask=True, mask_prompt=False)
    later = decoder_flops(SMALL, prompt_tokens=10, multimask=False, mask_prompt=True)
    rest = 3 * (image_side_flops(SMALL) + 2.5 * (first + 2 * later))
    size = {"images": 4, "masks": 2.5, "passes": 3, "prompt_tokens": 10}
    assert step_flops(SMALL, **size) == 4 * (3 * encoder_flops(SMALL) + rest)
    assert step_flops(SMALL, **size, encoder=7) == 4 * (7 + rest)


def gradient(config, trained, kept):
    """A function that gives the features and the gradients of what is trained of the encoder, and its arguments."""
    encoder = flatten_dict(abstract_params(config)["image_encoder"], sep="/")
    moving = {name: leaf for name, leaf in encoder.items() if f"image_encoder/{name}" in trained}
    given = jax.ShapeDtypeStruct((*config.image_size, 3), jnp.float32)
    if kept is not None:
        given = jax.ShapeDtypeStruct((*config.grid, config.image_encoder.width), jnp.float32)

    def features(moving, still, given):
        params = {"image_encoder": unflatten_dict({**still, **moving}, sep="/")}
        if kept is None:
            return encode(config, params, given, PLAIN).image
        return encode_from(config, params, given, PLAIN, after=kept).image

    def run(moving, still, given):
        value, back = jax.vjp(lambda moving: features(moving, still, given), moving)
        return value, back(value)

    return run, (moving, {name: leaf for name, leaf in encoder.items() if name not in moving}, given)


@pytest.mark.parametrize("keeps", [False, True], ids=["photos", "kept"])
@pytest.mark.parametrize(
    ("tune", "first"),
    [
        (TuneConfig(mode="patterns", patterns=("^image_encoder/",)), 0),
        (TuneConfig(mode="last_blocks", last=1), -2),
        (TuneConfig(mode="patterns", patterns=(r"neck/2/kernel",)), -1),
        (TuneConfig(mode="patterns", patterns=(r"blocks/1/mlp/lin1/bias",)), 2),
    ],
    ids=["all", "last block", "neck", "a bias"],
)
def test_the_encoder_in_a_step_is_that_of_the_traced_program(tune, first, keeps):
    """But for gradients in the first trained layer that nothing needs, at most a forward pass through it."""
    from samjax.train.cached.point import latest_point
    from samjax.train.flops import trained_encoder_flops
    from samjax.train.trainable import trained_shapes
    from samjax.train.trainable.freezing import parameter_names

    trained = frozenset(parameter_names(trained_shapes(TrainConfig(tune=tune), SMALL)))
    kept = latest_point(SMALL, trained) if keeps else None
    ours, program = trained_encoder_flops(SMALL, trained, kept), traced(*gradient(SMALL, trained, kept))
    layers = family_of(SMALL.image_encoder).flops(SMALL.image_encoder, SMALL.width)
    assert 0.99 * program < ours <= program + layers[first]


def test_an_encoder_without_trained_parameters_is_run_once_or_not_at_all():
    from samjax.train.flops import encoder_flops, trained_encoder_flops

    decoder = frozenset({"mask_decoder/iou_token"})
    assert trained_encoder_flops(SMALL, decoder) == encoder_flops(SMALL)
    assert trained_encoder_flops(SMALL, decoder, "image") == 0


def test_low_rank_factors_take_less_than_all_kernels_and_less_again_with_kept_features():
    from samjax.train.flops import encoder_flops, trained_encoder_flops

    vit_b = VARIANTS["vit_b"]
    factors = [f"image_encoder/blocks/{block}/attn/qkv/lora_q/a" for block in range(12)]
    every, late = (trained_encoder_flops(vit_b, frozenset(names)) for names in (factors, factors[8:]))
    kept = trained_encoder_flops(vit_b, frozenset(factors[8:]), "blocks/7")
    whole = encoder_flops(vit_b)
    assert 2 * whole < every < 2.4 * whole  # products between tokens have two gradients
    assert late - kept == pytest.approx(whole * 2 / 3, rel=0.1)
    assert kept < every / 2


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("TPU v4", "bfloat16", 275e12),
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5", "bfloat16", 459e12),
        ("TPU v5p", "bfloat16", 459e12),
        ("TPU v6 lite", "bfloat16", 918e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 156e12),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
    ],
)
def test_known_devices(kind, dtype, peak):
    from samjax.train.flops import peak_flops

    assert peak_flops(kind, dtype) == peak


def test_other_devices_have_no_known_peak():
    from samjax.train.flops import peak_flops

    assert peak_flops("cpu", "float32") is None


def test_utilisation_is_the_share_of_what_all_devices_can_do():
    from samjax.train.flops import utilisation

    assert utilisation(400, 2.0, 4, 100.0) == 0.5
