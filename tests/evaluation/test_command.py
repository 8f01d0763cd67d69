"""`samjax evaluate`, run as a user runs it."""

import json

import numpy as np
import pytest
from evaluation.example_evaluation import metrics
from PIL import Image

PROTOCOLS = ("interactive", "points", "boxes", "detections", "proposals", "edges", "semantic", "saliency")


def test_help_lists_the_protocols(samjax):
    for args in (["evaluate"], ["evaluate", "--help"]):
        code, printed, _ = samjax(*args)
        assert code == 0
        assert all(protocol in printed for protocol in PROTOCOLS)
    assert "samjax evaluate PROTOCOL" in samjax("--help")[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_explains_its_options(samjax, protocol):
    code, printed, _ = samjax("evaluate", protocol, "--help")
    assert code == 0
    assert "--out DIR" in printed
    assert (protocol in ("semantic", "saliency")) != (
        "--checkpoint" in printed and "--predictor MODULE:FACTORY" in printed
    )


def test_detections_of_a_detector_that_is_always_right(samjax, boxy, coco, tmp_path):
    images, annotations, content = coco
    names = ("image_id", "category_id", "bbox")
    found = [{**{name: entry[name] for name in names}, "score": 0.9} for entry in content["annotations"]]
    (tmp_path / "found.json").write_text(json.dumps(found))
    out = tmp_path / "out"
    options = ("--data", f"coco={images},{annotations}", "--predictor", boxy, "--out", out)
    code, printed, _ = samjax("evaluate", "detections", *options, "--detections", tmp_path / "found.json")
    assert code == 0
    assert metrics(out)["box AP (detector)"] == pytest.approx(1)
    assert 0.3 < metrics(out)["mask AP"] < 0.9 < metrics(out)["mask AP50"]  # most shapes fill most of their boxes
    assert "detections: 2 photo(s)" in printed
    assert (out / "precision_recall.png").exists()


def test_annotations_that_cannot_be_judged_by_are_refused_before_any_work(samjax, boxy, coco, tmp_path):
    images, _, content = coco
    (tmp_path / "found.json").write_text("[]")
    broken = {**content, "annotations": [*content["annotations"], {"id": 99, "image_id": 1, "category_id": 3}]}
    (tmp_path / "truth.json").write_text(json.dumps(broken))
    options = ["--data", f"coco={images},{tmp_path / 'truth.json'}", "--detections", "found.json", "--out", "out"]
    code, _, errors = samjax("evaluate", "detections", *options, "--predictor", boxy)
    assert code == 2
    number = len(content["annotations"])
    assert errors.endswith(f"truth.json: annotation number {number} (from 0) has no segmentation\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("protocol", "options", "metric"),
    [
        ("interactive", ["--clicks", 2, "--thresholds", 0.1, 0.9], "NoC@90"),
        ("points", ["--points", 1, 3], "best of 3@3"),
        ("boxes", ["--refinements", 1], "mIoU"),
        ("proposals", ["--points-per-side", 3], "AR@1000"),
    ],
)
def test_each_protocol_runs(samjax, boxy, coco, tmp_path, protocol, options, metric):
    images, annotations, _ = coco
    data = ["--data", f"coco={images},{annotations}", "--predictor", boxy, "--out", tmp_path / "out"]
    code, printed, errors = samjax("evaluate", protocol, *data, *options)
    assert code == 0, errors
    assert f"{protocol}: 2 photo(s)" in printed
    assert 0 <= metrics(tmp_path / "out")[metric] <= 2


@pytest.mark.parametrize("protocol", ["interactive", "points"])
def test_the_recorded_user_needs_data_with_clicks_and_is_another_evaluation(samjax, boxy, coco, tmp_path, protocol):
    images, annotations, content = coco
    data = ["--data", f"coco={images},{annotations}", "--predictor", boxy, "--out", tmp_path / "out"]
    code, _, errors = samjax("evaluate", protocol, *data, "--user", "recorded")
    assert code == 2
    count = len(content["annotations"])
    assert f"no object with recorded clicks is there to be judged; {count} object(s) of 2 photo(s)" in errors
    code, _, errors = samjax("evaluate", protocol, *data)
    assert code == 2
    assert "holds results of another evaluation" in errors
    assert "settings.next " in errors
    assert '"recorded", now "' in errors


@pytest.mark.parametrize("protocol", ["interactive", "points"])
def test_the_clicks_of_the_pages_work_are_made_again(samjax, boxy, tmp_path, protocol):
    from example_clicks import CLICKS, write_work

    work, out = write_work(tmp_path / "work"), tmp_path / "out"
    options = ["--data", f"work={work}", "--predictor", boxy, "--out", out, "--user", "recorded"]
    code, printed, errors = samjax("evaluate", protocol, *options)
    assert code == 0, errors
    assert f"next {'click' if protocol == 'interactive' else 'point'} recorded" in printed
    found = metrics(out)
    assert (found["objects"], found["objects not made by clicks alone, left out"], found["clicks (mean number)"]) == (
        1,
        1,
        2,
    )
    [line] = (out / "records" / "0-of-1.jsonl").read_text().splitlines()
    [entry] = json.loads(line)["record"]["objects"]
    assert entry["id"] == "clicked"
    assert entry["clicks" if protocol == "interactive" else "points"] == CLICKS


def test_edges_of_a_photo(samjax, boxy, test_data, tmp_path):
    """A box's outline is hardly ever a drawn edge."""
    data = ["--data", test_data / "bsds500", "--split", "val", "--limit", 1, "--predictor", boxy]
    code, printed, errors = samjax("evaluate", "edges", *data, "--points-per-side", 2, "--out", tmp_path / "out")
    assert code == 0, errors
    assert "edges: 1 photo(s)" in printed
    assert 0 <= metrics(tmp_path / "out")["ODS"] < 0.5


def test_edges_of_people_need_no_model(samjax, test_data, tmp_path):
    options = ["human-edges", "--data", test_data / "bsds500", "--split", "val", "--out", tmp_path / "out"]
    code, printed, errors = samjax("evaluate", *options, "--limit", 1)
    assert code == 0, errors
    assert "human_edges: 1 photo(s)" in printed
    assert 0.6 < metrics(tmp_path / "out")["F"] < 0.95
    assert "1 of 1 photo(s) had been judged before" in samjax("evaluate", *options, "--limit", 1)[1]


@pytest.fixture
def maps(tmp_path) -> tuple:
    """Options that name a folder of two true maps and one of predictions, where 3 is taken for 2."""
    truth = np.repeat(np.arange(4, dtype=np.uint8), 25).reshape(10, 10)
    for folder, labels in (("truth", truth), ("predicted", np.minimum(truth, 2))):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(labels).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "truth" / "readme.txt").touch()
    return ("--predicted", tmp_path / "predicted", "--truth", tmp_path / "truth", "--out", tmp_path / "out")


