"""Runs resume where they were, lose nothing, and mix nothing."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation.example_evaluation import Grey, Silent, Squares

from samjax.evaluation.runner import Outcome, evaluate
from samjax.lock import FolderInUse, working_in
from samjax.readers.left_out import Problem, Reason

DATA, MODEL = {"format": "squares"}, {"name": "none"}


def run(out: Path, protocol=None, dataset=None, together=1, **changes) -> Outcome:
    given = {"data": DATA, "model": MODEL, "progress": False, **changes}
    dataset = Squares(7) if dataset is None else dataset
    return evaluate(protocol or Grey(), Silent(together), dataset, out, **given)


def results(out: Path) -> dict:
    """results.json without what takes time."""
    found = json.loads((out / "results.json").read_text())
    del found["seconds"]
    return found


def test_all_photos_are_judged_in_their_order_in_groups(tmp_path):
    protocol = Grey()
    outcome = run(tmp_path, protocol, together=3)
    assert [len(group) for group in protocol.judged] == [3, 3, 1]
    assert list(itertools.chain(*protocol.judged)) == [f"photo{index:03}" for index in range(7)]
    assert (outcome.judged, outcome.skipped, outcome.failures, outcome.left) == (7, 0, {}, 0)
    assert outcome.summary.metrics["mean"] == 3
    assert sorted(path.name for path in outcome.files) == ["grey.png", "results.json", "results.txt"]
    assert results(tmp_path)["metrics"] == {"mean": 3.0, "last": 6.0, "photos": 7, "undefined": None}


def test_the_next_group_is_read_while_one_is_judged(tmp_path):
    dataset = Squares(6)
    seen = []

    class Watching(Grey):
        def judge(self, segmenter, samples):
            time.sleep(0.2)
            seen.append(sorted(dataset.read))
            return super().judge(segmenter, samples)

    run(tmp_path, Watching(), dataset, together=2)
    assert seen == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]


def test_a_finished_run_judges_nothing_again_and_gives_the_same(tmp_path):
    run(tmp_path)
    before, protocol, dataset = results(tmp_path), Grey(), Squares(7)
    outcome = run(tmp_path, protocol, dataset)
    assert (outcome.judged, outcome.skipped, protocol.judged, dataset.read) == (0, 7, [], [])
    assert results(tmp_path) == before


def test_a_line_that_was_cut_off_is_judged_again(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "cut")
    journal = tmp_path / "cut" / "records" / "0-of-1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:-1])  # all of it but the end of the line
    protocol = Grey()
    assert run(tmp_path / "cut", protocol).judged == 4
    assert list(itertools.chain(*protocol.judged)) == ["photo003", "photo004", "photo005", "photo006"]
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert journal.read_bytes().count(b"\n") == 7


def test_a_damaged_journal_is_said_to_be(tmp_path):
    run(tmp_path)
    journal = tmp_path / "records" / "0-of-1.jsonl"
    journal.write_bytes(b"{" + journal.read_bytes())
    with pytest.raises(ValueError, match=r"0-of-1\.jsonl is damaged; remove it, and its photos are judged again"):
        run(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from evaluation.example_evaluation import Grey, Squares, Silent
from samjax.readers.left_out import Problem, Reason
from samjax.evaluation.runner import evaluate
evaluate(Grey(seconds=0.1), Silent(2), Squares(20), Path({out!r}),
         data={data!r}, model={model!r}, process_index={index}, process_count={count}, progress=False)
"""


def started(root: Path, out: Path, index: int = 0, count: int = 1) -> subprocess.Popen:
    code = SCRIPT.format(tests=str(root / "tests"), out=str(out), data=DATA, model=MODEL, index=index, count=count)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_to_the_same_results(root, tmp_path):
    out = tmp_path / "killed"
    process = started(root, out)
    journal = out / "records" / "0-of-1.jsonl"
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "results.json").exists()
    done = journal.read_bytes().count(b"\n")
    assert 4 <= done < 20
    with pytest.warns(UserWarning, match=f"process {process.pid} .* this job takes over"):
        outcome = run(out, Grey(), Squares(20), together=2)
    assert (outcome.skipped, outcome.judged) == (done, 20 - done)
    run(tmp_path / "whole", Grey(), Squares(20))
    assert results(out) == results(tmp_path / "whole")


