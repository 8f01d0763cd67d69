"""The report of bad records and when a run stops."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from samjax.readers.left_out import Problem, Reason, Tally
from samjax.readers.record import BadRecord, NoObjects, Record
from samjax.train.data.report import BadRecords, TooManyBadRecords

RGB = np.zeros((4, 4, 3), np.uint8)


class Some:
    """Records of which some are bad."""

    def __init__(self, count: int, bad=(), problems=(), empty=(), **more):
        self.count, self.bad, self.problems = count, frozenset(bad), tuple(problems)
        self.empty, self.more, self.read = frozenset(empty), more, []

    def __len__(self):
        return self.count

    def name(self, index: int) -> str:
        return f"photo {index}"

    def __getitem__(self, index: int) -> Record:
        self.read.append(index)
        if index in self.bad:
            raise BadRecord(f"reason {index}")
        masks = () if index in self.empty else ({"size": [4, 4], "counts": "0@"},)
        return Record(self.name(index), RGB, masks, self.problems, **self.more)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def bad_names(path) -> set[str]:
    """The records that are bad according to a report, read from its beginning to its end."""
    names = set()
    for entry in lines(path):
        if "bad" in entry:
            names.add(entry["record"])
        elif "good" in entry:
            names.discard(entry["record"])
    return names


def test_bad_records_are_named_once_with_their_reason(tmp_path):
    report = BadRecords(tmp_path / "runs" / "bad.jsonl", max_share=0.5)
    source = Some(10, bad=[3])
    for _ in range(3):
        with pytest.raises(BadRecord, match="reason 3"):
            report.load(source, 3)
        assert report.load(source, 4).name == "photo 4"
    assert lines(report.path) == [{"record": "photo 3", "bad": "reason 3", "reason": "unreadable"}]


def problem(number: int, reason: Reason) -> Problem:
    return Problem(f"annotation {number}", "why", reason)


def test_annotations_that_were_left_out_are_named_once(tmp_path):
    problems = [problem(1, Reason.EMPTY), problem(2, Reason.OUTSIDE), problem(3, Reason.EMPTY)]
    source = Some(10, problems=problems, crowds=(problem(4, Reason.CROWD),), noted=(problem(5, Reason.BOX),))
    report = BadRecords(tmp_path / "bad.jsonl")
    for _ in range(3):
        report.load(source, 5)
    counts = {"with an empty mask": 2, "out of the photo": 1, "with iscrowd 1": 1}
    assert lines(report.path) == [
        {"record": "photo 5", "left_out": [f"annotation {number}: why" for number in (1, 2, 3, 4)], "reasons": counts},
        {"record": "photo 5", "noted": ["annotation 5: why"], "reasons": {"with an unusable bbox": 1}},
    ]
    report.load(source, 6)
    tally = BadRecords(report.path).tally()  # as of a run that was resumed
    assert tally == report.tally() == Tally(Counter(), Counter(counts) + Counter(counts), Counter({Reason.BOX: 2}))


def test_what_an_earlier_version_reported_is_counted(tmp_path):
    (tmp_path / "bad.jsonl").write_text(
        '{"record": "a", "bad": "why"}\n{"record": "b", "left_out": ["annotation 1: why", "annotation 2: why"]}\n'
    )
    tally = BadRecords(tmp_path / "bad.jsonl").tally()
    assert (tally.photos, tally.annotations) == ({Reason.OTHER: 1}, {Reason.OTHER: 2})


def test_what_was_known_at_the_start_is_named_at_once_and_counted_once(tmp_path):
    known = Tally(Counter({Reason.UNREADABLE: 1, Reason.NO_OBJECTS: 4}), Counter({Reason.CROWD: 7}))
    flawed = [Problem("photo 3", "reason 3", Reason.UNREADABLE)]
    for _ in range(2):  # a run, and the same resumed
        report = BadRecords(tmp_path / "bad.jsonl", max_share=0.2)
        report.add_known(flawed, known)
        assert lines(report.path)[0] == {"record": "photo 3", "flawed": "reason 3", "reason": "unreadable"}
        assert report.tally() == known
        report.load_good(Some(10, bad=[3, 5]), 3)
        assert report.tally() == known
    assert len(lines(report.path)) == 2
    report.load_good(Some(10, bad=[3, 5]), 5)
    assert report.tally().photos == {Reason.UNREADABLE: 2, Reason.NO_OBJECTS: 4}


def test_files_without_a_photo_are_counted_as_files_and_as_bad_records(tmp_path):
    known = Tally(files=Counter({Reason.NO_PHOTO: 3}))
    strays = [Problem(f"photo {number}", "there is none", Reason.NO_PHOTO, stray="files") for number in (7, 8, 9)]
    report = BadRecords(tmp_path / "bad.jsonl", max_share=0.2)
    report.add_known(strays, known)
    source = Some(10, bad=[7, 8, 9])
    for index in (7, 8):
        with pytest.raises(BadRecord):
            report.load(source, index)
    assert report.tally() == known
    assert str(report.tally()) == "left out: 3 files (3 without a photo)"
    with pytest.raises(TooManyBadRecords, match="all 10 records 3 are bad"):
        report.load(source, 9)


def test_photos_without_objects_are_counted_and_not_bad(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=0.0)
    source = Some(50, empty=range(1, 50))
    for index in (*range(1, 50), *range(1, 50)):
        with pytest.raises(NoObjects):
            report.load(source, index)
    assert len(source.read) == 49  # each is read once
    assert report.load_good(source, 7)[0] == 0
    assert report.tally().photos == {Reason.NO_OBJECTS: 49}
    assert lines(report.path)[0] == {"record": "photo 1", "no_objects": True}


def test_the_photo_instead_of_one_without_objects_is_drawn(tmp_path):
    """The next one would be the same for all where negatives lie together."""
    report = BadRecords(tmp_path / "bad.jsonl")
    source = Some(40, empty=range(20, 40))
    found = [report.load_good(source, 30, np.random.default_rng(seed))[0] for seed in range(400)]
    counts = np.bincount(found, minlength=40)
    assert (counts[:20] > 5).all()
    assert counts[20:].sum() == 0
    assert found[:9] == [report.load_good(source, 30, np.random.default_rng(seed))[0] for seed in range(9)]
    one = Some(12, empty=set(range(12)) - {5}, bad=[3])
    assert {report.load_good(one, index, np.random.default_rng(index))[0] for index in range(12)} == {5}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_source_without_objects_stops_the_run_and_says_why(tmp_path, count):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=1.0)
    crowds = (problem(1, Reason.CROWD), problem(2, Reason.CROWD))
    source = Some(count, empty=range(count), crowds=crowds)
    with pytest.raises(TooManyBadRecords, match=rf"none of all {count} records .*\({2 * count} with iscrowd 1\)"):
        report.load_good(source, 0, np.random.default_rng(0))


def test_a_large_source_without_objects_is_not_read_to_its_end(tmp_path):
    source = Some(100_000, empty=range(100_000))
    with pytest.raises(TooManyBadRecords, match="none of the 1000 photos that were read, of 100000, has an object"):
        BadRecords(tmp_path / "bad.jsonl").load_good(source, 0, np.random.default_rng(0))
    few = Some(100_000, empty=range(1, 100_000))
    report = BadRecords(tmp_path / "few.jsonl")
    for index in range(1, 999):
        with pytest.raises(NoObjects):
            report.load(few, index)
    report.load(few, 0)
    for index in range(999, 1200):
        with pytest.raises(NoObjects):
            report.load(few, index)


def test_what_is_left_out_is_counted_over_processes(tmp_path):
    first, second = (BadRecords(tmp_path / "bad.jsonl", max_share=1.0) for _ in range(2))
    source = Some(10, bad=[1], empty=[2, 3], problems=[problem(1, Reason.MALFORMED)])
    first.load_good(source, 1)
    second.load_good(source, 2)
    assert first.tally() == second.tally()
    assert str(first.tally()) == ("left out: 3 photos (2 without objects, 1 unreadable), 3 annotations (3 malformed)")


def test_the_substitute_is_the_next_good_record(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=1.0)
    source = Some(6, bad=[0, 2, 3, 5])
    found = [report.load_good(source, index) for index in range(6)]
    assert [index for index, _ in found] == [1, 1, 4, 4, 4, 1]
    assert [record.name for _, record in found] == [f"photo {index}" for index, _ in found]
    assert sorted(entry["record"] for entry in lines(report.path)) == [f"photo {index}" for index in (0, 2, 3, 5)]


def test_a_source_without_a_good_record_stops_the_run(tmp_path):
    with pytest.raises(TooManyBadRecords, match=r"all 7 .*bad\.jsonl"):
        BadRecords(tmp_path / "bad.jsonl", max_share=1.0).load_good(Some(7, bad=range(7)), 2)


def test_a_wrong_folder_is_found_after_a_few_records(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=0.01)
    with pytest.raises(TooManyBadRecords, match=r"bad\.jsonl"):
        report.load_good(Some(100_000, bad=range(100_000)), 0)
    assert 3 < len(bad_names(report.path)) < 10


@pytest.mark.parametrize(("share", "stops"), [(0.004, False), (0.008, False), (0.02, True), (0.1, True)])
def test_a_share_near_the_limit_does_not_stop_a_run_early(tmp_path, share, stops):
    """The limit is 1 %; which of the records are bad is chance."""
    for seed in range(2):
        report = BadRecords(tmp_path / f"{seed}.jsonl", max_share=0.01)
        bad = np.flatnonzero(np.random.default_rng(seed).random(3000) < share)
        source = Some(3000, bad=bad.tolist())
        stopped = False
        try:
            for index in range(3000):
                try:
                    report.load(source, index)
                except BadRecord:
                    continue
        except TooManyBadRecords:
            stopped = True
        assert stopped == stops


def test_more_than_the_share_of_the_whole_stops_for_certain(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=0.1)
    source = Some(20, bad=[1, 5, 9])
    for index in range(9):
        report.load_good(source, index)
    with pytest.raises(TooManyBadRecords, match=r"all 20 records 3 are bad.*10\.00%.*photo 9: reason 9"):
        report.load(source, 9)


@pytest.mark.parametrize(("count", "share"), [(3, 0.01), (20, 0.01), (100, 0.01), (1000, 0.0)])
def test_two_bad_records_never_stop_a_run_and_a_third_may(tmp_path, count, share):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=share)
    source = Some(count, bad=[0, 1])
    for _ in range(3):  # however often they are met
        for index in range(count):
            report.load_good(source, index)
    with pytest.raises(TooManyBadRecords):
        report.load(Some(count, bad=[2]), 2)


@pytest.mark.parametrize("count", [1, 2])
def test_a_source_of_which_all_are_bad_stops_the_run_however_small(tmp_path, count):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=1.0)
    source = Some(count, bad=range(count))
    for index in range(count - 1):
        with pytest.raises(BadRecord):
            report.load(source, index)
    with pytest.raises(TooManyBadRecords, match=f"all {count} records"):
        report.load(source, count - 1)


def test_what_was_read_takes_a_bit_a_record(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl")
    source = Some(20_000)
    for index in (*range(0, 20_000, 7), *range(0, 20_000, 7), 19_998):
        report.load(source, index)
    assert report._seen_here.count == len(range(0, 20_000, 7)) + 1
    assert len(report._seen_here.bits) == 20_000 / 8


def test_later_runs_go_on_in_the_report(tmp_path):
    source = Some(20, bad=[1, 5, 9])
    for index in (1, 5):
        BadRecords(tmp_path / "bad.jsonl", max_share=0.1).load_good(source, index)
    again = BadRecords(tmp_path / "bad.jsonl", max_share=0.1)
    again.load_good(source, 1)
    assert len(lines(again.path)) == 2
    with pytest.raises(TooManyBadRecords):
        again.load(source, 9)


def test_a_mended_record_is_taken_back(tmp_path):
    path = tmp_path / "bad.jsonl"
    BadRecords(path, max_share=0.5).load_good(Some(20, bad=[1]), 1)
    later = BadRecords(path, max_share=0.5)
    later.load(Some(20), 1)
    assert not bad_names(path)
    assert lines(path)[-1] == {"record": "photo 1", "good": True}


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"record": "photo 2", "bad": "reason 2"}\n{"record": "pho')
    report = BadRecords(path, max_share=0.5)
    report.load_good(Some(20, bad=[1, 2]), 1)
    assert json.loads(path.read_text().splitlines()[-1])["record"] == "photo 1"
    with pytest.raises(TooManyBadRecords, match="all 20 records 3 are bad"):  # the whole line before it counts
        BadRecords(path, max_share=0.1).load(Some(20, bad=[3]), 3)


def load_part(report: BadRecords, source: Some, start: int) -> None:
    for index in range(start, len(source), 4):
        report.load_good(source, index)


@pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning")  # the children do without JAX
def test_processes_share_a_report(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=0.9)
    source = Some(400, bad=range(0, 400, 2))
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Pool(4) as pool:
        pool.starmap(load_part, [(report, source, start) for start in range(4)])
    entries = lines(report.path)
    assert {entry["record"] for entry in entries} == {f"photo {index}" for index in range(0, 400, 2)}


def test_the_report_travels_to_workers(tmp_path):
    report = BadRecords(tmp_path / "bad.jsonl", max_share=0.5)
    report.load_good(Some(10, bad=[1]), 1)
    copy = pickle.loads(pickle.dumps(report))
    copy.load_good(Some(10, bad=[3]), 3)
    assert bad_names(report.path) == {"photo 1", "photo 3"}
    error = pickle.loads(pickle.dumps(TooManyBadRecords("why")))
    assert str(error) == "why"


KILLED = """
import os, signal, sys, types
sys.path.insert(0, {tests!r})
from samjax.train.data.report import BadRecords
report = BadRecords({path!r}, max_share=0.9)
class Two:
    def __len__(self): return 100
    def name(self, index): return f"photo {{index}}"
