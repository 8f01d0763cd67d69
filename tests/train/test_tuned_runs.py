"""Runs in each mode: what is frozen stays bit for bit, and what was tuned is exported whole or alone."""

import functools

import jax
import numpy as np
import pytest
from example_models import random_params, random_photo
from example_training import NANO, PICO, nano_batch
from flax.traverse_util import flatten_dict

from samjax import checkpoint, convert, hub
from samjax.checkpoint import CheckpointError
from samjax.config import MaskThresholds

EVERY_LAYER = ("q", "k", "v", "proj", "mlp")
MODES = {
    "lora+parser": {"targets": EVERY_LAYER, "where": ("encoder", "decoder"), "rank": 2, "alpha": 3.0},
    "decoder": {"prompt_encoder": True},
    "last_blocks": {"last": 1},
    "patterns": {"patterns": ("norm",)},
}


def flat(tree):
    return flatten_dict(jax.device_get(tree), sep="/")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base"
    checkpoint.save(path, PICO, random_params(PICO, 3))
    return path


def run(base, folder, mode, steps=2):
    """A run of so many steps as its folder, with the parameters of before and after."""
    from samjax.sharding import make_mesh
    from samjax.train import run_folder
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.config import InteractionConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, TuneConfig
    from samjax.train.loop import base_of, network, starting_params
    from samjax.train.optim import make_optimizer
    from samjax.train.state import init_state, weights
    from samjax.train.step import make_step
    from samjax.train.trainable import make_trainable

    config = TrainConfig(
        model=ModelConfig(init=str(base)),
        interaction=InteractionConfig(corrections=0, refinements=0),
        optim=OptimConfig(learning_rate=0.01, schedule="constant", warmup_steps=0, ema=0.9),
        tune=TuneConfig(mode, **MODES.get(mode, {})),
        run=RunConfig(batch=2, accumulate=2, steps=10, remat=False, compute_dtype="bfloat16", seed=4),
    )
    sam, mesh = network(config), make_mesh(devices=jax.devices()[:1])
    optimizer, trainable = make_optimizer(config.optim, sam, 10), make_trainable(config, sam)
    state = init_state(config, sam, starting_params(config, sam, mesh), optimizer, mesh)
    before = flat(trainable.merge(state.frozen, state.params))
    frozen = flat(state.frozen)
    folder.mkdir()
    run_folder.write_config(folder, config, sam, base=base_of(config))
    step = make_step(config, sam, optimizer, mesh)
    for number in range(steps):
        state, metrics = step(state, nano_batch(2, seed=number))
        assert metrics["finite"]
    with Checkpoints(folder / run_folder.CHECKPOINTS) as checkpoints:
        checkpoints.save(steps, state, None)
    for name, leaf in flat(state.frozen).items():
        np.testing.assert_array_equal(leaf, frozen[name])
    return before, flat(weights(trainable, state)), set(flat(state.params))


@pytest.fixture(scope="module")
def run_of(base, tmp_path_factory):
    """The run of a mode, which all tests share."""

    @functools.cache
    def run_of(mode):
        folder = tmp_path_factory.mktemp("runs") / "run"
        return mode, folder, *run(base, folder, mode)

    return run_of


@pytest.fixture(
    scope="module",
    params=[mode if mode == "lora+parser" else pytest.param(mode, marks=pytest.mark.heavy) for mode in MODES],
)
def tuned_run(request, run_of):
    return run_of(request.param)


def exported(folder, path, **options):
    from samjax.train.export import export

    return export(folder, path, **options)


def test_a_run_starts_from_the_base_and_moves_what_its_mode_says(tuned_run):
    from samjax.tuned import changed_kernel

    mode, _, before, after, trained = tuned_run
    base = flat(random_params(PICO, 3))
    assert before.keys() == base.keys() == after.keys()
    for name, leaf in base.items():
        np.testing.assert_array_equal(before[name], leaf)
    moved = {name for name in base if not np.array_equal(after[name], base[name])}
    expected = {changed_kernel(name) or name for name in trained}
    # Softmax does not see a shift of all keys, and one pass uses neither mask prompts nor all heads.
    unused = {name for name in expected if "k_proj/bias" in name or "mask_down" in name or "prompt_encoder" in name}
    assert moved <= expected
    assert len(moved) >= len(expected - unused) / 2 > 0
    assert (mode in ("decoder", "last_blocks")) == ("mask_decoder/iou_token/embedding" in moved)


