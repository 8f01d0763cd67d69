"""`samjax train`: recipes, overrides, and what it says when something is missing."""

import dataclasses
import json
import re

import pytest

RECIPES = (
    "coco",
    "defects",
    "few_images",
    "medsam",
    "microscopy",
    "nuclei",
    "remote_sensing",
    "sa1b_vit_b",
    "sa1b_vit_h",
    "sa1b_vit_l",
    "tiny",
    "tiny_128",
    "tiny_256",
    "tiny_gpu",
)


@pytest.fixture
def samjax(capsys, monkeypatch, tmp_path):
    """Runs the command: exit code, output and errors."""
    from samjax.cli.command import main

    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("samjax.cli.command._keep_compiled_programs", lambda _: None)  # a setting of the whole process

    def run(*args):
        try:
            code = main(["train", *args])
        except SystemExit as exit:  # tyro's
            code = exit.code or 0
        output, errors = capsys.readouterr()
        return code, output, errors

    return run


def test_without_a_recipe_it_lists_them(samjax):
    code, output, _ = samjax()
    assert code == 0
    names = [line.split()[0] for line in output.splitlines() if line.startswith("  ")]
    assert set(RECIPES) <= set(names)
    assert samjax("--help") == (0, output, "")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_complete(samjax, name):
    """It has a description with its command, prints, comes back from what it prints, and its patterns fit."""
    from samjax.checkpoint import from_json
    from samjax.config import VARIANTS
    from samjax.train.command import _description, load_recipe, summary
    from samjax.train.config import TrainConfig
    from samjax.train.loop import network
    from samjax.train.optim import make_optimizer

    config = load_recipe(name)
    assert f"samjax train {name}" in _description(name)
    assert 10 < len(summary(name)) < 130
    code, printed, _ = samjax(name, "--print-config")
    assert code == 0
    assert from_json(TrainConfig, json.loads(printed)) == config
    sam = VARIANTS["vit_b"] if config.model.init else network(config)
    make_optimizer(config.optim, sam, config.run.steps)
    assert config.run.batch % config.run.accumulate == 0


