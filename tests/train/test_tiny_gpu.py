"""The recipe that trains the bundled model on a GPU, for a few steps on CPU: by its script, from data to weights."""

import json
import os
import subprocess
import sys

import pytest
from example_training import write_shapes

MINUTES = 2.5  # most of which the step's compilation takes


@pytest.mark.heavy
def test_the_script_leaves_weights_curves_and_configuration(root, tmp_path):
    import samjax

    packed = tmp_path / "packed"
    write_shapes(packed / "train", 4)
    write_shapes(packed / "val", 2, start=4)
    small = {"--data.workers": "2", "--run.batch": "2", "--run.validation-images": "2", "--run.log-every": "1"}
    small |= {"--data.masks-per-image": "2", "--run.masks-together": "2"}
    options = [word for option in small.items() for word in option]
    script = root / "benchmarks" / "train_bundled.sh"
    out = tmp_path / "out"
    done = subprocess.run(
        [str(script), str(out), str(packed), str(MINUTES), *options],
        env={**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "metrics.jsonl", "samjax-tiny.safetensors", "training.log")
    }
    weights = out / "samjax-tiny.safetensors"
    assert weights.stat().st_size < 16 * 2**20
    assert samjax.load(weights).config.variant == "vit_tiny"
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [record["learning_rate"] for record in records if "learning_rate" in record]
    assert len(rates) >= 2
    assert rates[-1] < 0.05 * max(rates)  # it followed the time to its end
    assert json.loads((out / "config.json").read_text())["run"]["minutes"] == MINUTES