def test_what_was_tuned_applied_to_its_base_is_the_merged_export(tuned_run, base, tmp_path):
    mode, folder, _, after, trained = tuned_run
    whole = exported(folder, tmp_path / "whole").description
    tuned = exported(folder, tmp_path / "tuned.safetensors", tuned=True).description
    assert tuned.tune == {"mode": mode, **tuned.tune}
    assert tuned.tune.items() >= MODES[mode].items()
    assert set(tuned.leaves) >= trained
    assert not {name for name in set(tuned.leaves) - trained if "/svd/" not in name}  # nothing of the base
    sam = hub.load(base, tuned=tmp_path / "tuned.safetensors")
    assert sam.config == whole.config
    expected = flat(convert.read(tmp_path / "whole")[1])
    assert flat(sam.params).keys() == expected.keys()
    for name, leaf in flat(sam.params).items():
        np.testing.assert_array_equal(leaf, expected[name])
        np.testing.assert_allclose(leaf, after[name], rtol=0, atol=1e-6)
    half = flat(hub.load(base, tuned=tmp_path / "tuned.safetensors", dtype="bfloat16").params)
    assert {leaf.dtype.name for leaf in half.values()} == {"bfloat16", "float32"}


@pytest.fixture(scope="module")
def shared(run_of, tmp_path_factory):
    """A file of what a run has tuned, and the run."""
    _, folder, *_ = run_of("lora+parser")
    file = tmp_path_factory.mktemp("shared") / "mine.safetensors"
    exported(folder, file, tuned=True)
    return file, folder


def test_the_wrong_base_is_refused_with_both_checksums(shared, base, tmp_path):
    checkpoint.save(tmp_path / "other", PICO, random_params(PICO, 4))
    right, wrong = (convert.describe(path).checksum for path in (base, tmp_path / "other"))
    with pytest.raises(CheckpointError, match=rf"tuned from base.*{right}.*other have {wrong}"):
        hub.load(tmp_path / "other", tuned=shared[0])


def test_the_base_may_be_in_any_format(shared, base, tmp_path):
    convert.convert(base, tmp_path / "base.pth")
    expected = flat(hub.load(base, tuned=shared[0]).params)
    for name, leaf in flat(hub.load(tmp_path / "base.pth", tuned=shared[0]).params).items():
        np.testing.assert_array_equal(leaf, expected[name])


