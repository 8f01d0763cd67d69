"""Work on disk: nothing acknowledged is lost, whatever stops the program and wherever."""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
from example_work import MODEL, PHOTO, SIZE, clicked, square, works_in

from samjax.app import durable, work
from samjax.app.classes import Classes, StaleClasses
from samjax.app.steps import BadRequest
from samjax.app.work import NewObject, NotSaved, StaleRevision, Work
from samjax.workfile import (
    BadWorkFile,
    WorkState,
    find_work,
    journal_line,
    journal_of,
    object_from_json,
    read_work,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "work" / "a.png.samjax.json"


def begun(path: Path, **more) -> Work:
    return Work(path, PHOTO, MODEL, **more)


def as_read(path: Path) -> WorkState:
    """What a program that starts now finds."""
    return read_work(path).state


def test_each_change_is_on_disk_when_it_returns(path):
    worked = begun(path)
    first, second = worked.add([clicked(10, 10, class_="cat"), clicked(20, 20)], revision=0)
    assert as_read(path) == worked.state
    worked.change({second.id: {"name": "left ear", "deleted": True}}, revision=1)
    assert as_read(path) == worked.state
    worked.change({first.id: {"rle": square(30, 30), "score": 0.5, "steps": []}}, revision=2)
    worked.set_done(True, revision=3)
    assert as_read(path) == worked.state == begun(path).state
    assert (worked.state.revision, worked.state.done) == (4, True)
    assert [known.id for known in worked.state.objects] == ["o1", "o2"]
    assert worked.state.objects[0].rle == square(30, 30)
    assert worked.state.objects[1].deleted
    assert worked.state.models == (MODEL,)


def test_what_is_acknowledged_has_been_synced(path, monkeypatch):
    """File and folder of a new file, the file alone of an old one."""
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    worked = begun(path)
    worked.add([clicked(10, 10)])
    assert [Path(name).name for name in synced] == [path.parent.parent.name, path.name, path.parent.name]
    for expected in ([journal_of(path).name, path.parent.name], [journal_of(path).name]):
        synced.clear()
        worked.add([clicked(20, 20)])
        assert [Path(name).name for name in synced] == expected


def test_a_stale_revision_changes_nothing_and_has_the_newest_work(path):
    worked = begun(path)
    worked.add([clicked(10, 10)], revision=0)
    with pytest.raises(StaleRevision, match="at revision 1, and the change is for 0") as caught:
        worked.add([clicked(20, 20)], revision=0)
    assert caught.value.work is worked
    assert as_read(path).revision == 1


def test_wherever_the_journal_breaks_off_what_was_whole_is_there(path, tmp_path):
    """At every byte of it, as a stopped machine may leave it; and work goes on."""
    worked = begun(path)
    worked.add([clicked(10, 10)])
    states = [worked.state]
    ends = [0]
    for change in (lambda: worked.add([clicked(20, 20)]), lambda: worked.change({"o1": {"name": "é"}}, None)):
        change()
        states.append(worked.state)
        ends.append(journal_of(path).stat().st_size)
    journal = journal_of(path).read_bytes()
    for length in range(len(journal) + 1):
        whole = sum(end <= length for end in ends) - 1
        journal_of(path).write_bytes(journal[:length])
        said = []
        again = begun(path, say=said.append)
        assert again.state == states[whole]
        assert len(said) == (length not in ends)
        if length % 7 == 0:
            again.set_done(True)
            assert (
                as_read(path)
                == again.state
                == dataclasses.replace(states[whole], done=True, revision=states[whole].revision + 1)
            )


def test_a_crash_between_snapshot_and_journal_counts_no_change_twice(path):
    worked = begun(path)
    for x in (10, 20, 30):
        worked.add([clicked(x, 10)])
    journal = journal_of(path).read_bytes()
    worked.close()
    assert not journal_of(path).exists()
    journal_of(path).write_bytes(journal)  # it was not removed
    again = begun(path)
    assert again.state == worked.state
    again.add([clicked(40, 10)])
    assert as_read(path) == again.state
    assert len(again.state.objects) == 4


def test_a_journal_that_has_grown_becomes_part_of_the_snapshot(path, monkeypatch):
    monkeypatch.setattr(work, "COMPACTED", 2_000)
    worked = begun(path)
    sizes = []
    for number in range(100):
        worked.add([clicked(number % 50 + 5, 20)])
        sizes.append(journal_of(path).stat().st_size if journal_of(path).exists() else 0)
        if number % 25 == 0:
            assert as_read(path) == worked.state
    assert 0 in sizes[5:]
    assert max(sizes) < 2 * path.stat().st_size
    assert as_read(path) == worked.state
    assert len(worked.state.objects) == 100


def test_where_the_snapshot_cannot_be_made_it_is_tried_less_often(path, monkeypatch):
    monkeypatch.setattr(work, "COMPACTED", 1_000)
    said = []
    worked = begun(path, say=said.append)
    worked.add([clicked(10, 10)])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_whole", full)
    for number in range(100):
        worked.add([clicked(number % 50 + 5, 20)])
    assert 1 < len(said) < 8
    assert as_read(path) == worked.state


WRITER = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from example_work import MODEL, PHOTO, clicked
from samjax.app import work
work.COMPACTED = 3_000
worked = work.Work(Path(sys.argv[1]), PHOTO, MODEL, say=lambda message: None)
while True:
    number = worked.state.revision
    if number % 5 == 4:
        worked.change({"o1": {"name": str(number)}}, number)
    else:
        worked.add([clicked(number % 50 + 5, 20)], number)
    print(worked.state.revision, len(worked.state.objects), flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_acknowledged(path):
    revision, objects = 0, 0
    random = iter([0.0, 0.02, 0.05, 0.03, 0.08, 0.01])
    for pause in random:
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(pause)
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = [first, *process.stdout.read().splitlines()]
        said = [line.split() for line in acknowledged if line.count(" ") == 1 and line.split()[1:]]
        state = begun(path, say=lambda message: None).state
        assert int(said[0][0]) == revision + 1, acknowledged
        # One more may be on disk, whose acknowledgement was cut off.
        assert int(said[-1][0]) <= state.revision <= int(said[-1][0]) + 1
        assert len(state.objects) >= int(said[-1][1]) >= objects
        revision, objects = state.revision, len(state.objects)
    assert revision > 20


def limited(size: int):
    """Lets no file of this process grow beyond `size` bytes: writes break off, as on a full disk."""

    @contextlib.contextmanager
    def limit():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limit()


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk_keeps_what_was_saved_and_later_changes_work_again(path, room):
    worked = begun(path)
    worked.add([clicked(10, 10)])
    worked.add([clicked(20, 20)])
    before, length = worked.state, journal_of(path).stat().st_size
    with limited(length + room):
        for _ in range(2):
            with pytest.raises(NotSaved, match="not saved, the disk is full"):
                worked.add([clicked(30, 30)], revision=2)
    assert journal_of(path).stat().st_size == length
    assert worked.state == before == as_read(path)
    worked.add([clicked(30, 30)], revision=2)
    assert as_read(path) == worked.state
    assert len(worked.state.objects) == 3


def test_a_full_disk_at_the_first_change_leaves_no_file(path):
    worked = begun(path)
    with limited(100), pytest.raises(NotSaved, match="the disk is full"):
        worked.add([clicked(10, 10)])
    assert list(path.parent.iterdir()) == []
    worked.add([clicked(10, 10)])
    assert as_read(path) == worked.state


@pytest.mark.parametrize("call", ["write", "fsync", "ftruncate"])
def test_an_error_of_any_call_that_writes_keeps_what_was_saved(path, monkeypatch, call):
    worked = begun(path)
    worked.add([clicked(10, 10)])
    worked.add([clicked(20, 20)])
    before = worked.state

    def fails(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, call, fails)
        with pytest.raises(NotSaved, match="Input/output error"):
            worked.add([clicked(30, 30)])
    assert worked.state == before
    worked.set_done(True)
    assert as_read(path) == worked.state
    assert len(worked.state.objects) == 2


@pytest.mark.parametrize("changes", [0, 2])
def test_a_folder_that_cannot_be_synced_leaves_no_doubt_afterwards(path, monkeypatch, changes):
    """The first snapshot may be there, of a change that was not acknowledged: the next change replaces it."""
    worked = begun(path)
    for _ in range(changes):
        worked.add([clicked(10, 10)])
    journal_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)

    def fails(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_folder", fails)
        with pytest.raises(NotSaved):
            worked.add([clicked(20, 20)])
    for x in (30, 40):
        worked.add([clicked(x, 20)])
        assert as_read(path) == worked.state
    assert len(worked.state.objects) == changes + 2


def test_a_full_disk_while_the_snapshot_is_made_costs_nothing(path, monkeypatch):
    said = []
    worked = begun(path, say=said.append)
    for x in range(10, 50, 5):
        worked.add([clicked(x, 20)])
    with limited(200):
        worked.close()
    assert "stays beside its snapshot" in said[0]
    assert as_read(path) == worked.state
    worked.add([clicked(50, 20)])
    worked.close()
    assert as_read(path) == worked.state
    assert not journal_of(path).exists()


def written(path: Path, **photo) -> str:
    """A work file of one object; `photo` are fields that differ."""
    worked = begun(path)
    worked.add([clicked(10, 10)])
    state = dataclasses.replace(worked.state, photo=dataclasses.replace(PHOTO, **photo))
    path.write_text(state.text())
    return path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"samjax_work": 1', '"samjax_work": 2'), "newer samjax.*pip install --upgrade"),
        (lambda text: text[: len(text) // 2], "is damaged.*bring it back from a copy"),
        (lambda text: text.replace('"counts": "', '"counts": "0'), "is damaged .the mask of object o1"),
        (lambda text: text.replace('"revision"', '"revison"'), "is damaged .*revision"),
        (lambda text: "[]", "is damaged"),
        (lambda text: "", "is damaged"),
        (lambda text: text.replace(PHOTO.sha256, "1" * 64), "another photo than a.png.*its pixels differ"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_and_is_not_touched(path, change, message):
    text = change(written(path))
    path.write_text(text)
    with pytest.raises(BadWorkFile, match=message) as caught:
        begun(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == text


DONE = {"revision": 3, "done": True}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (journal_line(DONE), "revision 3 follows 1"),
        (journal_line({"revision": 2, "set": [{"id": "o9"}]}), "'o9' is missing"),
        (journal_line({"revision": 2, "done": False}).replace(b"false", b"true"), "its checksum does not fit"),
        (b'{"revision": 2, "done": true}\n', "its checksum does not fit"),
        (b"nothing\n", "its checksum does not fit"),
        (b"\0\0\n", "its checksum does not fit"),
        (b"\n", "its checksum does not fit"),
    ],
)
def test_a_damaged_line_that_was_acknowledged_is_no_torn_one(path, line, why):
    written(path)
    content = line + journal_line(DONE)
    journal_of(path).write_bytes(content)
    with pytest.raises(BadWorkFile, match=rf"a\.png\.samjax\.jsonl is damaged \(line 1: {why}.*bring it back"):
        begun(path)
    assert journal_of(path).read_bytes() == content


def test_a_sound_last_line_that_does_not_follow_is_no_torn_one(path):
    """It was written whole: something else is wrong."""
    written(path)
    journal_of(path).write_bytes(journal_line(DONE))
    with pytest.raises(BadWorkFile, match="revision 3 follows 1"):
        begun(path)


@pytest.mark.parametrize("start", [0, 1, 40])
def test_a_last_line_of_which_the_end_alone_arrived_is_left_out(path, start):
    """After a power cut pages may be zeros although later ones were written."""
    worked = begun(path)
    for x in (10, 20):
        worked.add([clicked(x, 10)])
    before, length = worked.state, journal_of(path).stat().st_size
    worked.add([clicked(30, 10, name="a name that is long enough for a page")])
    content = bytearray(journal_of(path).read_bytes())
    content[length + start : length + start + 30] = bytes(30)
    journal_of(path).write_bytes(content)
    said = []
    again = begun(path, say=said.append)
    assert again.state == before
    assert "ends in a line that was not written whole" in said[0]
    again.set_done(True)
    assert as_read(path) == dataclasses.replace(before, done=True, revision=3)


def test_what_is_read_while_the_program_writes_is_whole(path):
    """Snapshots are made and changes added between any two files that are read."""
    worked = begun(path)
    worked.add([clicked(10, 10)])
    worked.add([clicked(20, 10)])

    def read(name: str) -> bytes:
        worked.add([clicked(30, 10)])
        try:
            return Path(name).read_bytes()
        finally:
            worked.close()
            worked.add([clicked(40, 10)])

    for _ in range(3):
        revision = worked.state.revision
        state = read_work(path, read).state
        assert state.revision > revision
        assert len(state.objects) == state.revision


def test_a_journal_without_its_snapshot_is_not_taken_for_a_new_photo(path):
    worked = begun(path)
    worked.add([clicked(10, 10)])
    worked.add([clicked(20, 20)])
    path.unlink()
    with pytest.raises(BadWorkFile, match=r"snapshot .* is missing: bring that back"):
        begun(path)


def test_what_another_program_has_changed_is_not_overwritten(path):
    worked, other = begun(path), None
    worked.add([clicked(10, 10)])
    other = begun(path)
    other.add([clicked(20, 20)])
    with pytest.raises(BadWorkFile, match="changed by another program"):
        worked.add([clicked(30, 30)])
    assert as_read(path) == other.state


def test_a_file_that_was_removed_is_written_whole_again(path):
    worked = begun(path)
    worked.add([clicked(10, 10)])
    worked.add([clicked(20, 20)])
    path.unlink()
    worked.add([clicked(30, 30)])
    assert as_read(path) == worked.state
    assert len(worked.state.objects) == 3


def test_masks_of_another_size_are_refused(path):
    worked = begun(path)
    for rle in ({"size": [60, 40], "counts": square(9, 9)["counts"]}, {"size": list(SIZE), "counts": "0"}):
        with pytest.raises(BadRequest, match="no encoding of 40 x 60"):
            worked.add([NewObject(rle, "import")])
    assert not path.exists()


def test_threads_add_objects_one_after_the_other(tmp_path):
    works = works_in(tmp_path)
    errors = []

    def add(name: str) -> None:
        try:
            opened = works.open(name, name, PHOTO.sha256, SIZE)
            for x in range(10, 20):
                opened.add([clicked(x, 20)])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a.png", "b/c.png") for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for name in ("a.png", "b/c.png"):
        state = as_read(works.path_of(name))
        assert state.revision == 40
        assert len({known.id for known in state.objects}) == 40
        assert works.counts(name) == works_in(tmp_path).counts(name) == (40, False)
    works.close()
    assert find_work(tmp_path) == [tmp_path / "a.png.samjax.json", tmp_path / "b" / "c.png.samjax.json"]
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", ".hidden", "C:\\x", "a\0b"])
def test_no_name_of_a_photo_leads_out_of_the_folder(tmp_path, name):
    path = works_in(tmp_path).path_of(name)
    assert path.resolve().is_relative_to(tmp_path.resolve())
    assert not any(part.startswith(".") for part in path.relative_to(tmp_path).parts)
    assert "\0" not in str(path)


def test_work_that_nobody_asks_for_leaves_memory_and_comes_back_the_same(tmp_path):
    works = works_in(tmp_path, memory=4_000)
    names = [f"{letter}.png" for letter in "abc"]
    for name in names:
        opened = works.open(name, name, PHOTO.sha256, SIZE)
        opened.add([clicked(x, 10) for x in (10, 20, 30)])
        opened.set_done(True)
    states = [as_read(works.path_of(name)) for name in names]
    seen = weakref.ref(works.open("a.png", "a.png", PHOTO.sha256, SIZE))
    held = works.open("b.png", "b.png", PHOTO.sha256, SIZE)
    works.open("c.png", "c.png", PHOTO.sha256, SIZE)
    gc.collect()
    assert seen() is None
    assert not journal_of(works.path_of("a.png")).exists()
    assert works.open("b.png", "b.png", PHOTO.sha256, SIZE) is held  # whoever has it is not left with another
    held.set_done(False)
    assert [works.counts(name) for name in names] == [(3, True), (3, False), (3, True)]
    assert works.open("a.png", "a.png", PHOTO.sha256, SIZE).state == states[0]
    works.close()
    assert not list(tmp_path.glob("*.jsonl"))


ALIKE = [
    "co:lon.png",
    "co%3Alon.png",
    "co%253Alon.png",
    "back\\slash.png",
    "back/slash.png",
    "back%5Cslash.png",
    "back//slash.png",
    "/back/slash.png",
    "./back/slash.png",
    "back/slash.png/",
    "a.",
    "a",
    "a ",
    ".a",
    "%2Ea",
    "a\udce9",
    "a%E9",
    "a\ud800",
    "a\ud801",
    "a?",
    "a\n",
    "n" * 300,
    "n" * 301,
    "n" * 299 + ".png",
    "n" * 299 + ".jpg",
    "n" * 190,
    "字" * 83 + ".png",
    "字" * 84 + ".png",
    "字" * 300,
]


def test_no_two_photos_share_a_work_file_and_every_name_can_be_one(tmp_path):
    works = works_in(tmp_path / "work")
    paths = {name: works.path_of(name) for name in ALIKE}
    assert len({str(path).casefold() for path in paths.values()}) == len(ALIKE)
    for name, path in paths.items():
        assert path.relative_to(works.folder).as_posix().isprintable()
        worked = works.open(name, name, PHOTO.sha256, SIZE)
        worked.set_done(True)
        worked.set_done(False)
        assert worked.path == path
        assert works.counts(name) == (0, False)
    works.close()
    assert len(find_work(works.folder)) == len(ALIKE)
    assert works.path_of("holiday/dog 1 (ü).jpg").relative_to(works.folder).as_posix() == (
        "holiday/dog 1 (ü).jpg.samjax.json"
    )


def test_names_that_differ_in_case_share_no_work_where_the_disk_has_one_file_for_both(tmp_path):
    """A link stands for such a disk."""
    works = works_in(tmp_path)
    works.open("a", "a.png", PHOTO.sha256, SIZE).set_done(True)
    works.path_of("A.png").symlink_to(works.path_of("a.png"))
    with pytest.raises(BadWorkFile, match=r"A\.png and a\.png differ in upper and lower case only"):
        works.open("A", "A.png", PHOTO.sha256, SIZE)
    works.path_of("A.png").unlink()
    assert not works.open("A", "A.png", PHOTO.sha256, SIZE).state.done


def test_a_moved_folder_finds_its_photos_again(tmp_path):
    (tmp_path / "old").mkdir()
    photo = tmp_path / "old" / "a.png"
    works_in(tmp_path / "old" / "work").open("a", "a.png", PHOTO.sha256, SIZE, photo).add([clicked(9, 9)])
    (tmp_path / "old" / "work").rename(tmp_path / "work")
    moved = works_in(tmp_path / "work").open("a", "a.png", PHOTO.sha256, SIZE, photo)
    assert as_read(moved.path) == moved.state  # without a change, for other readers
    assert moved.state.photo.path == "../old/a.png"
    assert moved.state.revision == 1


def test_a_moved_folder_on_a_full_disk_is_told_and_written_with_the_next_change(tmp_path, monkeypatch):
    photo, said = tmp_path / "a.png", []
    works_in(tmp_path / "work").open("a", "a.png", PHOTO.sha256, SIZE, photo).add([clicked(9, 9)])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_whole", full)
        moved = works_in(tmp_path / "work", say=said.append).open("a", "a.png", PHOTO.sha256, SIZE, tmp_path / "b.png")
    assert "before it was moved: [Errno 28]" in said[0]
    assert as_read(moved.path).photo.path == "../a.png"
    moved.set_done(True)
    assert as_read(moved.path) == moved.state
    assert moved.state.photo.path == "../b.png"


def test_an_object_is_its_json():
    given = {"id": "o1", "rle": square(9, 9), "source": "import", "class": "cat"}
    known = object_from_json(given)
    assert known.class_ == "cat"
    assert object_from_json(json.loads(json.dumps(known.to_json()))) == known


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "magic"}, {"id": 3}, {"more": 1}, {"class": 7}, {"class": "\ud800"}, {"name": None}, {"colour": 1},
        {"hidden": 1}, {"deleted": "no"}, {"model": {}}, {"score": "high"}, {"score": float("nan")}, {"rle": None},
        {"rle": {"counts": square(9, 9)["counts"]}}, {"rle": {"size": list(SIZE)}}, {"rle": {"size": 3, "counts": "0"}},
        {"steps": 3}, {"steps": [3]}, {"steps": [{"points": 3}]}, {"steps": [{"points": [[1, 2]]}]},
        {"steps": [{"points": [["1", 2, 3]]}]}, {"everything": 3}, {"everything": {"config": {}}},
    ],
)  # fmt: skip
def test_what_is_no_object_makes_a_work_file_damaged(path, wrong):
    """The one error, in the snapshot and in the journal, and nothing that a reader falls over."""
    given = {"id": "o1", "rle": square(9, 9), "source": "import", "class": "cat"}
    text = written(path)
    snapshot = json.loads(text)
    snapshot["objects"] = [{**given, **wrong}]
    path.write_text(json.dumps(snapshot))
    with pytest.raises(BadWorkFile, match=r"a\.png\.samjax\.json is damaged"):
        read_work(path)
    path.write_text(text)
    journal_of(path).write_bytes(journal_line({"revision": 2, "add": [{**given, "id": "o2", **wrong}]}))
    with pytest.raises(BadWorkFile, match=r"a\.png\.samjax\.jsonl is damaged"):
        read_work(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"photo": {**vars(PHOTO), "path": 7}}, {"photo": {**vars(PHOTO), "height": "40"}}, {"photo": None},
        {"photo": {**vars(PHOTO), "width": 0}}, {"models": 3}, {"models": [3]}, {"models": [{}]}, {"revision": None},
        {"objects": {}}, {"objects": 3},
    ],
)  # fmt: skip
def test_a_snapshot_with_other_contents_is_damaged(path, wrong):
    path.write_text(json.dumps({**json.loads(written(path)), **wrong}))
    with pytest.raises(BadWorkFile, match=r"a\.png\.samjax\.json is damaged"):
        read_work(path)