def test_semantic_compares_two_folders(samjax, maps, tmp_path):
    code, printed, errors = samjax("evaluate", "semantic", *maps, "--classes", 4)
    assert code == 0, errors
    assert "semantic: 2 photo(s)" in printed
    assert metrics(tmp_path / "out")["pixel_accuracy"] == 0.75
    assert metrics(tmp_path / "out")["iou 2"] == 0.5
    assert metrics(tmp_path / "out")["iou 3"] == 0
    assert "2 of 2 photo(s) had been judged before" in samjax("evaluate", "semantic", *maps, "--classes", 4)[1]


def test_results_of_other_maps_of_the_same_names_are_not_mixed(samjax, maps, tmp_path):
    assert samjax("evaluate", "semantic", *maps, "--classes", 4)[0] == 0
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "predicted" / "b.png")
    code, _, errors = samjax("evaluate", "semantic", *maps, "--classes", 4)
    assert code == 2
    assert "holds results of another evaluation:\n  data.predicted: " in errors


def test_classes_may_have_names(samjax, maps, tmp_path):
    (tmp_path / "names.txt").write_text("sky\nroad\ntree\nlamp post\n\n")
    code, printed, errors = samjax("evaluate", "semantic", *maps, "--names", tmp_path / "names.txt")
    assert code == 0, errors
    assert "iou lamp post" in printed
    assert metrics(tmp_path / "out")["iou tree"] == 0.5
    (tmp_path / "names.txt").write_text("sky\n\ntree\n")
    for options, problem in (
        (["--names", tmp_path / "names.txt"], "names.txt: line 2 has no name"),
        (["--names", tmp_path / "names.txt", "--classes", 4], "give either --classes K or --names FILE"),
        ([], "give either --classes K or --names FILE"),
    ):
        code, _, errors = samjax("evaluate", "semantic", *maps, *options)
        assert code == 2
        assert problem in errors


def test_saliency_compares_two_folders(samjax, maps, tmp_path):
    for name in "ab":
        Image.fromarray(np.array([[0, 0, 255, 255]], np.uint8)).save(tmp_path / "truth" / f"{name}.png")
        Image.fromarray(np.array([[0, 51, 102, 255]], np.uint8)).save(tmp_path / "predicted" / f"{name}.png")
    code, printed, errors = samjax("evaluate", "saliency", *maps)
    assert code == 0, errors
    assert "saliency: 2 photo(s)" in printed
    found = metrics(tmp_path / "out")
    assert (found["max F"], found["max F threshold"], found["MAE"]) == (1, 52, pytest.approx((0.2 + 0.6) / 4))
    assert (tmp_path / "out" / "precision_recall.png").exists()
    assert (tmp_path / "out" / "f_by_threshold.png").exists()


