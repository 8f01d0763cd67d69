"""Metrics: one line a step, no step twice, readable by TensorBoard."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def writers(tmp_path):
    """Opens the writers of one run folder; closes what is left open."""
    from samjax.train.metrics import MetricWriters

    opened = []

    def open_(**options):
        opened.append(MetricWriters(tmp_path / "run", **{"tensorboard": False, **options}))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_a_line_with_step_time_and_values(writers, tmp_path):
    import time

    start = time.time()
    metrics = writers()
    values = {"loss": jnp.float32(1.5), "iou/1": np.float64(0.25), "count": jnp.int32(3), "half": jnp.bfloat16(2)}
    metrics.write(10, values)
    (line,) = lines(tmp_path)  # at once, not only when the run ends
    assert start - 0.01 <= line.pop("time") <= time.time() + 0.01
    assert line == {"step": 10, "loss": 1.5, "iou/1": 0.25, "count": 3, "half": 2.0}


def test_losses_that_are_not_finite_are_written_too(writers, tmp_path):
    writers().write(1, {"loss": np.float32("nan"), "norm": np.float32("inf")})
    (line,) = lines(tmp_path)
    assert np.isnan(line["loss"])
    assert line["norm"] == np.inf


def test_what_is_no_number_is_refused(writers):
    with pytest.raises(ValueError, match=r"'loss' must be one number, got shape \(3,\)"):
        writers().write(1, {"loss": np.zeros(3)})


def test_a_resumed_run_has_no_step_twice(writers, tmp_path):
    first = writers()
    for step in (10, 20, 30, 40):
        first.write(step, {"loss": step})
    first.close()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')  # killed while writing
    second = writers(resumed_at=20)
    for step in (30, 40):
        second.write(step, {"loss": -step})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(10, 10), (20, 20), (30, -30), (40, -40)]


def test_a_new_run_replaces_the_curve_of_an_old_one(writers, tmp_path):
    writers().write(10, {"loss": 1})
    writers().write(10, {"loss": 2})
    assert [line["loss"] for line in lines(tmp_path)] == [2]


def test_a_damaged_line_is_named(writers, tmp_path):
    writers().write(10, {"loss": 1})
    file = tmp_path / "run" / "metrics.jsonl"
    file.write_text(file.read_text() + "half a line\n" + file.read_text())
    with pytest.raises(ValueError, match="line 2 is no JSON object"):
        writers(resumed_at=10)


def test_only_the_first_process_writes(writers, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    metrics = writers(tensorboard=True)
    metrics.write(1, {"loss": 1.0})
    metrics.picture(1, "val", np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def events(folder):
    """The entries of TensorBoard's files: (step, tag, value or the picture's size)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:  # TFRecord: length, its checksum, data, its checksum
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                image = value.image
                found.append(
                    (event.step, value.tag, (image.height, image.width) if image.height else value.simple_value)
                )
    return found


def test_tensorboard_gets_scalars_and_pictures(writers, tmp_path):
    metrics = writers(tensorboard=True)
    metrics.write(5, {"loss": 0.5})
    metrics.picture(5, "val/photo", np.full((6, 9, 3), 200, np.uint8))
    metrics.close()
    assert sorted(events(tmp_path / "run" / "tensorboard"), key=str) == [(5, "loss", 0.5), (5, "val/photo", (6, 9))]


def test_pictures_are_png_files(writers, tmp_path):
    from samjax import read_image

    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    writers().picture(12, "val/photo", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "run" / "pictures" / "val_photo_0000012.png"), picture)


def test_weights_and_biases_names_its_package_where_it_is_missing(writers, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        writers(wandb="samjax")


def test_weights_and_biases_goes_on_in_the_same_run(writers, monkeypatch):
    calls = []
    fake = types.SimpleNamespace(
        util=types.SimpleNamespace(generate_id=lambda: f"id{len(calls)}"),
        init=lambda **options: calls.append(options) or fake,
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    writers(wandb="samjax", config={"lr": 1}).write(3, {"loss": 1.0})
    writers(wandb="samjax", resumed_at=3)
    first, logged, second = calls
    assert (first["project"], first["id"], first["config"]) == ("samjax", "id0", {"lr": 1})
    assert logged == (3, {"loss": 1.0})
    assert (second["id"], second["resume"]) == ("id0", "allow")


def test_validations_are_found_by_step(writers, tmp_path):
    from samjax.train.metrics import validations

    assert validations(tmp_path / "run" / "metrics.jsonl") == {}
    metrics = writers()
    metrics.write(0, {"val/iou": 0.25, "val/masks": 3.0})
    metrics.write(10, {"loss": 1.0})
    metrics.write(10, {"val/iou": 0.5})
    assert validations(tmp_path / "run" / "metrics.jsonl") == {0: {"iou": 0.25, "masks": 3.0}, 10: {"iou": 0.5}}