def test_classes_are_kept_in_their_order(tmp_path):
    classes = Classes(tmp_path / "classes.json")
    classes.include(["cat", None, "dog", "cat"])
    assert [entry["name"] for entry in classes.listed] == ["cat", "dog"]
    assert Classes(tmp_path / "classes.json").listed == classes.listed
    revision = classes.revision
    given = [{"name": "dog", "colour": "#00ff00"}, {"name": "horse", "colour": "#0000ff"}]
    classes.replace(given, revision)
    again = Classes(tmp_path / "classes.json")
    assert again.listed == given
    assert again.revision == classes.revision != revision
    with pytest.raises(StaleClasses):
        classes.replace([], revision)


def test_classes_keep_number_and_colour_in_whichever_order_photos_are_opened(tmp_path):
    """From one start of the program to the next."""
    for name, class_ in (("a.png", "ninety"), ("b.png", "seven")):
        works_in(tmp_path / "work").open(name, name, PHOTO.sha256, SIZE).add([clicked(9, 9, class_=class_)])
    found = []
    for names in (("a.png", "b.png"), ("b.png", "a.png")):
        works = works_in(tmp_path / "work")
        for name in names:
            works.open(name, name, PHOTO.sha256, SIZE)
        found.append(works.classes.listed)
    assert found[0] == found[1]
    assert [entry["name"] for entry in found[0]] == ["ninety", "seven"]


