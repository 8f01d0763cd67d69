"""`benchmarks/gpu.py` on the smallest model and on whatever device there is, so that it works when a GPU is lent."""

import importlib.util
import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

FIELDS = {"section", "contender", "kind", "card", "driver", "jax", "torch", "transformers", "date"}


@pytest.fixture(autouse=True)
def sources(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", str(root / "tests"))


@pytest.fixture
def without_torch(monkeypatch):
    """As where it is not installed."""
    found = importlib.util.find_spec
    torch = ("torch", "transformers", "segment_anything")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name in torch else found(name, *args))


@pytest.fixture
def quickly(monkeypatch):
    """Programs are hardly optimised and repeated as little as possible."""
    from gpu_sections import stopwatch

    monkeypatch.setattr(stopwatch, "MOST", stopwatch.LEAST)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def traced_only(monkeypatch):
    """The training step, which takes half a minute to compile, is traced and lowered; its results are zeros."""
    from gpu_sections import jax_device

    compiled = jax_device.compiled

    def traced(program, *arguments, **static):
        if not hasattr(arguments[0], "opt_state"):
            return compiled(program, *arguments, **static)
        program.lower(*arguments, **static)
        state, metrics = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.eval_shape(*arguments))
        metrics |= {"finite": np.True_, "masks": arguments[1].valid.sum()}
        return jax_device.Compiled(lambda *_: (state, metrics), 0.0, 0)

    monkeypatch.setattr(jax_device, "compiled", traced)


def results(folder):
    """By section and contender."""
    found: dict[tuple[str, str], list[dict]] = {}
    for record in json.loads((folder / "gpu.json").read_text()):
        assert record.keys() >= FIELDS
        assert record["card"]
        found.setdefault((record["section"], record["contender"]), []).append(record)
    return found


@pytest.mark.heavy
def test_all_that_needs_no_torch_works_and_the_rest_says_so(tmp_path, capsys, without_torch, quickly, traced_only):
    import gpu

    sections = ("peaks", "correctness", "attention", "encoder_b8", "decoder", "training_b", "everything")

    assert gpu.main(["--tiny", "--in-process", "--out", str(tmp_path), "--sections", *sections]) == 0
    found = results(tmp_path)
    for record in (record for of_job in found.values() for record in of_job):
        torch = record["contender"] in ("Meta's code", "PyTorch")
        assert (record.get("reason") == "torch is not installed") == torch
        assert torch or record["kind"] in ("check", "speed", "peak")
    assert {section for section, contender in found if contender in ("samjax", "JAX")} == set(sections)
    checks = {record["what"] for record in found["correctness", "samjax"]}
    assert any("alone" in what for what in checks)
    assert any("bfloat16" in what for what in checks)
    for record in found["attention", "samjax"]:
        assert record["kind"] == "speed" or record["passed"], record
    of_cudnn = [record for record in found["attention", "samjax"] if "CuDNN" in record["what"]]
    assert [record["kind"] for record in of_cudnn] == ["check", "check", "speed", "speed"] * 2  # grid and windows
    (speed,) = found["encoder_b8", "samjax"]
    assert speed["seconds"] > 0
    top = max(record.get("flops_per_second", 0) for record in found["peaks", "JAX"])
    assert speed["share_of_peak"] == pytest.approx(speed["flops"] / speed["seconds"] / top)
    assert [record["prompts_per_second"] > 0 for record in found["decoder", "samjax"]] == [True]
    markdown = (tmp_path / "gpu.md").read_text()
    assert "| ViT-B encoder, batch 2 | samjax, bfloat16 |" in markdown
    assert "| encoder_b8 | Meta's code | skipped: torch is not installed |" in markdown
    assert markdown in capsys.readouterr().out


def jobs(*names):
    from gpu_sections.jobs import Job

    return [Job("broken", name, f"example_jobs:{name}", needs=()) for name in names]


