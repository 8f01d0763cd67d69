"""The command `samjax`, run as a user runs it."""

import inspect
import json
import os
import shutil
import sys
import warnings

import jax
import numpy as np
import pytest
from example_models import random_photo, random_sam
from PIL import Image
from pycocotools.coco import COCO

from samjax import convert
from samjax.cli import command
from samjax.cli.everything import parse_bytes, process_share
from samjax.ops.rle import decode_rle

EVERYTHING = ("--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    sam = random_sam()
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    convert.write(path, sam.config, sam.params)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "blobs.png"
    Image.fromarray(random_photo(60, 90)).save(path)
    return path


@pytest.fixture
def samjax(tmp_path, monkeypatch, capsys):
    """Runs the command; returns (exit code, standard output, standard error)."""
    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))

    def run(*args) -> tuple[int, str, str]:
        code = command.main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_segment_writes_an_overlay_masks_and_json(samjax, checkpoint, photo, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = samjax(
        "segment",
        photo,
        "--checkpoint",
        checkpoint,
        "--point",
        "40,30",
        "--point",
        "5,5,0",
        "--multimask",
        "--out",
        out,
    )
    assert code == 0
    assert "3 mask(s)" in printed
    assert {path.name for path in out.iterdir()} == {
        "blobs_overlay.png",
        "blobs_mask_0_0.png",
        "blobs_mask_0_1.png",
        "blobs_mask_0_2.png",
        "blobs.json",
    }
    report = json.loads((out / "blobs.json").read_text())
    assert report["prompt"]["points"] == [[40, 30, 1], [5, 5, 0]]
    assert report["image"] == str(photo)
    assert report["size"] == {"height": 60, "width": 90}
    assert len(report["masks"]) == 3
    for record in report["masks"]:
        picture = np.asarray(Image.open(out / record["file"]))
        mask = decode_rle(record["segmentation"])
        np.testing.assert_array_equal(picture, mask * 255)
        assert record["area"] == mask.sum()


def test_several_boxes_are_several_objects(samjax, checkpoint, photo, tmp_path):
    code, _, _ = samjax(
        "segment",
        photo,
        "--checkpoint",
        checkpoint,
        "--box",
        "5,5,50,40",
        "--box",
        "30,10,80,55",
        "--out",
        tmp_path / "o",
    )
    assert code == 0
    assert [record["object"] for record in json.loads((tmp_path / "o/blobs.json").read_text())["masks"]] == [0, 1]


def test_a_mask_file_is_a_prompt(samjax, checkpoint, photo, tmp_path):
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30")
    assert samjax(*common, "--out", tmp_path / "plain")[0] == 0
    assert samjax(*common, "--mask", tmp_path / "mask.png", "--out", tmp_path / "masked")[0] == 0
    plain, masked = (json.loads((tmp_path / name / "blobs.json").read_text())["masks"] for name in ("plain", "masked"))
    assert plain[0]["predicted_iou"] != masked[0]["predicted_iou"]


def test_a_label_map_is_no_mask_and_stops_before_anything_is_computed(samjax, photo, tmp_path):
    Image.fromarray(np.arange(5400, dtype=np.uint8).reshape(60, 90) % 4).save(tmp_path / "labels.png")
    code, _, error = samjax("segment", photo, "--mask", tmp_path / "labels.png", "--out", tmp_path / "out")
    assert code == 2
    assert "labels.png: it has the numbers 1, 2, 3: these look like several objects" in error
    assert not (tmp_path / "out").exists()


def test_stored_embeddings_give_the_same_answer(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30")
    samjax(*common, "--save-embeddings", tmp_path / "store", "--out", tmp_path / "first")
    assert len(list((tmp_path / "store").iterdir())) == 1
    _, printed, _ = samjax(*common, "--embeddings", tmp_path / "store", "--out", tmp_path / "second")
    assert printed.splitlines()[-1].startswith("1 of 1 embedding(s) reused")
    first, second = (json.loads((tmp_path / name / "blobs.json").read_text()) for name in ("first", "second"))
    assert first == second


def test_one_bad_photo_does_not_stop_the_others(samjax, checkpoint, photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    code, printed, error = samjax(
        "segment", tmp_path / "broken.jpg", photo, tmp_path / "absent.png",
        "--checkpoint", checkpoint, "--point", "40,30", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert "blobs.png: 1 mask(s)" in printed
    assert "2 of 3 image(s) failed" in error
    assert "broken.jpg cannot be read as an image" in error
    assert "absent.png" in error
    assert (tmp_path / "out" / "blobs_overlay.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one --point, --box or --mask"),
        (["--point", "1"], "a point is X,Y or X,Y,LABEL"),
        (["--point", "a,b"], "got 'a,b'"),
        (["--point", "1,2,5"], "label is 1"),
        (["--box", "1,2,3"], "a box is X0,Y0,X1,Y1"),
        (["--box", "50,40,5,5"], "x0 < x1"),
        (["--box", "5,5,50,40", "--box", "1,1,9,9", "--point", "2,2"], "cannot tell which"),
    ],
)
def test_bad_prompts_are_one_clear_error_and_write_nothing(samjax, checkpoint, photo, tmp_path, arguments, message):
    code, _, error = samjax("segment", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_photos_may_have_any_name(samjax, checkpoint, photo, tmp_path):
    """No UTF-8, a line end, an escape sequence."""
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"two\nlines.png", b"\x1b[31mred.png")]
    for name in names:
        shutil.copy(photo, tmp_path / name)
    (tmp_path / "broken\x1b\udce9.png").touch()
    photos = [tmp_path / name for name in (*names, "broken\x1b\udce9.png")]
    options = "--checkpoint", checkpoint, "--out", tmp_path / "out"
    for _ in range(2):
        code, printed, errors = samjax("segment", *photos, "--box", "10,10,40,40", *options)
        assert code == 2
        assert "1 of 4 image(s) failed" in errors
        for text in (r"caf\udce9.png: 1 mask", r"two\nlines.png: 1 mask", r"\x1b[31mred.png: 1 mask"):
            assert text in printed
        assert r"broken\x1b\udce9.png cannot be read" in errors
        assert "\x1b" not in printed + errors
    report = json.loads((tmp_path / "out" / "caf\udce9.json").read_text())
    assert report["image"].endswith("/caf%E9.png")
    assert [record["file"] for record in report["masks"]] == ["caf%E9_mask_0.png"]
    samjax("segment", photos[0], "--point", "40,30", "--point", "5,5,0", "--multimask", *options)
    assert not (tmp_path / "out" / "caf\udce9_mask_0.png").exists()  # of the run before

    code, printed, errors = samjax("everything", *photos, *options[:2], "--out", tmp_path / "all", *EVERYTHING)
    assert code == 2
    assert r"broken\x1b\udce9.png cannot be read" in errors
    assert r"caf\udce9.png: " in printed
    assert "\x1b" not in printed + errors
    assert len(json.loads((tmp_path / "all" / "annotations.json").read_text())["images"]) == 3


def test_a_device_that_is_not_there_is_one_clear_error(run_python, photo, tmp_path):
    commands = [
        ["segment", photo, "--point", "5,5", "--out", tmp_path],
        ["everything", photo, "--out", tmp_path],
        ["warmup", "--checkpoint", "samjax-tiny"],
        ["demo", "--out", tmp_path],
        [
            "evaluate",
            "points",
            "--data",
            f"pairs={tmp_path},{tmp_path}",
            "--checkpoint",
            "samjax-tiny",
            "--out",
            tmp_path,
        ],
        ["train", "tiny", "--data.train", f"pairs={tmp_path},{tmp_path}", "--out", tmp_path / "run"],
    ]
    code = f"""
import contextlib, io
from samjax.cli import command
for words in {[list(map(str, words)) for words in commands]}:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert command.main(words) == 2, words
    (line,) = errors.getvalue().splitlines()
    assert line.startswith("samjax: error: JAX_PLATFORMS=nonsense asks for a device that JAX cannot use here ("), line
"""
    run_python(code, JAX_PLATFORMS="nonsense", SAMJAX_CACHE=str(tmp_path / "cache"))


def test_photos_that_differ_in_their_ending_or_not_at_all(samjax, checkpoint, photo, tmp_path):
    Image.open(photo).save(tmp_path / "blobs.webp")
    common = ("--checkpoint", checkpoint, "--point", "1,1", "--out", tmp_path / "o")
    assert samjax("segment", photo, tmp_path / "blobs.webp", *common)[0] == 0
    assert {path.name for path in (tmp_path / "o").glob("*.json")} == {"blobs_png.json", "blobs_webp.json"}
    code, _, error = samjax("segment", photo, photo, *common)
    assert code == 2
    assert "overwrite each other" in error


def test_masks_of_an_earlier_run_do_not_stay_behind(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30", "--out", tmp_path / "out")
    samjax(*common, "--multimask")
    (tmp_path / "out" / "blobs_mask_mine.png").touch()
    samjax(*common)
    assert {path.name for path in (tmp_path / "out").glob("*mask*")} == {"blobs_mask_0.png", "blobs_mask_mine.png"}


def test_a_folder_that_cannot_be_written_is_named_before_any_work(samjax, photo, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = samjax("segment", photo, "--checkpoint", "absent", "--point", "1,1", "--out", tmp_path / "file")
    assert code == 2
    assert f"cannot write into the folder {tmp_path / 'file'}: File exists" in error


def test_embeddings_are_not_looked_for_in_a_folder_that_is_not_there(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "1,1", "--out", tmp_path / "out")
    code, _, error = samjax(*common, "--embeddings", tmp_path / "absent")
    assert code == 2
    assert "there is no folder" in error
    code, _, error = samjax(*common, "--embeddings", tmp_path, "--save-embeddings", tmp_path)
    assert code == 2
    assert "give one of them" in error


def test_another_input_size_may_be_asked_for(samjax, checkpoint, photo, tmp_path):
    common = ("segment", photo, "--checkpoint", checkpoint, "--point", "40,30", "--out", tmp_path / "out")
    assert samjax(*common, "--image-size", "48", "72")[0] == 0
    code, _, error = samjax(*common, "--image-size", "50", "72")
    assert code == 2
    assert "multiples of the patch size 8" in error


def test_points_outside_the_photo_are_answered_with_a_warning(samjax, checkpoint, photo, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, error = samjax(
            "segment", photo, "--checkpoint", checkpoint, "--point", "400,30", "--out", tmp_path / "out"
        )
    assert code == 0
    assert f"samjax: warning: {photo}: 1 point(s) or box corner(s) lie outside the image, e.g. (400, 30)" in error


def test_an_unknown_checkpoint_is_named(samjax, photo, tmp_path):
    code, _, error = samjax("segment", photo, "--checkpoint", "vit_bb", "--point", "1,1", "--out", tmp_path / "out")
    assert code == 2
    assert "did you mean 'vit_b'" in error


def test_info_and_convert_print_the_same_checksum(samjax, checkpoint, tmp_path):
    code, before, _ = samjax("info", checkpoint)
    assert code == 0
    code, after, _ = samjax("convert", checkpoint, tmp_path / "native")
    assert code == 0
    checksums = [next(line for line in text.splitlines() if "checksum" in line) for text in (before, after)]
    assert checksums[0] == checksums[1]
    code, _, error = samjax("convert", checkpoint, tmp_path / "native")
    assert code == 2
    assert "exists already" in error


def test_what_a_training_program_saved_is_told_and_extra_tensors_dropped(samjax, checkpoint, tmp_path):
    from example_pickles import Built, Tensor, save

    from samjax.convert.state_dict import open_state_dict

    tensors = {name: Tensor(tensor.read()) for name, tensor in open_state_dict(checkpoint).tensors.items()}
    content = {"config": Built("my_pkg.Config"), "model": tensors | {"loss.scale": Tensor(np.float32([1]))}}
    path = save(tmp_path / "run.pth", content)
    code, _, error = samjax("info", path)
    assert code == 2
    assert "--drop 'loss.*'" in error
    drop = ("--drop", "loss.*", "--drop", "teacher.*")
    code, told, _ = samjax("info", path, *drop)
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in told.splitlines()[1:])
    assert rows["read"].split() == ["from", "model"]
    assert rows["skipped"] == "config (my_pkg.Config)"
    assert rows["dropped"] == "loss.scale"
    assert rows["warning"] == "no tensor has a name like 'teacher.*', which was to be dropped"
    code, converted, error = samjax("convert", path, tmp_path / "native", *drop)
    assert code == 0
    assert "skipped               config (my_pkg.Config)" in converted
    assert "dropped               loss.scale" in converted
    assert "warning: " in error
    assert rows["checksum"] in converted


@pytest.mark.parity
def test_verify_prints_the_error_of_every_stage(samjax, checkpoint, tmp_path):
    pytest.importorskip("torch")
    from parity.reference import import_segment_anything

    import_segment_anything()
    code, printed, _ = samjax("convert", checkpoint, tmp_path / "small.pth", "--verify")
    assert code == 0, printed
    assert "image embedding" in printed
    assert "box: mask pixels that differ" in printed
    assert "TOO LARGE" not in printed


def test_verify_says_before_any_work_that_the_reference_is_missing(samjax, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    code, _, error = samjax("convert", checkpoint, tmp_path / "small.pth", "--verify")
    assert code == 2
    assert "pip install torch" in error
    assert not (tmp_path / "small.pth").exists()


def test_info_lists_parameters_by_the_names_that_training_takes(samjax, checkpoint):
    from flax.traverse_util import flatten_dict

    code, printed, _ = samjax("info", checkpoint, "--parameters")
    assert code == 0
    expected = flatten_dict(random_sam().params, sep="/")
    listed = dict(line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  ") and "/" in line)
    assert {name: listed[name] for name in expected} == {
        name: " x ".join(map(str, leaf.shape)) for name, leaf in expected.items()
    }
    assert samjax("info", checkpoint)[1] in printed


def test_warmup_reports_compile_and_run_time(samjax, checkpoint):
    sizes = ("--points", "1", "--prompts", "1", "--photo-sizes", "60", "90")
    code, printed, _ = samjax("warmup", "--checkpoint", checkpoint, *sizes)
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].split() == ["program", "compile", "s", "run", "s"]
    assert len(lines) == 5
    assert lines[-1].startswith("upscale to 60 x 90")


def test_the_version_is_printed(samjax):
    assert samjax("--version")[1].startswith("samjax ")


def test_everything_writes_a_dataset_and_overlays_of_a_folder(samjax, checkpoint, photo, tmp_path):
    Image.fromarray(random_photo(60, 90, seed=1)).save(tmp_path / "second.jpg")
    common = (
        "everything",
        photo.parent,
        tmp_path / "second.jpg",
        "--checkpoint",
        checkpoint,
        "--out",
        tmp_path / "out",
    )
    code, printed, _ = samjax(*common, *EVERYTHING)
    assert code == 0
    dataset = COCO(str(tmp_path / "out" / "annotations.json"))
    assert [image["file_name"] for image in dataset.loadImgs(dataset.getImgIds())] == ["blobs.png", "second.jpg"]
    count = len(dataset.getAnnIds(imgIds=[1]))
    assert count > 0
    line = next(line for line in printed.splitlines() if line.startswith(f"{photo}: {count} mask"))
    assert line.endswith(f"-> {tmp_path / 'out' / 'blobs_overlay.jpg'}")
    assert printed.count("compiling for photos of about") == 1  # which the two photos share
    assert "compiling for photos of about 90 x 60 pixels" in printed
    code, printed, _ = samjax(*common, *EVERYTHING)
    assert code == 0
    assert "2 photo(s) were done before and are skipped" in printed


def test_everything_takes_thresholds_that_suit_the_bundled_model(samjax, tmp_path):
    from samjax import SamAutomaticMaskGenerator, assets, hub, read_image

    photo = assets.photo("astronaut")
    arguments = ("--points-per-side", "16", "--convert-to-rle", "--no-overlay", "--out", tmp_path)
    assert samjax("everything", photo, *arguments)[0] == 0
    records = json.loads((tmp_path / "astronaut.json").read_text())
    assert len(records) >= 3
    assert min(record["predicted_iou"] for record in records) < 0.88
    generator = SamAutomaticMaskGenerator(hub.load(), 16, output_mode="coco_rle", **hub.everything_thresholds())
    assert records == generator.generate(read_image(photo))
    meta = inspect.signature(SamAutomaticMaskGenerator).parameters
    assert hub.everything_thresholds("vit_b") == {name: meta[name].default for name in hub.everything_thresholds()}
    assert samjax("everything", photo, *arguments, "--pred-iou-thresh", "0.88")[0] == 0
    assert len(json.loads((tmp_path / "astronaut.json").read_text())) < len(records)


def test_everything_writes_what_the_generator_finds(samjax, checkpoint, photo, tmp_path):
    from samjax import SamAutomaticMaskGenerator, hub, read_image

    arguments = ("--convert-to-rle", "--format", "labelmap", *EVERYTHING, "--nms", "mask", "--no-overlay")
    code, _, _ = samjax("everything", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *arguments)
    assert code == 0
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"blobs.json", "blobs_labels.png"}
    generator = SamAutomaticMaskGenerator(
        hub.load(checkpoint), 4, pred_iou_thresh=0.0, stability_score_thresh=0.0, output_mode="coco_rle", nms="mask"
    )
    records = generator.generate(read_image(photo))
    assert json.loads((tmp_path / "out" / "blobs.json").read_text()) == records
    labels = np.asarray(Image.open(tmp_path / "out" / "blobs_labels.png"))
    assert labels.shape == (60, 90)
    assert labels.max() <= len(records)


def test_everything_names_photos_that_fail_and_does_the_others(samjax, checkpoint, photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    inputs = (tmp_path / "broken.jpg", photo)
    code, printed, error = samjax(
        "everything", *inputs, "--checkpoint", checkpoint, "--out", tmp_path / "out", *EVERYTHING
    )
    assert code == 2
    assert f"{photo}: " in printed
    assert "1 photo(s) failed" in error
    assert "broken.jpg cannot be read as an image" in error
    assert (tmp_path / "out" / "blobs_overlay.jpg").exists()


def test_everything_by_several_processes_is_one_dataset(samjax, checkpoint, photo, tmp_path):
    Image.fromarray(random_photo(60, 90, seed=1)).save(tmp_path / "second.png")
    common = ("everything", photo, tmp_path / "second.png", "--checkpoint", checkpoint, "--out", tmp_path / "out")
    for index in (1, 0):
        assert not (tmp_path / "out" / "annotations.json").exists()
        code, _, _ = samjax(*common, *EVERYTHING, "--process-index", index, "--process-count", 2)
        assert code == 0
    assert len(COCO(str(tmp_path / "out" / "annotations.json")).getImgIds()) == 2


def test_everything_explains_its_memory_and_computes_nothing(samjax, checkpoint, photo, tmp_path):
    common = ("everything", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    code, printed, _ = samjax(*common, *EVERYTHING, "--explain")
    assert code == 0
    assert printed.startswith("1 photo(s) of 90 x 60 pixels")
    assert len(printed.splitlines()) > 1
    assert not (tmp_path / "out").exists()


def test_everything_explains_similar_sizes_together_and_names_unreadable_photos(samjax, checkpoint, photo, tmp_path):
    Image.fromarray(random_photo(70, 100, seed=1)).save(tmp_path / "second.png")
    (tmp_path / "broken.jpg").touch()
    inputs = (tmp_path / "broken.jpg", photo, tmp_path / "second.png")
    arguments = ("--checkpoint", checkpoint, "--out", tmp_path / "out", *EVERYTHING, "--explain")
    code, printed, error = samjax("everything", *inputs, *arguments)
    assert code == 2
    assert [line for line in printed.splitlines() if "photo(s)" in line] == [
        "2 photo(s), the largest of 100 x 70 pixels"
    ]
    assert "broken.jpg cannot be read" in error


def test_everything_refuses_a_memory_budget_before_any_work(samjax, checkpoint, photo, tmp_path):
    arguments = ("--checkpoint", checkpoint, "--out", tmp_path / "out", *EVERYTHING, "--memory-budget", "1KB")
    code, _, error = samjax("everything", photo, *arguments)
    assert code == 2
    assert "a memory budget of" in error
    assert "failed" not in error
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory-budget", "lots"], "a memory budget is a number of bytes"),
        (["--process-index", "0"], "belong together"),
        (["--process-index", "2", "--process-count", "2"], "counts from 0"),
        (["--polygons", "--polygon-tolerance", "-1"], "number of pixels from 0 on"),
        (["--overlap", "5"], "overlap belongs to tile"),
    ],
)
def test_everything_refuses_senseless_arguments(samjax, checkpoint, photo, tmp_path, arguments, message):
    code, _, error = samjax("everything", photo, "--checkpoint", checkpoint, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_everything_names_a_folder_that_cannot_be_written_before_any_work(samjax, photo, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = samjax("everything", photo, "--checkpoint", "absent", "--out", tmp_path / "file")
    assert code == 2
    assert f"cannot write into the folder {tmp_path / 'file'}: File exists" in error


def test_everything_takes_its_share_from_jax_distributed_where_that_runs(monkeypatch):
    assert process_share(None, None) == (0, 1)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert process_share(None, None) == (2, 4)
    assert process_share(0, 1) == (0, 1)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("8mb", 8 * 10**6)]
)
def test_memory_budgets_may_have_units(text, size):
    assert parse_bytes(text) == size
