"""A run from its first step to its last, whatever comes between: real processes, killed, stopped and resumed."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from example_training import COMMAND, MAIN, nano_recipe, stub_training

SLOWLY = """
import time
from samjax.train.progress import Progress
noted = Progress.step
def step(self, waited):
    noted(self, waited)
    time.sleep(0.3)
Progress.step = step
"""

# The second checkpoint has its arrays on the disk, under a temporary name, and never gets its own.
DIES_IN_A_SAVE = """
import os, pathlib, signal
def dying(function):
    def rename(source, target, *args, **kwargs):
        if pathlib.Path(target).name == "6":
            os.kill(os.getpid(), signal.SIGKILL)
        return function(source, target, *args, **kwargs)
    return rename
os.rename, os.replace = dying(os.rename), dying(os.replace)
"""


class Runs:
    """Starts `samjax train` on one recipe in processes of their own, with one cache of compiled programs."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "SAMJAX_CACHE": str(folder / "cache"),
        }

    def recipe(self, **changes) -> Path:
        from samjax.train.run_folder import to_json

        file = self.folder / "recipe.json"
        file.write_text(to_json(nano_recipe(self.folder, **changes)))
        return file

    def start(self, out: str, *options: str, before: str = "", **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-c", COMMAND + before + MAIN, "train", str(self.folder / "recipe.json")]
        return subprocess.Popen(
            [*command, "--out", str(self.folder / out), *options],
            cwd=self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *args: str, code: int = 0, **kwargs: str) -> tuple[str, str]:
        process = self.start(*args, **kwargs)
        output, errors = process.communicate(timeout=600)
        assert process.returncode == code, errors
        return output, errors

    def curve(self, out: str) -> list[tuple[int, float, float]]:
        """Step, loss and gradient norm of all complete lines."""
        file = self.folder / out / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [(entry["step"], entry["loss"], entry["gradient_norm"]) for entry in entries if "loss" in entry]

    def wait_for(self, out: str, step: int, process: subprocess.Popen) -> None:
        deadline = time.monotonic() + 500
        while not any(logged >= step for logged, *_ in self.curve(out)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, root) -> Runs:
    runs = Runs(tmp_path_factory.mktemp("runs"), root)
    runs.recipe()
    return runs


@pytest.fixture(scope="module")
def undisturbed(runs) -> list:
    """The curve of a run that nobody disturbs, all of whose eight steps are logged."""
    output, _ = runs.finish("undisturbed")
    assert "step 8 of 8, finished" in output
    curve = runs.curve("undisturbed")
    assert [step for step, *_ in curve] == list(range(1, 9))
    assert len({loss for _, loss, _ in curve}) == 8
    return curve


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.heavy) for step in (2, 7))])
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(runs, undisturbed, step):
    """Bit for bit, before the first checkpoint and after."""
    out = f"killed at {step}"
    process = runs.start(out, before=SLOWLY)
    runs.wait_for(out, step, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(runs.curve(out)) < 8
    runs.finish(out)
    assert runs.curve(out) == undisturbed


@pytest.mark.heavy
def test_a_run_that_is_killed_in_a_save_goes_on_from_the_save_before(runs, undisturbed):
    runs.finish("killed in a save", before=DIES_IN_A_SAVE, code=-signal.SIGKILL)
    left = sorted(path.name for path in (runs.folder / "killed in a save" / "checkpoints").iterdir())
    assert "3" in left
    assert "6" not in left
    assert any(name.startswith("6.") for name in left), left  # the unfinished one
    runs.finish("killed in a save")
    assert runs.curve("killed in a save") == undisturbed


@pytest.mark.heavy
def test_sigterm_saves_says_so_and_the_same_command_continues(runs, undisturbed):
    process = runs.start("stopped", before=SLOWLY)
    runs.wait_for("stopped", 4, process)
    process.terminate()
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "stopped; the same command continues" in output
    reached = runs.curve("stopped")[-1][0]
    assert 4 <= reached < 8
    assert f"step {reached} of 8" in output
    assert (runs.folder / "stopped" / "checkpoints" / str(reached)).is_dir()
    runs.finish("stopped")
    assert runs.curve("stopped") == undisturbed


def test_a_finished_run_has_nothing_left_to_do(runs, undisturbed):
    output, _ = runs.finish("undisturbed")
    assert "step 8 of 8, finished" in output
    assert runs.curve("undisturbed") == undisturbed


@pytest.mark.heavy
def test_a_run_is_reproduced_from_its_saved_configuration(runs, undisturbed):
    config = runs.folder / "undisturbed" / "config.json"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND + MAIN, "train", config, "--out", runs.folder / "again"],
        cwd=runs.root,
        env=runs.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert runs.curve("again") == undisturbed