for index in range(3):
    report.add(Two(), index, "why")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_reported_stays(tmp_path, root):
    path = tmp_path / "bad.jsonl"
    code = KILLED.format(tests=str(root / "tests"), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [entry["record"] for entry in lines(path)] == ["photo 0", "photo 1", "photo 2"]


def test_a_report_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        BadRecords(tmp_path / "file" / "bad.jsonl")


def test_a_network_that_is_down_is_no_bad_record(tmp_path):
    class Down(Some):
        def __getitem__(self, index):
            raise ConnectionError("down")

    report = BadRecords(tmp_path / "bad.jsonl")
    with pytest.raises(ConnectionError):
        report.load_good(Down(10), 1)
    assert not lines(report.path)


def test_records_may_have_any_name(tmp_path):
    class Odd(Some):
        def name(self, index: int) -> str:
            return f"caf\udce9 {index}"

    for _ in range(2):
        report = BadRecords(tmp_path / "bad.jsonl", max_share=0.5)
        with pytest.raises(BadRecord):
            report.load(Odd(10, bad=[3]), 3)
        report.load(Odd(10, problems=[Problem("caf\udce9.png", "too small", Reason.SIZE)]), 4)
    assert [entry["record"] for entry in lines(report.path)] == ["caf%E9 3", "caf%E9 4"]
    assert lines(report.path)[1]["left_out"] == ["caf%E9.png: too small"]
