"""The modes of tuning: what each trains, which may be joined, and what is refused before anything is computed."""

import dataclasses

import jax
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict

from samjax.config import ViTConfig
from samjax.model import abstract_params

NAMES = frozenset(flatten_dict(abstract_params(SMALL), sep="/"))
FOURIER = {"prompt_encoder/pe_layer/positional_encoding_gaussian_matrix"}
DECODER = {name for name in NAMES if name.startswith("mask_decoder/")}
PROMPTS = {name for name in NAMES if name.startswith("prompt_encoder/")} - FOURIER
NECK = {name for name in NAMES if name.startswith("image_encoder/neck/")}
LAST = {name for name in NAMES if name.startswith("image_encoder/blocks/1/")}


def recipe(frozen=(), **options):
    from samjax.train.config import OptimConfig, TrainConfig, TuneConfig

    return TrainConfig(optim=OptimConfig(frozen=frozen), tune=TuneConfig(**options))


def made(frozen=(), **options):
    from samjax.train.trainable import make_trainable

    return make_trainable(recipe(frozen, **options), SMALL)


def names(tree):
    return set(flatten_dict(tree, sep="/"))


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, NAMES - FOURIER),
        ({"mode": "decoder"}, DECODER),
        ({"mode": "decoder", "prompt_encoder": True}, DECODER | PROMPTS),
        ({"mode": "last_blocks", "last": 1}, LAST | NECK | DECODER),
        ({"mode": "last_blocks", "last": 1, "frozen": ("^mask_decoder/",)}, LAST | NECK),
        ({"mode": "patterns", "patterns": (r"^image_encoder/neck/",)}, NECK),
        ({"mode": "decoder+patterns", "patterns": (r"^image_encoder/neck/",)}, DECODER | NECK),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_mode_trains_what_it_says_and_leaves_the_rest_as_it_is(options, trained):
    params, way = random_params(SMALL, 1), made(**options)
    moving, still = way.split(params)
    assert names(moving) == trained
    assert names(still) == NAMES - trained
    moved = flatten_dict(way.merge(still, jax.tree.map(lambda leaf: leaf + np.float32(1), moving)), sep="/")
    before = flatten_dict(params, sep="/")
    assert {name for name in NAMES if not np.array_equal(moved[name], before[name])} == trained


def test_the_mode_of_a_recipe_can_be_changed():
    from samjax.train.command import load_recipe
    from samjax.train.trainable import trained_shapes

    config = load_recipe("defects")
    assert names(trained_shapes(config, SMALL)) == DECODER | PROMPTS
    changed = dataclasses.replace(config, tune=dataclasses.replace(config.tune, mode="parser"))
    assert {name.split("/")[1] for name in names(trained_shapes(changed, SMALL))} == {"neck"}