@pytest.mark.parametrize("name", ["defects", "medsam", "microscopy", "remote_sensing"])
def test_a_step_of_a_recipe_can_be_built(name):
    """Its settings go together, on a network of the same parts."""
    import jax
    from example_training import PICO, nano_batch

    from samjax.sharding import make_mesh
    from samjax.train.command import load_recipe
    from samjax.train.optim import make_optimizer
    from samjax.train.state import abstract_state
    from samjax.train.step import make_step

    config = load_recipe(name)
    mesh = make_mesh(devices=jax.devices()[:1])
    optimizer = make_optimizer(config.optim, PICO, config.run.steps)
    state = abstract_state(config, PICO, optimizer, mesh)
    batch = jax.eval_shape(lambda: nano_batch(config.run.batch, config.data.masks_per_image))
    after, metrics = jax.eval_shape(make_step(config, PICO, optimizer, mesh), state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["terms"].focal.shape == (config.interaction.passes,)


def test_the_list_of_recipes_here_is_whole():
    from samjax.train.command import recipe_names

    assert tuple(recipe_names()) == RECIPES


def test_nested_fields_are_changed_by_the_command_line(samjax):
    from samjax.train.command import load_recipe

    args = ["--run.steps", "7", "--data.train", "sa1b=a", "coco=b,c", "--optim.learning-rate", "1e-4"]
    args += ["--loss.resolution", "input", "--data.scale", "0.1", "2", "--optim.ema", "None", "--run.no-remat"]
    code, printed, errors = samjax("sa1b_vit_b", *args, "--print-config")
    assert code == 0, errors
    before, after = dataclasses.asdict(load_recipe("sa1b_vit_b")), json.loads(printed)
    changed = {
        f"{part}.{name}": value
        for part, fields in after.items()
        for name, value in fields.items()
        if value != json.loads(json.dumps(before[part][name]))
    }
    expected = {
        "run.steps": 7,
        "data.train": ["sa1b=a", "coco=b,c"],
        "optim.learning_rate": 1e-4,
        "loss.resolution": "input",
        "data.scale": [0.1, 2.0],
        "run.remat": False,
    }
    assert changed.pop("optim.ema", None) is None
    assert changed == expected


def test_a_printed_configuration_is_a_recipe(samjax, tmp_path):
    _, printed, _ = samjax("tiny", "--run.seed", "11", "--print-config")
    (tmp_path / "mine.json").write_text(printed)
    assert samjax(str(tmp_path / "mine.json"), "--print-config") == (0, printed, "")


def test_a_python_file_is_a_recipe(samjax, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("from samjax.train.config import *\nCONFIG = TrainConfig(run=RunConfig(seed=5))\n")
    code, printed, _ = samjax(str(mine), "--print-config")
    assert code == 0
    assert json.loads(printed)["run"]["seed"] == 5
    mine.write_text("CONFIG = 3\n")
    assert samjax(str(mine), "--print-config")[::2] == (
        2,
        f"samjax: error: {mine} is no recipe: it defines no CONFIG that is a samjax.train.config.TrainConfig\n",
    )


def test_help_lists_the_fields_with_the_values_of_the_recipe(samjax):
    code, output, _ = samjax("tiny", "--help")
    assert code == 0
    for option in ("--out", "--print-config", "--run.steps", "--optim.learning-rate", "--data.train", "5000", "0.001"):
        assert option in output


@pytest.fixture(scope="module")
def helps():
    """The text of `--help` of some recipes, by option, the default beside it left out; and the text before them."""
    import io
    from contextlib import redirect_stdout, suppress

    from samjax.cli.command import main

    texts = {}
    for name in ("tiny", "few_images", "sa1b_vit_h"):
        with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
            main(["train", name, "--help"])
        head, _, listed = printed.getvalue().partition("-h, --help")
        options: dict[str, str] = {}
        for line in listed.splitlines():
            if option := re.match(r"[│ ] (-[\w.-]+)", line):  # what explains it is indented further
                options[option[1]] = ""
            elif options:
                options[next(reversed(options))] += " " + line.strip("│ ")
        explained = {option: re.sub(r"\(default:.*", "", text).strip() for option, text in options.items()}
        texts[name] = explained, " ".join(head.split())
    return texts


@pytest.mark.parametrize("name", ["tiny", "few_images", "sa1b_vit_h"])
def test_every_field_is_explained(helps, name):
    from samjax.train.config import TrainConfig

    explained, _ = helps[name]
    fields = dataclasses.asdict(TrainConfig())
    wanted = {f"--{part}.{field.replace('_', '-')}" for part, names in fields.items() for field in names}
    assert wanted <= explained.keys()
    assert [option for option in wanted if len(explained[option]) < 15] == []
    assert "samjax info CHECKPOINT --parameters" in explained["--optim.frozen"]


@pytest.mark.parametrize("name", ["tiny", "few_images", "sa1b_vit_h"])
def test_values_of_the_papers_are_given_and_explained_at_the_head(helps, name):
    """Not only marked: beside most recipes' defaults a mark would call another value the paper's."""
    explained, head = helps[name]
    assert '"paper: X" names the value of the SAM paper (arXiv 2304.02643, Appendix A)' in head
    assert '"SAM 2: X" that of SAM 2\'s training code' in head
    assert explained["--optim.learning-rate"] == "the peak (paper: 8e-4; ViT-L 4e-4)"
    for option, words in explained.items():
        marks = re.findall(r"\[P\b|\[S2\b|paper\b|SAM 2\b", words)
        assert all(re.search(rf"{re.escape(mark)}: \S", words) and mark[0] != "[" for mark in marks), option


def test_the_values_that_help_calls_the_papers_are_those_of_its_recipe(helps):
    """That for ViT-H is the paper's."""
    from samjax.train.command import load_recipe

    config = dataclasses.asdict(load_recipe("sa1b_vit_h"))
    explained, _ = helps["sa1b_vit_h"]
    compared = 0
    for option, words in explained.items():
        named = re.search(r"paper: ([^;)]+)", words)
        if named is None or option in ("--data.masks-per-image", "--optim.milestones"):  # "at most", and rounded
            continue
        part, field = option.removeprefix("--").replace("-", "_").split(".")
        value = config[part][field]
        said = [word.replace(",", "") for word in named[1].split()]
        values = value if isinstance(value, tuple) else (value,)
        assert len(said) == len(values), option
        for word, one in zip(said, values, strict=True):
            assert word == one if isinstance(one, str) else float(word) == pytest.approx(one), option
        compared += 1
    assert compared > 20


def test_a_value_out_of_range_is_named_without_a_traceback(samjax):
    code, output, errors = samjax("tiny", "--out", "x", "--run.log-every", "0")
    assert (code, output) == (2, "")
    assert "run.log_every must be at least 1, got 0" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["huge"], "there is no recipe 'huge' and no file of that name; recipes are coco, defects, few_images"),
        (["tiny", "--data.train", "sa1b=x"], "--out DIR is missing"),
        (["tiny", "--out", "{run}"], "data.train names no data: give it as --data.train FORMAT=PATH"),
        (["tiny", "--out", "{run}", "--data.train", "sa1b=/no/where"], "sa1b=/no/where"),
        (["tiny", "--out", "{run}", "--data.train", "zip=x"], "zip"),
        (["tiny", "--out", "{run}", "--model.variant", "vit_x"], "model.variant: unknown 'vit_x'; known are vit_b"),
        (["tiny", "--out", "{run}", "--run.fsdp-axis", "3"], "does not fit"),
        (["tiny", "--out", "{run}", "--optim.frozen", "nothing$"], "no parameter's name fits 'nothing$'"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(samjax, tmp_path, args, said):
    args = [arg.format(run=tmp_path / "run") for arg in args]
    if "--out" in args:
        args += ["--run.cpu-devices", "1"]  # how many there are can be set only before JAX starts
    code, output, errors = samjax(*args)
    assert code == 2
    assert not output
    assert errors.startswith("samjax: error: ")
    assert said in errors
    assert len(errors.splitlines()) == 1, errors


def test_an_option_of_the_recipe_that_its_other_mode_does_not_read_is_warned_of(samjax, tmp_path):
    args = ["few_images", "--out", str(tmp_path / "run"), "--run.cpu-devices", "1", "--model.init", "samjax-tiny"]
    _, _, errors = samjax(*args, "--tune.mode", "lora")
    warning = "tune.prompt_encoder is an option of decoder and last_blocks, and does nothing with tune.mode lora"
    assert errors.splitlines()[0] == f"samjax: warning: {warning}"
    assert "data.train names no data" in errors.splitlines()[1]
    assert "prompt_encoder" not in samjax(*args, "--tune.mode", "lora", "--tune.no-prompt-encoder")[2]
