"""A run's weights in other programs' formats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params, random_photo

from samjax import convert


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def shifted(params, by):
    return jax.tree.map(lambda leaf: leaf + np.float32(by), params)


@pytest.fixture(scope="module")
def params():
    return random_params(SMALL)


@pytest.fixture(scope="module")
def run(params, tmp_path_factory):
    """The folder of a run with an average, whose second checkpoint of three is the best."""
    from samjax.train import run_folder
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.config import OptimConfig, TrainConfig
    from samjax.train.metrics import JSONL
    from samjax.train.state import TrainState

    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    run_folder.write_config(folder, TrainConfig(optim=OptimConfig(ema=0.999)), SMALL)
    key = jax.random.key_data(jax.random.key(0))
    with Checkpoints(folder / run_folder.CHECKPOINTS, keep_last=3) as checkpoints:
        for step, iou in ((10, 0.5), (20, 0.9), (30, 0.7)):
            raw, ema = jax.tree.map(jnp.asarray, (shifted(params, step), shifted(params, step + 1)))
            checkpoints.save(step, TrainState(jnp.int32(step), raw, {}, ema, key), None, {"iou": iou})
    (folder / JSONL).write_text('{"step": 0, "val/iou": 0.25}\n{"step": 10, "loss": 1.0}\n')
    return folder


@pytest.mark.parametrize(
    ("options", "shift"),
    [({}, 21), ({"raw": True}, 20), ({"step": 30}, 31), ({"step": 10, "raw": True}, 10)],
    ids=["best", "best, raw", "a step", "a step, raw"],
)
def test_the_weights_asked_for_are_written(run, params, tmp_path, options, shift):
    from samjax.train.export import export

    exported = export(run, tmp_path / "sam", **options)
    described = exported.description
    config, written = convert.read(tmp_path / "sam")
    assert (described.format, config) == ("native", SMALL)
    assert_identical(written, shifted(params, shift))
    step, weights = shift - shift % 10, "raw" if options.get("raw") else "averaged"
    told = {"run": "run", "step": step, "weights": weights, "metrics": {"iou": {10: 0.5, 20: 0.9, 30: 0.7}[step]}}
    assert told.items() <= described.provenance.items()
    assert (exported.step, exported.weights, exported.metrics) == (step, weights, told["metrics"])
    assert (exported.decay, exported.unmeasured) == ((None, True) if options.get("raw") else (0.999, False))


@pytest.mark.parametrize(("name", "to", "format"), [("sam.pth", None, "meta"), ("hf", "huggingface", "huggingface")])
def test_other_programs_formats(run, params, tmp_path, name, to, format):
    from samjax.train.export import export

    assert export(run / "config.json", tmp_path / name, to=to).description.format == format
    assert_identical(convert.read(tmp_path / name)[1], shifted(params, 21))


@pytest.fixture
def samjax_export(run, tmp_path, monkeypatch, capfd):
    """Runs `samjax export` on the run: exit code, output and errors, those of libraries' loggers included."""
    from samjax.cli import command

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_keep_compiled_programs", lambda _: None)  # a setting of the whole process

    def export(*args):
        code = command.main(["export", str(run), *map(str, args)])
        return code, *capfd.readouterr()

    return export


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            [],
            ["step 20 (the best val/iou", "averaged parameters (optim.ema 0.999)", "val/iou 0.9000, 0.2500 at step 0"],
        ),
        (["--step", "30"], ["step 30 (asked for)", "averaged parameters", "val/iou 0.7000, 0.2500 at step 0"]),
        (["--raw"], ["step 20", "raw parameters", "val/iou 0.9000, 0.2500 at step 0 (of the averaged parameters)"]),
    ],
)
def test_the_command_says_which_step_and_average_it_wrote(samjax_export, tmp_path, options, said):
    code, output, errors = samjax_export(tmp_path / "sam.safetensors", *options)
    assert (code, errors) == (0, "")
    first, *rest = output.splitlines()
    assert first.startswith(f"{tmp_path / 'sam.safetensors'}: meta custom, ")
    assert len(rest) == len(said)
    for line, part in zip(rest, said, strict=True):
        assert part in line
        assert ("of the averaged" in line) == ("of the averaged" in part)