def run(folder, jobs, **more):
    import gpu
    from gpu_sections.jobs import Setting

    scratch = folder / "scratch"
    scratch.mkdir()
    found = gpu.Results(folder / "out", gpu.machine())
    gpu.run(jobs, Setting(scratch), found, **{"budget": 60, "limit": 5, "in_process": False, **more})
    return found, results(folder / "out")


def test_a_job_that_fails_says_why_and_the_others_go_on(tmp_path):
    all_of_them = jobs("raises", "dies", "hangs", "answers")
    start = time.monotonic()
    found, by_job = run(tmp_path, all_of_them, limit=2)
    assert time.monotonic() - start < 20
    assert not found.good
    last = {contender: of_job[-1] for (_, contender), of_job in by_job.items()}
    assert {name: record.get("reason") for name, record in last.items()} == {
        "raises": "ValueError: no memory is left",
        "dies": "exit status -9",
        "hangs": "stopped after 2 s",
        "answers": None,
    }
    assert 'File "tests/example_jobs.py", line' in last["raises"]["output"]
    assert last["dies"]["output"] == "about to die"
    assert last["hangs"]["output"] == "about to hang"
    for name in ("hangs", "answers"):  # what was measured before something went wrong counts
        assert by_job["broken", name][0]["measured"] == 1
    markdown = (tmp_path / "out" / "gpu.md").read_text()
    assert "| broken | raises | failed: ValueError: no memory is left |" in markdown


def test_what_the_budget_has_no_time_for_is_skipped(tmp_path, monkeypatch):
    import gpu

    monkeypatch.setattr(gpu, "LEAST", 56)
    found, by_job = run(tmp_path, jobs("answers", "hangs", "raises"), limit=4)
    assert by_job["broken", "answers"][0]["kind"] == "check"
    assert by_job["broken", "hangs"][-1]["kind"] == "failed"
    (last,) = by_job["broken", "raises"]
    assert last["kind"] == "skipped"
    assert last["reason"].endswith("s were left of the budget of 60 s")
    assert not found.good


def test_a_failure_ends_no_other_job_of_the_same_process(tmp_path):
    _, by_job = run(tmp_path, jobs("raises", "answers"), in_process=True)
    (failed,) = by_job["broken", "raises"]
    assert failed["reason"] == "ValueError: no memory is left"
    assert by_job["broken", "answers"][0]["kind"] == "check"


def test_a_result_that_is_not_a_number_fails_its_check(root):
    from gpu_sections.stopwatch import check

    assert not check("error", float("nan"), 1.0)["passed"]
    assert not check("agreement", float("nan"), 1.0, at_least=True)["passed"]
    assert check("error", 1.0, 1.0)["passed"]
    assert check("agreement", 1.0, 1.0, at_least=True)["passed"]


def test_no_section_is_named_twice_over():
    from gpu_sections.schedule import schedule

    order = list(dict.fromkeys(job.section for job in schedule()))
    assert order[:5] == ["peaks", "correctness", "encoder_b8", "training_b", "encoder_h8"]
    assert len({(job.section, job.contender) for job in schedule()}) == len(schedule())
    assert [job.section for job in schedule(tiny=True)] == [job.section for job in schedule()]


@pytest.mark.parity
def test_everything_works_beside_torch_in_processes_of_its_own(root, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    sections = ["peaks", "correctness", "encoder_b8", "training_b", "decoder", "everything", "encoder_b8_transformers"]
    command = [sys.executable, str(root / "benchmarks/gpu.py"), "--tiny", "--limit", "300", "--budget", "900"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--sections", *sections], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert all(record["kind"] in ("check", "speed", "peak", "note") for of_job in found.values() for record in of_job)
    assert {"JAX", "PyTorch", "samjax", "Meta's code", "torch.compile of each block", "transformers, sdpa"} == {
        contender for _, contender in found
    }
    checks = [record for record in found["correctness", "samjax"] if record["kind"] == "check"]
    assert [check["bar"] for check in checks] == [1e-5, 1e-4, 1e-4, 0.99999, 1e-5, 0.99]
    masks = {record["masks"] for contender in ("samjax", "Meta's code") for record in found["everything", contender]}
    assert len(masks) == 1
    assert masks.pop() > 0
