"""Training without pretrained weights: the first recipe of the bundled model gets going."""

import json

import pytest

TRAIN = """
from samjax.cli.command import main
assert main({arguments!r}) == 0
"""


@pytest.mark.heavy
def test_the_first_300_steps_find_something(run_python, test_data, tmp_path):
    """Empty masks, which focal and dice loss alone predict for hundreds of steps, have an IoU of 0."""
    mini = test_data / "sa_mini"
    runs = {"train": f"sa1b={mini / 'train'}", "val": f"sa1b={mini / 'val'}"}
    options = {f"--data.{name}": place for name, place in runs.items()}
    options |= {"--run.steps": "300", "--run.validate-every": "300", "--run.validation-images": "8"}
    options |= {"--interaction.corrections": "1", "--interaction.refinements": "0"}  # the first pass is looked at
    options |= {"--run.picture-every": "300", "--run.checkpoint-every": "300", "--out": str(tmp_path / "run")}
    arguments = ["train", "tiny", *(word for option in options.items() for word in option)]
    run_python(TRAIN.format(arguments=arguments), JAX_PLATFORMS="cpu")
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    best_of_three = {record["step"]: record["iou_first_oracle"] for record in records if "iou_first_oracle" in record}
    assert best_of_three[300] > 0.15