def test_nothing_is_overwritten_unless_asked_for(samjax_export, tmp_path):
    (tmp_path / "sam.safetensors").write_text("mine")
    code, _, errors = samjax_export(tmp_path / "sam.safetensors")
    assert (code, (tmp_path / "sam.safetensors").read_text()) == (2, "mine")
    assert "exists already" in errors


def test_remarks_of_libraries_are_not_shown_and_their_errors_are(samjax_export, tmp_path, monkeypatch, capfd):
    """They are shown again afterwards: other programs' settings are left as they were."""
    import logging

    from absl import logging as absl_logging

    from samjax.train import export

    def convert_write(*args, **kwargs):
        absl_logging.warning("a remark")
        absl_logging.error("an error")

    handler = logging.StreamHandler()
    logging.getLogger("absl").addHandler(handler)
    try:
        monkeypatch.setattr(export.convert, "write", convert_write)
        _, _, errors = samjax_export(tmp_path / "sam")
        absl_logging.warning("afterwards")
    finally:
        logging.getLogger("absl").removeHandler(handler)
    assert "an error" in errors
    assert "a remark" not in errors
    assert "read_only" not in errors  # one of orbax's own
    assert "afterwards" in capfd.readouterr().err


def test_what_is_no_run_is_refused_and_nothing_is_made(run, tmp_path):
    from samjax.train import run_folder
    from samjax.train.config import TrainConfig
    from samjax.train.export import export

    with pytest.raises(ValueError, match="no folder of a training run"):
        export(tmp_path, tmp_path / "sam")
    with pytest.raises(ValueError, match=r"no checkpoint of step 15 .* there are \[10, 20, 30\]"):
        export(run, tmp_path / "sam", step=15)
    begun = tmp_path / "begun"
    begun.mkdir()
    run_folder.write_config(begun, TrainConfig(), SMALL)
    with pytest.raises(ValueError, match="no complete checkpoint"):
        export(begun, tmp_path / "sam")
    assert [entry.name for entry in tmp_path.iterdir()] == ["begun"]
    assert [entry.name for entry in begun.iterdir()] == ["config.json"]


@pytest.mark.parity
def test_metas_code_answers_as_the_trained_model_does(tmp_path, run, params):
    """Loaded strictly into the reference's own class; the bar is that of all comparisons with it."""
    torch = pytest.importorskip("torch")
    from parity.comparison import CASES, EMBEDDING_BAR, assert_same_answer, embedding_error
    from parity.reference import import_segment_anything

    from samjax import Sam
    from samjax.convert import verify
    from samjax.train import run_folder
    from samjax.train.checkpoints import Checkpoints
    from samjax.train.config import TrainConfig
    from samjax.train.export import export
    from samjax.train.state import TrainState

    folder = tmp_path / "run"
    folder.mkdir()
    run_folder.write_config(folder, TrainConfig(), SMALL)
    trained = jax.tree.map(jnp.asarray, params)
    with Checkpoints(folder / run_folder.CHECKPOINTS) as checkpoints:
        state = TrainState(jnp.int32(1), trained, {}, None, jax.random.key_data(jax.random.key(0)))
        checkpoints.save(1, state, None)
    export(folder, tmp_path / "sam.pth")

    segment_anything = import_segment_anything()
    reference = verify.build_reference(SMALL)
    reference.load_state_dict(torch.load(tmp_path / "sam.pth", weights_only=True), strict=True)
    predictor, sam = segment_anything.SamPredictor(reference.eval()), Sam(SMALL, trained)
    photo = random_photo(60, 90)
    predictor.set_image(photo)
    embedding = sam.encode(photo)
    assert embedding_error(embedding, predictor) <= EMBEDDING_BAR
    for case in ("one point", "all together"):
        assert_same_answer(sam, embedding, predictor, CASES[case], multimask=True)