def test_classes_that_cannot_be_written_are_written_later(tmp_path, monkeypatch):
    classes = Classes(tmp_path / "classes.json")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_whole", full)
        classes.include(["cat"])
    assert [entry["name"] for entry in classes.listed] == ["cat"]
    classes.include(["cat"])
    assert Classes(tmp_path / "classes.json").listed == classes.listed


def test_there_may_be_as_many_classes_as_lvis_has_and_not_without_end(tmp_path):
    classes = Classes(tmp_path / "classes.json")
    classes.include([f"class {number}" for number in range(1_203)] + [" ", "a\nb", "n" * 201])
    classes.replace(classes.listed, classes.revision)
    assert len(classes.listed) == len(Classes(tmp_path / "classes.json").listed) == 1_203
    classes.include([f"more {number}" for number in range(10_000)])
    classes.replace(classes.listed, classes.revision)
    assert len(classes.listed) == 10_000


@pytest.mark.parametrize(
    "given",
    [
        {},
        [{"name": "cat"}],
        [{"name": " ", "colour": "#000000"}],
        [{"name": "cat", "colour": "red"}],
        [{"name": "cat", "colour": "#000000"}] * 2,
        [{"name": "a\nb", "colour": "#000000"}],
    ],
)
def test_other_classes_are_refused(tmp_path, given):
    classes = Classes(tmp_path / "classes.json")
    with pytest.raises(BadRequest):
        classes.replace(given)
    (tmp_path / "classes.json").write_text(json.dumps(given))
    with pytest.raises(ValueError, match=r"classes\.json holds no classes"):
        Classes(tmp_path / "classes.json")