@pytest.mark.heavy
def test_a_run_goes_on_on_other_meshes(runs, undisturbed):
    """From eight devices to four to one; its loss is that of one device but for rounding."""
    for mesh, steps in (((2, 2, 2), 3), ((1, 4, 1), 6), ((1, 1, 1), 8)):
        flags = f"--xla_force_host_platform_device_count={math.prod(mesh)}"
        axes = zip(("data", "fsdp", "tensor"), mesh, strict=True)
        options = [word for axis, size in axes for word in (f"--run.{axis}-axis", str(size))]
        if steps == 8:
            runs.finish("meshes", *options, XLA_FLAGS=flags)
            continue
        process = runs.start("meshes", *options, before=SLOWLY, XLA_FLAGS=flags)
        runs.wait_for("meshes", steps, process)
        process.terminate()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    curve = runs.curve("meshes")
    assert [step for step, *_ in curve] == list(range(1, 9))
    for (_, loss, _), (_, expected, _) in zip(curve, undisturbed, strict=True):
        assert abs(loss - expected) <= 1e-4 * expected


TWO_CORES = """
from samjax.train import cores
cores.physical_cores = lambda: 2
"""


@pytest.mark.heavy
def test_a_run_begun_on_one_core_resumes_on_two(runs, undisturbed):
    process = runs.start("cores", "--run.cpu-devices", "1", before=SLOWLY)
    runs.wait_for("cores", 3, process)
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "training on 1 device (cpu)\n" in errors
    _, errors = runs.finish("cores", before=TWO_CORES)
    assert "training on 2 devices (cpu): data 2\n" in errors
    curve = runs.curve("cores")
    assert [step for step, *_ in curve] == list(range(1, 9))
    for (_, loss, _), (_, expected, _) in zip(curve, undisturbed, strict=True):
        assert abs(loss - expected) <= 1e-4 * expected


TWO_PROCESSES = """
import jax
jax.distributed.initialize("127.0.0.1:" + sys.argv.pop(1), 2, int(sys.argv.pop(1)))
"""