def test_two_processes_share_a_folder(root, tmp_path):
    processes = [started(root, tmp_path / "shared", index, 2) for index in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    run(tmp_path / "alone", Grey(), Squares(20))
    assert results(tmp_path / "shared") == results(tmp_path / "alone")
    counts = [path.read_bytes().count(b"\n") for path in sorted((tmp_path / "shared" / "records").iterdir())]
    assert counts == [10, 10]


def test_whoever_is_last_writes_the_results(tmp_path):
    first = run(tmp_path, process_index=1, process_count=3)
    assert (first.judged, first.left, first.summary, first.files) == (2, 5, None, [])
    assert not (tmp_path / "results.json").exists()
    assert run(tmp_path, process_index=0, process_count=3).left == 2
    last = run(tmp_path, process_index=2, process_count=3)
    assert (last.judged, last.left, last.summary.metrics["photos"]) == (2, 0, 7)


def test_a_run_may_go_on_with_another_number_of_processes(tmp_path):
    run(tmp_path, process_index=0, process_count=2)
    outcome = run(tmp_path)
    assert (outcome.skipped, outcome.judged, outcome.summary.metrics["mean"]) == (4, 3, 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocol": Grey(factor=2.0)}, r"settings.factor: 1.0, now 2.0"),
        ({"data": {"format": "circles"}}, r'data.format: "squares", now "circles"'),
        ({"data": {**DATA, "seed": 1}}, r"data.seed: nothing, now 1"),
        ({"model": {"name": "other"}}, r'model.name: "none", now "other"'),
        ({"dataset": Squares(8)}, r"data.photos: 7, now 8"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, changes, named):
    run(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ValueError, match=rf"holds results of another evaluation:\n  {named}[^$]*another --out"):
        run(tmp_path, **changes)
    assert (tmp_path / "results.json").read_bytes() == before


def test_what_is_only_mentioned_may_change(tmp_path):
    run(tmp_path, given={"data": "here"})
    assert run(tmp_path, given={"data": "there"}).skipped == 7
    assert results(tmp_path)["given"] == {"data": "there"}


def test_photos_of_other_names_are_other_data(tmp_path):
    class Renamed(Squares):
        def name(self, index):
            return f"picture{index}"

    run(tmp_path)
    with pytest.raises(ValueError, match=r"data\.names: "):
        run(tmp_path, dataset=Renamed(7))


@pytest.mark.parametrize("together", [1, 3])
def test_bad_photos_are_named_while_the_others_go_on(tmp_path, together):
    outcome = run(tmp_path, Grey(bad=[5]), Squares(7, bad=[1]), together)
    assert outcome.failures == {"photo001": "photo001.jpg is cut off", "photo005": "RuntimeError: too grey"}
    assert (outcome.judged, outcome.summary.metrics["photos"]) == (5, 5)
    found = results(tmp_path)
    assert found["photos"] == {"judged": 5, "failed": 2, "annotations_left_out": 0}
    assert found["failures"] == outcome.failures
    assert found["left_out"]["photos"] == {"unreadable": 1, "for other reasons": 1}
    table = (tmp_path / "results.txt").read_text()
    assert "5 photo(s), 2 FAILED" in table
    assert "photo005: RuntimeError: too grey" in table


def test_bad_photos_are_tried_again(tmp_path):
    run(tmp_path, Grey(bad=[5]), Squares(7, bad=[1]))
    outcome = run(tmp_path)
    assert (outcome.judged, outcome.skipped, outcome.failures) == (2, 5, {})
    assert results(tmp_path)["photos"] == {"judged": 7, "failed": 0, "annotations_left_out": 0}


def test_annotations_that_were_left_out_are_counted_once(tmp_path):
    class Flawed(Squares):
        def __getitem__(self, index):
            problems = (Problem("annotation 1", "why", Reason.MALFORMED), Problem("annotation 2", "why", Reason.CROWD))
            return dataclasses.replace(super().__getitem__(index), left_out=problems[: index % 3], noted=problems[:1])

    run(tmp_path, dataset=Flawed(4), process_index=0, process_count=2)
    run(tmp_path, dataset=Flawed(4))
    assert results(tmp_path)["photos"] == {"judged": 4, "failed": 0, "annotations_left_out": 3}
    left_out = "left out: 3 annotations (2 malformed, 1 with iscrowd 1); used all the same: 4 annotations (4 malformed)"
    assert left_out in (tmp_path / "results.txt").read_text()
    assert len((tmp_path / "left_out.jsonl").read_text().splitlines()) == 4


def test_records_of_earlier_versions_only_count_what_was_left_out(tmp_path):
    run(tmp_path, dataset=Squares(4))
    (journal,) = (tmp_path / "records").iterdir()
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    for number, entry in enumerate(entries):
        entry["left_out"] = number
        del entry["noted"]
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    run(tmp_path, dataset=Squares(4))
    assert results(tmp_path)["left_out"]["annotations"] == {"for other reasons": 6}


def test_an_error_for_want_of_objects_says_what_was_left_out(tmp_path):
    class Nothing(Grey):
        def summarise(self, records):
            raise ValueError("4 photo(s) have no object to be judged")

    class Crowds(Squares):
        def __getitem__(self, index):
            left_out = (Problem("annotation 1", "why", Reason.CROWD),)
            return dataclasses.replace(super().__getitem__(index), left_out=left_out)

    with pytest.raises(
        ValueError,
        match=r"no object to be judged \(left out: 4 annotations \(4 with iscrowd 1\); if .* iscrowd to 0\)$",
    ):
        run(tmp_path, Nothing(), Crowds(4))


def test_a_run_in_which_nothing_works_fails(tmp_path):
    with pytest.raises(ValueError, match=r"none of 3 photo\(s\) could be judged; the first, photo000: .* cut off"):
        run(tmp_path, dataset=Squares(3, bad=range(3)))


def test_a_run_that_begins_with_failures_only_stops_early(tmp_path):
    dataset = Squares(100, bad=range(100))
    with pytest.raises(ValueError, match=r"none of 20 photo\(s\) could be judged"):
        run(tmp_path, dataset=dataset)
    assert max(dataset.read) < 24
    # One success is enough to go on, and so is one of an earlier run.
    assert len(run(tmp_path, dataset=Squares(100, bad=range(1, 100))).failures) == 99
    assert len(run(tmp_path, dataset=Squares(100, bad=range(1, 100))).failures) == 99


def test_a_protocol_that_loses_photos_is_found_out(tmp_path):
    class Losing(Grey):
        def judge(self, segmenter, samples):
            return super().judge(segmenter, samples)[1:]

    with pytest.raises(ValueError, match=r"none of 7 photo\(s\) could be judged"):
        run(tmp_path, Losing(), together=3)


def test_an_empty_data_set_and_two_photos_of_one_name_are_refused(tmp_path):
    class Same(Squares):
        def name(self, index):
            return "photo"

    with pytest.raises(ValueError, match="the data set has no photo"):
        run(tmp_path, dataset=Squares(0))
    with pytest.raises(ValueError, match="two photos of the data set are called photo"):
        run(tmp_path, dataset=Same(2))


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 1), (0, 0)])
def test_a_process_that_is_none_of_the_processes_is_refused(tmp_path, index, count):
    with pytest.raises(ValueError, match="the process index counts from 0"):
        run(tmp_path, process_index=index, process_count=count)


def test_an_evaluation_at_work_is_left_alone(tmp_path):
    with working_in(tmp_path), pytest.raises(FolderInUse, match="is in use by process"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with working_in(tmp_path, 1, 2):
        assert run(tmp_path, process_index=0, process_count=2).judged == 4


def test_photos_may_have_any_name(tmp_path):
    class Odd(Squares):
        def name(self, index):
            return f"caf\udce9\x1b{index}"

    run(tmp_path, Grey(bad=[1]), Odd(3))
    assert r"  caf\udce9\x1b1: RuntimeError: too grey" in (tmp_path / "results.txt").read_text()
    assert list(results(tmp_path)["failures"]) == ["caf%E9\x1b1"]
    assert run(tmp_path, Grey(), Odd(3)).judged == 1