def test_damaged_and_foreign_files_are_refused(shared, base, tmp_path):
    file, _ = shared
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    (tmp_path / "short.safetensors").write_bytes(content[:-100])
    (tmp_path / "text.safetensors").write_text("no such thing")
    (tmp_path / "newer.safetensors").write_bytes(
        file.read_bytes().replace(rb"\"format_version\": 1", rb"\"format_version\": 7")
    )
    convert.convert(base, tmp_path / "whole.safetensors")
    for name, message in {
        "flipped": "checksum does not fit",
        "short": "truncated or damaged .* fetch or export it again",
        "text": "does not hold what `samjax export",
        "newer": "format version 7; this samjax reads 1",
        "whole": "a checkpoint of a whole model is loaded by itself",
        "missing": "there is no file",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            hub.load(base, tuned=tmp_path / f"{name}.safetensors")


def test_what_was_tuned_is_no_checkpoint(shared):
    with pytest.raises(CheckpointError, match="needs its base"):
        hub.load(shared[0])


def test_a_run_and_what_it_tuned_are_merged_with_the_base_alike(shared, base, tmp_path, capsys):
    from samjax.cli import command

    file, folder = shared
    for name, tuned in {"run": folder, "file": file}.items():
        assert command.main(["merge", str(base), str(tuned), str(tmp_path / name), "--alpha", "0.5"]) == 0
    assert "run: step 2 (the latest), averaged parameters" in capsys.readouterr().out
    half, after = (flat(convert.read(tmp_path / name)[1]) for name in ("run", "file"))
    for name, leaf in half.items():
        np.testing.assert_array_equal(leaf, after[name])
    before = flat(random_params(PICO, 3))
    assert any(not np.array_equal(leaf, before[name]) for name, leaf in half.items())


@pytest.mark.parametrize("options", [{"to": "meta"}, {"dtype": "float16"}], ids=str)
def test_options_of_whole_checkpoints_are_refused(shared, tmp_path, options):
    with pytest.raises(ValueError, match="neither --to nor --dtype"):
        exported(shared[1], tmp_path / "a.safetensors", tuned=True, **options)
    with pytest.raises(CheckpointError, match=r"written as \.safetensors"):
        exported(shared[1], tmp_path / "a.pth", tuned=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_no_checkpoint_has_nothing_to_share(tmp_path):
    from samjax.train import run_folder
    from samjax.train.config import TrainConfig

    (tmp_path / "run").mkdir()
    run_folder.write_config(tmp_path / "run", TrainConfig(), PICO)
    with pytest.raises(ValueError, match="nothing to apply it to"):
        exported(tmp_path / "run", tmp_path / "a.safetensors", tuned=True)


def test_another_input_size_is_part_of_what_was_tuned(base, tmp_path):
    """The base is resampled as the run did."""
    from samjax.tuned import Base, Tuned

    size = (48, 32)
    begun = Base("base", convert.describe(base).checksum, PICO)
    tuned = Tuned(begun, PICO.with_image_size(size), {"mode": "decoder"}, 1.0, {}, MaskThresholds(), {})
    convert.write_tuned(tmp_path / "size.safetensors", tuned)
    expected = hub.load(base, image_size=size)
    sam = hub.load(base, tuned=tmp_path / "size.safetensors")
    assert sam.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, sam.params, expected.params)


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A run's merged export in Meta's and Hugging Face's formats, and the model that it tuned."""
    folder = tmp_path_factory.mktemp("merged")
    base = folder / "base"
    checkpoint.save(base, NANO, random_params(NANO, 3))
    run(base, folder / "run", "lora+parser")
    exported(folder / "run", folder / "sam.pth")
    exported(folder / "run", folder / "model", to="huggingface")
    exported(folder / "run", folder / "tuned.safetensors", tuned=True)
    return folder, hub.load(base, tuned=folder / "tuned.safetensors")


@pytest.mark.parity
def test_the_merged_export_answers_in_metas_code_as_the_tuned_model_does(merged):
    torch = pytest.importorskip("torch")
    from parity.comparison import CASES, EMBEDDING_BAR, assert_same_answer, embedding_error
    from parity.reference import import_segment_anything

    from samjax.convert import verify

    folder, sam = merged
    segment_anything = import_segment_anything()
    reference = verify.build_reference(NANO)
    reference.load_state_dict(torch.load(folder / "sam.pth", weights_only=True), strict=True)
    predictor, photo = segment_anything.SamPredictor(reference.eval()), random_photo(60, 90)
    predictor.set_image(photo)
    embedding = sam.encode(photo)
    assert embedding_error(embedding, predictor) <= EMBEDDING_BAR
    assert embedding_error(hub.load(folder / "base").encode(photo), predictor) > 100 * EMBEDDING_BAR
    for case in ("one point", "all together"):
        assert_same_answer(sam, embedding, predictor, CASES[case], multimask=True)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
def test_the_merged_export_answers_in_transformers_as_the_tuned_model_does(merged):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from parity.comparison import CASES, EMBEDDING_BAR, LOGITS_BAR, prompts_of, relative_error

    from samjax import transforms

    folder, sam = merged
    theirs = transformers.SamModel.from_pretrained(folder / "model").eval()
    photo = np.random.default_rng(0).integers(0, 256, (*NANO.image_size, 3), np.uint8)  # fits: frames are the same
    pixels = torch.tensor(transforms.to_pixels(photo, NANO)).permute(2, 0, 1)[None]
    arguments = CASES["one point"].arguments(NANO.image_size, NANO.mask_size)
    with torch.no_grad():
        output = theirs(
            pixel_values=pixels,
            input_points=torch.tensor(arguments["point_coords"]).float()[None, None],
            input_labels=torch.tensor(arguments["point_labels"]).int()[None, None],
            multimask_output=True,
        )
        features = theirs.get_image_embeddings(pixels)
    embedding = sam.encode(photo)
    assert relative_error(embedding.features, features[0].permute(1, 2, 0)) <= EMBEDDING_BAR
    ours = sam.predict(embedding, prompts_of(arguments), multimask=True)
    assert relative_error(ours.logits[0], output.pred_masks[0, 0]) <= LOGITS_BAR