def finish_in_two_processes(runs: Runs, out: str, *options: str) -> str:
    """Runs a recipe in two processes, and returns what the first says."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for index in ("0", "1"):
        before = f"sys.argv[1:1] = {[port, index]}\n{TWO_PROCESSES}"
        processes.append(runs.start(out, *options, before=before))
    said = [process.communicate(timeout=600) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return said[0][1]


@pytest.mark.heavy
def test_two_processes_train_what_one_trains(runs, undisturbed):
    finish_in_two_processes(runs, "two")
    for (_, loss, _), (_, expected, _) in zip(runs.curve("two"), undisturbed, strict=True):
        assert abs(loss - expected) <= 1e-4 * expected


@pytest.mark.heavy
@pytest.mark.parametrize("where", ["disk", "auto"])
def test_two_processes_keep_the_features_of_their_photos(runs, where):
    tuned = ("--tune.mode", "decoder", "--data.flip", "0", "--data.val", f"sa1b={runs.folder / 'data'}")
    runs.finish(f"alone beside {where}", *tuned, "--cache.features", "off")
    folder = runs.folder / f"features {where}"
    kept = ("--cache.features", where, "--cache.folder", str(folder))
    said = finish_in_two_processes(runs, f"features in two, {where}", *tuned, *kept)
    assert "features after the image encoder are computed once" in said
    curve, expected = runs.curve(f"features in two, {where}"), runs.curve(f"alone beside {where}")
    assert [step for step, *_ in curve] == list(range(1, 9))
    for (_, loss, _), (_, alone, _) in zip(curve, expected, strict=True):
        assert abs(loss - alone) <= 1e-4 * alone
    photos = 7 if where == "disk" else 0  # one is black: it fills a batch
    assert len(list(folder.rglob("*.safetensors"))) == photos


# What needs no step computed is told in this process.


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe of which nothing may be computed."""
    from example_training import PICO

    from samjax.config import VARIANTS
    from samjax.train import loop

    def computes(*_):
        raise AssertionError("something was computed")

    monkeypatch.setitem(VARIANTS, "pico", PICO)
    for name in ("fresh_params", "init_state", "make_step"):
        monkeypatch.setattr(loop, name, computes)
    return nano_recipe(tmp_path)


def test_views_and_operations_of_a_run_are_those_of_its_mode(recipe, tmp_path, monkeypatch):
    from samjax.train import loop
    from samjax.train.config import CacheConfig, TuneConfig

    views, operations = [], []

    class Noted(loop.Pipeline):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            views.append(options.get("views"))

    def progress(config, mesh, start, flops, pace):
        operations.append(flops(8.0))
        raise KeyError("enough")

    monkeypatch.setattr(loop, "Pipeline", Noted)
    monkeypatch.setattr(loop, "Progress", progress)
    for mode, features in (("full", "auto"), ("adapter", "auto"), ("decoder", "off"), ("decoder", "memory")):
        config = dataclasses.replace(recipe, tune=TuneConfig(mode=mode), cache=CacheConfig(features, views=8))
        with pytest.raises(KeyError, match="enough"):
            loop.train(config, tmp_path / f"{mode} {features}")
    assert views == [0, 0, 8, 8]
    assert operations == sorted(operations, reverse=True)
    assert len(set(operations)) == 4


def test_another_recipe_in_the_same_folder_is_refused_by_the_fields_that_differ(recipe, tmp_path):
    from samjax.train.loop import network, train
    from samjax.train.run_folder import write_config

    (tmp_path / "run").mkdir()
    write_config(tmp_path / "run", recipe, network(recipe))
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    other = dataclasses.replace(
        recipe,
        optim=dataclasses.replace(recipe.optim, learning_rate=0.5),
        run=dataclasses.replace(recipe.run, seed=7, log_every=5),
    )
    with pytest.raises(ValueError, match="another configuration") as error:
        train(other, tmp_path / "run")
    assert "optim.learning_rate: 0.0008, now 0.5" in str(error.value)
    assert "run.seed: 0, now 7" in str(error.value)
    assert "log_every" not in str(error.value)


def test_a_run_at_work_is_left_alone(recipe, tmp_path):
    from samjax.lock import FolderInUse, working_in
    from samjax.train.loop import train

    (tmp_path / "run").mkdir()
    with working_in(tmp_path / "run"), pytest.raises(FolderInUse, match="is in use by process"):
        train(recipe, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_cannot_be_written_stops_before_anything_is_computed(recipe, tmp_path):
    from samjax.train.loop import train

    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(OSError, match="run"):
        train(recipe, tmp_path / "run")


def test_a_full_disk_stops_before_anything_is_computed(recipe, tmp_path, monkeypatch):
    import shutil

    from samjax.train.loop import train

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"0\.00 GB free, and the checkpoints still to come \(4\) take 0\.00 GB"):
        train(recipe, tmp_path / "run")