def test_results_name_the_checksum_that_info_prints(samjax, checkpoint, coco, tmp_path):
    images, annotations, _ = coco
    options = ["--data", f"coco={images},{annotations}", "--limit", 1, "--objects-per-image", 1]
    code, _, errors = samjax("evaluate", "boxes", *options, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert code == 0, errors
    model = json.loads((tmp_path / "out" / "results.json").read_text())["model"]
    assert f"checksum              {model['checksum']}\n" in samjax("info", checkpoint)[1]
    assert "sha256" not in model


def test_a_predictor_of_ones_own_in_two_processes(samjax, boxy, coco, tmp_path):
    images, annotations, content = coco
    options = ["boxes", "--data", f"coco={images},{annotations}", "--predictor", boxy, "--out", "out"]
    code, printed, _ = samjax("evaluate", *options, "--process-index", 0, "--process-count", 2)
    assert code == 0
    assert "1 photo(s) judged; 1 are left to other processes" in printed
    assert samjax("evaluate", *options, "--process-index", 1, "--process-count", 2)[0] == 0
    areas = [(entry["area"], entry["bbox"][2] * entry["bbox"][3]) for entry in content["annotations"]]
    assert metrics(tmp_path / "out")["mIoU"] == pytest.approx(np.mean([area / box for area, box in areas]))


def test_photos_that_fail_are_named_and_the_exit_code_says_so(samjax, boxy, coco, tmp_path):
    images, annotations, content = coco
    (tmp_path / "images").mkdir()
    for entry in content["images"]:
        (tmp_path / "images" / entry["file_name"]).write_bytes((images / entry["file_name"]).read_bytes())
    second = tmp_path / "images" / content["images"][1]["file_name"]
    second.write_bytes(second.read_bytes()[:200])
    options = ["--data", f"coco={second.parent},{annotations}", "--predictor", boxy, "--out", tmp_path / "out"]
    code, printed, errors = samjax("evaluate", "boxes", *options)
    assert code == 2
    assert "boxes: 1 photo(s), 1 FAILED" in printed
    assert printed.count(f"{second.name}: ") == 1  # in the table
    (line,) = [line for line in errors.splitlines() if line.startswith("samjax: error: ")]
    assert errors.endswith(f"{line}\n")
    results = tmp_path / "out" / "results.json"
    assert line.endswith(f"1 photo(s) failed; the same command tries them again; {results} lists them")
    assert list(json.loads(results.read_text())["failures"]) == [second.name]


def test_failures_are_named_where_there_is_no_table_yet(samjax, boxy, coco, tmp_path):
    images, annotations, content = coco
    (tmp_path / "images").mkdir()
    first, second = (tmp_path / "images" / entry["file_name"] for entry in content["images"])
    second.write_bytes((images / second.name).read_bytes())
    first.write_bytes(b"nothing")
    options = ["--data", f"coco={first.parent},{annotations}", "--predictor", boxy, "--out", tmp_path / "out"]
    code, printed, errors = samjax("evaluate", "boxes", *options, "--process-index", 0, "--process-count", 2)
    assert code == 2
    assert "1 are left to other processes" in printed
    assert f"1 photo(s) failed; the same command tries them again:\n  {first.name}: " in errors


def test_masks_without_a_photo_are_files_that_are_left_out(samjax, boxy, tmp_path):
    square = np.zeros((20, 30), np.uint8)
    square[5:15, 5:15] = 255
    for folder, names in (("images", "abcd"), ("masks", "abcxyz")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(square).save(tmp_path / folder / f"{name}.png")
    data = f"pairs={tmp_path / 'images'},{tmp_path / 'masks'}"
    out = tmp_path / "out"
    code, printed, errors = samjax("evaluate", "boxes", "--data", data, "--predictor", boxy, "--out", out)
    assert code == 0, errors
    assert errors.count("samjax: error") == 0
    assert printed.splitlines()[:2] == [
        f"{data}: 3 photos; left out: 1 photo (1 without an annotation file), 3 files (3 without a photo); "
        f"{out / 'left_out.jsonl'} will list what belongs to no photo",
        "boxes: 3 photo(s)",
    ]
    assert "left out: 3 files (3 without a photo); left_out.jsonl lists the files\n" in printed
    assert f"\n{out / 'left_out.jsonl'}\n" in printed
    listed = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert [line["file"] for line in listed] == ["x.png (masks)", "y.png (masks)", "z.png (masks)"]
    results = json.loads((out / "results.json").read_text())
    assert results["photos"] == {"judged": 3, "failed": 0, "annotations_left_out": 0}
    assert results["left_out"]["files"] == {"without a photo": 3}
    assert (
        "3 of 3 photo(s) had been judged before"
        in samjax("evaluate", "boxes", "--data", data, "--predictor", boxy, "--out", out)[1]
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--checkpoint", "x.pth", "--predictor", "a:b"], "give either --checkpoint or --predictor"),
        (["--predictor", "a:b", "--dtype", "bfloat16"], "--dtype and --image-size belong to --checkpoint"),
        (["--predictor", "nothing"], "a predictor is named module:factory"),
        (["--checkpoint", "x.pth", "--process-index", "0"], "--process-index and --process-count belong together"),
        (["--limit", "0"], "limit must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(samjax, coco, tmp_path, options, problem):
    images, annotations, _ = coco
    data = ["--data", f"coco={images},{annotations}", "--out", tmp_path / "out"]
    code, _, errors = samjax("evaluate", "boxes", *data, *options)
    assert code == 2
    assert errors.startswith("samjax: error: ")
    assert problem in errors


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--checkpoint", "x.pth", "--predictor", "a:b"], "give either --checkpoint or --predictor"),
        (["--predictor", "no_module:here"], "the predictor's module 'no_module' cannot be imported"),
        (["--checkpoint", "nothing.pth"], "'nothing.pth' is neither a file or folder nor a known name"),
        (["--process-index", 2, "--process-count", 2], "the process index counts from 0 to the process count - 1"),
    ],
)
def test_a_start_that_fails_looks_at_no_data_and_leaves_nothing(samjax, tmp_path, monkeypatch, options, problem):
    from samjax.evaluation import command

    monkeypatch.setattr(command, "open_dataset", lambda spec: pytest.fail("data were opened"))
    code, _, errors = samjax("evaluate", "boxes", "--data", "sa1b=huge", "--out", tmp_path / "new" / "out", *options)
    assert code == 2
    assert problem in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("inner", ["file", "file/out/inner"])
def test_a_folder_that_cannot_be_written_is_named_before_any_work(samjax, tmp_path, monkeypatch, inner):
    from samjax.evaluation import command

    monkeypatch.setattr(command, "open_dataset", lambda spec: pytest.fail("data were opened"))
    (tmp_path / "file").touch()
    code, _, errors = samjax("evaluate", "boxes", "--data", "sa1b=huge", "--out", tmp_path / inner)
    assert code == 2
    assert f"cannot write into the folder {tmp_path / 'file'}" in errors


@pytest.mark.parametrize("protocol", ["interactive", "points", "boxes"])
def test_a_model_does_not_look_at_photos_without_objects(samjax, boxy, coco, tmp_path, protocol):
    images, annotations, content = coco
    areas = sorted(entry["area"] for entry in content["annotations"])
    (tmp_path / "shy.py").write_text(
        "from pathlib import Path\nfrom boxy import Boxy\nclass Shy(Boxy):\n"
        "    def set_image(self, image):\n"
        "        Path('looked', str(len(list(Path('looked').iterdir())))).touch()\n        super().set_image(image)\n"
    )
    (tmp_path / "looked").mkdir()
    options = [protocol, "--data", f"coco={images},{annotations}", "--predictor", "shy:Shy"]
    code, _, errors = samjax("evaluate", *options, "--min-area", 10**8, "--out", "none")
    assert code == 2
    assert "2 photo(s) have no object to be judged" in errors
    assert not list((tmp_path / "looked").iterdir())
    code, _, errors = samjax("evaluate", *options, "--min-area", areas[-1], "--out", "one")
    assert code == 0, errors
    assert metrics(tmp_path / "one")["objects"] == 1
    assert len(list((tmp_path / "looked").iterdir())) == 1


def test_detections_need_annotations(samjax, checkpoint, coco, tmp_path):
    images, annotations, _ = coco
    data = ["--data", f"coco={images},{annotations}"]
    options = ["--checkpoint", checkpoint, "--out", tmp_path / "out", "--detections", tmp_path / "found.json"]
    code, _, errors = samjax("evaluate", "detections", "--data", f"pairs={images}", *options)
    assert code == 2
    assert "--annotations ANNOTATIONS.json is missing" in errors
    code, _, errors = samjax("evaluate", "detections", *data, "--min-area", 5, *options)
    assert code == 2
    assert "detections are judged against all annotations" in errors
    code, _, errors = samjax("evaluate", "detections", *data, *options)
    assert code == 2
    assert "there is no file" in errors