def test_all_blocks_but_neither_patches_nor_positions():
    trained = names(made(mode="last_blocks", last=2).split(random_params(SMALL))[0])
    encoder = {name for name in NAMES if name.startswith("image_encoder/")}
    assert {name.split("/")[1] for name in encoder - trained} == {"patch_embed", "pos_embed"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "decodr"}, r"no 'decodr'; did you mean decoder\?(?s:.)*last_blocks(?s:.)*patterns"),
        ({"mode": "full+decoder"}, "full trains every parameter as it is, and leaves none to decoder"),
        ({"mode": "decoder+decoder"}, "names decoder twice"),
        ({"mode": "decoder+last_blocks"}, "last_blocks trains all that decoder does; leave decoder out"),
        ({"mode": "decoder+patterns", "patterns": ("iou_token",)}, "decoder trains all that patterns does; leave patt"),
        ({"mode": "auto+lora"}, r"^tune\.mode auto\+lora: auto chooses modes by itself, and joins no other$"),
        ({"mode": "last_blocks", "last": 3}, "tune.last is 3, and the image encoder has 2 blocks"),
        ({"mode": "patterns"}, "there are none"),
        ({"mode": "patterns", "patterns": ("^image_encodr/",)}, r"tune\.patterns: no parameter's name fits"),
        ({"mode": "patterns", "patterns": ("gaussian_matrix",)}, "nothing that could be trained"),
        ({"patterns": ("^mask_decoder/",)}, r"tune\.patterns is an option of patterns, and tune\.mode is full"),
        ({"mode": "decoder", "last": 3}, r"tune\.last is an option of last_blocks, and tune\.mode is decoder"),
        ({"mode": "decoder", "frozen": ("^mask_decoder/",)}, "nothing is left to train"),
        ({"mode": "decoder+lora", "frozen": ("^image_encoder/",)}, "nothing is left to train of tune.mode lora"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_a_prompt_encoder_that_no_mode_trains_is_warned_of():
    """It is no error: recipes ask for it, and their mode can be changed."""
    import warnings

    from samjax.train.config import TuneConfig
    from samjax.train.trainable import warn_of_unread

    with pytest.warns(UserWarning, match=r"option of decoder and last_blocks, and does nothing with tune\.mode lora$"):
        warn_of_unread(TuneConfig("lora", prompt_encoder=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("full", "decoder", "lora+decoder", "last_blocks"):
            warn_of_unread(TuneConfig(mode, prompt_encoder=True))
        warn_of_unread(TuneConfig("lora"))


@pytest.mark.parametrize(("field", "value"), [("last", 0), ("patterns", ("(",))])
def test_options_have_their_limits(field, value):
    from samjax.train.config import TuneConfig

    with pytest.raises(ValueError, match=rf"tune\.{field} must be"):
        TuneConfig(**{field: value})


def test_what_is_trained_is_known_before_jax_starts(run_python):
    """Devices of a run on CPU are chosen by it."""
    code = """
from samjax.config import VARIANTS
from samjax.train.config import TrainConfig, TuneConfig
from samjax.train.cores import devices_for
for mode in ("full", "decoder"):
    print(devices_for(TrainConfig(tune=TuneConfig(mode=mode)), VARIANTS["vit_b"], 2, 8 << 30)[0])
import jax
jax.config.update("jax_num_cpu_devices", 2)
print(jax.device_count())
"""
    assert run_python(code, JAX_PLATFORMS="cpu").split() == ["1", "2", "2"]


@pytest.fixture
def deeper(monkeypatch):
    """A mode whose network has one block more, which is trained."""
    from samjax.train.trainable import modes
    from samjax.train.trainable.modes import MODES, Mode
    from samjax.train.trainable.named import named

    def network(tune, sam):
        encoder = dataclasses.replace(sam.image_encoder, depth=sam.image_encoder.depth + 1)
        return dataclasses.replace(sam, image_encoder=encoder)

    def way(config, sam):
        return named(names(abstract_params(sam)), f"^image_encoder/blocks/{sam.image_encoder.depth - 1}/")

    monkeypatch.setattr(modes, "MODES", (*MODES, Mode("deeper", "a new block", way, network=network)))
    return dataclasses.replace(SMALL, image_encoder=network(None, SMALL).image_encoder)


def test_a_mode_may_add_to_the_network(deeper):
    """The base's parameters stay, and those that it lacks are fresh."""
    from samjax.sharding import make_mesh
    from samjax.train.state import fresh_params
    from samjax.train.trainable import grown_network, grown_params, make_trainable

    config, base = recipe(mode="deeper+decoder"), random_params(SMALL, 1)
    sam = grown_network(config.tune, SMALL)
    assert (sam, type(sam.image_encoder)) == (deeper, ViTConfig)
    fresh = fresh_params(config, sam, make_mesh(devices=jax.devices()[:1]))
    grown = flatten_dict(grown_params(config.tune, sam, base, lambda: fresh), sep="/")
    new = set(grown) - NAMES
    assert {name.split("/")[2] for name in new} == {"2"}
    for name, leaf in grown.items():
        np.testing.assert_array_equal(leaf, flatten_dict(fresh if name in new else base, sep="/")[name])
    assert names(jax.eval_shape(make_trainable(config, sam).split, abstract_params(sam))[0]) == new | DECODER


def test_a_network_that_does_not_grow_asks_for_no_fresh_parameters():
    from samjax.train.trainable import grown_network, grown_params

    tune, params = recipe(mode="decoder").tune, random_params(SMALL)
    assert grown_network(tune, SMALL) == SMALL
    assert grown_params(tune, SMALL, params, lambda: pytest.fail("asked")) is params


def test_a_run_keeps_its_mode(tmp_path):
    from samjax.train import run_folder

    run_folder.write_config(tmp_path, recipe(mode="decoder"), SMALL)
    run_folder.check_same_run(tmp_path, recipe(mode="decoder"))
    with pytest.raises(ValueError, match=r"tune\.mode: 'decoder', now 'full'(?s:.)*another\s+folder"):
        run_folder.check_same_run(tmp_path, recipe())


def test_runs_of_before_there_were_modes_train_everything(tmp_path):
    import json

    from samjax.train import run_folder

    fields = json.loads(run_folder.to_json(recipe(), SMALL))
    assert fields.pop("tune")["mode"] == "full"
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert run_folder.read_config(tmp_path) == (recipe(), SMALL)
    run_folder.check_same_run(tmp_path, recipe())