def test_the_parameters_that_a_run_starts_from_are_let_go_before_its_first_step(tmp_path, monkeypatch):
    import weakref

    import jax.numpy as jnp

    from samjax.train import loop

    stub_training(monkeypatch)
    kept = []

    def starting_params(*_):
        leaf = jnp.zeros(3)
        kept.append(weakref.ref(leaf))
        return {"image_encoder": {"pos_embed": leaf}}

    def counted(*args):
        step = make(*args)
        assert kept[0]() is None
        return step

    make = loop.make_step
    monkeypatch.setattr(loop, "starting_params", starting_params)
    monkeypatch.setattr(loop, "make_step", counted)
    loop.train(nano_recipe(tmp_path), tmp_path / "run")
    assert len(kept) == 1


def test_nan_stops_with_the_names_of_the_photos_and_keeps_the_checkpoint(tmp_path, monkeypatch, capsys):
    """From the fourth step on the loss is NaN."""
    from samjax.cli.command import main
    from samjax.train import loop
    from samjax.train.run_folder import to_json

    done = stub_training(monkeypatch)
    (tmp_path / "recipe.json").write_text(to_json(nano_recipe(tmp_path)))
    command = ["train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]

    def poisoned(*args):
        def step(state, batch):
            after, metrics = make(*args)(state, batch)
            return after, {**metrics, "finite": state.step < 4}

        return step

    make = loop.make_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_step", poisoned)
        assert main(command) == 3
    errors = capsys.readouterr().err
    assert "step 5: the loss is" in errors
    assert errors.count("sa1b/sa_") == 4
    assert "Last checkpoint: 3" in errors
    assert main(command) == 0
    assert done == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))


def test_data_without_recorded_clicks_stop_a_run_that_would_show_some(recipe, tmp_path):
    from samjax.train.loop import train

    user = dataclasses.replace(recipe.interaction, recorded_share=0.5)
    with pytest.raises(ValueError, match=r"^interaction\.recorded_share is 0\.5, and no object of data\.train has"):
        train(dataclasses.replace(recipe, interaction=user), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_has_recorded_clicks_in_its_batches_if_it_shows_some(recipe, tmp_path, monkeypatch):
    from samjax.train import loop

    given = []

    class Noted(loop.Pipeline):
        def __init__(self, *args, **options):
            given.append(options.get("clicks", False))
            super().__init__(*args, **options)
            raise KeyError("enough")

    monkeypatch.setattr(loop, "Pipeline", Noted)
    monkeypatch.setattr(loop, "check_clicks", lambda *_: None)
    for share in (0.0, 0.5):
        user = dataclasses.replace(recipe.interaction, recorded_share=share)
        with pytest.raises(KeyError, match="enough"):
            loop.train(dataclasses.replace(recipe, interaction=user), tmp_path / str(share))
    assert given == [False, True]


def test_bad_data_stop_the_run_and_name_the_report(tmp_path, monkeypatch, capsys):
    from example_training import PICO

    from samjax.train import loop
    from samjax.train.data.report import TooManyBadRecords

    monkeypatch.setitem(loop.VARIANTS, "pico", PICO)
    monkeypatch.setattr(loop, "make_step", lambda *_: lambda state, batch: None)  # no batch will reach it
    recipe = nano_recipe(tmp_path)
    for file in (tmp_path / "data").glob("*.jpg"):
        file.write_bytes(b"no photo")
    (tmp_path / "data" / "sa_77.json").write_text("{}")
    with pytest.raises(TooManyBadRecords, match="bad") as error:
        loop.train(recipe, tmp_path / "run")
    assert str(tmp_path / "run" / "bad_records.jsonl") in str(error.value)
    assert "sa_" in (tmp_path / "run" / "bad_records.jsonl").read_text()
    start, end = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data.train: ")]
    report = f"see {tmp_path / 'run' / 'bad_records.jsonl'}"
    assert start == f"data.train: 7 records; left out: 1 file (1 without a photo); {report}"
    assert end.startswith("data.train: 7 records; left out: ")
    assert end.endswith(f" unreadable), 1 file (1 without a photo); {report}")
