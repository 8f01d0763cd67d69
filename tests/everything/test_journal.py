"""A job that is killed at any moment, and jobs beside each other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from example_outputs import Thresholds, files_below, job, save
from PIL import Image

from samjax.everything import find_photos, run
from samjax.lock import FolderInUse, working_in

SLOW = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import example_outputs
from samjax.everything import find_photos, run

class Slow(example_outputs.Thresholds):
    def __call__(self, image):
        time.sleep(0.05)
        return super().__call__(image)

renames, rename = 0, Path.replace

def replace(*paths):
    global renames
    renames += 1
    if renames == {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(*paths)

Path.replace = replace
out = Path({out!r})
photos = find_photos([Path({folder!r})], out)
job = example_outputs.job(out, "coco", "png", "labelmap", "overlay", process_index={index}, process_count={count})
run(photos, Slow(), job)
"""


@pytest.fixture
def start(folder, out):
    """Starts a process that does the job, slowly; it kills itself before it gives a file its final name the n-th
    time."""
    processes = []

    def begin(*, index: int = 0, count: int = 1, kill_at: int = 0) -> subprocess.Popen:
        tests = str(Path(__file__).parents[1])
        code = SLOW.format(tests=tests, folder=str(folder), out=str(out), index=index, count=count, kill_at=kill_at)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def records(out: Path) -> list[str]:
    """Of what is done; os.walk because scratch folders vanish meanwhile."""
    folders = [(folder, files) for folder, _, files in os.walk(out / ".samjax") if not folder.endswith(".partial")]
    return [file for _, files in folders for file in files]


def check_files_are_whole(out: Path) -> None:
    for path in out.rglob("*"):
        if not path.is_file() or any(part.endswith(".partial") for part in path.parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".png", ".jpg"):
            Image.open(path).load()
        else:
            assert path.name == "metadata.csv"


def test_after_a_kill_every_file_is_whole_and_a_rerun_does_the_rest(folder, out, start, tmp_path):
    for number in range(20):
        save(folder / f"more{number}.png", number, (60, 70))
    photos = find_photos([folder], out)
    formats = ("coco", "png", "labelmap", "overlay")
    run(photos, Thresholds(), job(tmp_path / "undisturbed", *formats))

    # A photo is five renames: one for each format, then the record. Killed within the first photo, within the second,
    # at the second's record, and some time later.
    for kill_at, done in ((3, 0), (7, 1), (5, 1)):
        process = start(kill_at=kill_at)
        assert process.wait(60) == -signal.SIGKILL
        check_files_are_whole(out)
        assert len(records(out)) == done
    process = start()
    while len(records(out)) < 11:
        assert process.poll() is None
        time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_files_are_whole(out)
    assert not (out / "annotations.json").exists()

    generator = Thresholds()
    summary = run(photos, generator, job(out, *formats))
    assert summary.skipped >= 11
    assert generator.calls == 25 - summary.skipped
    assert files_below(out) == files_below(tmp_path / "undisturbed")


def test_what_a_killed_run_left_half_written_is_removed_with_its_photo(folder, out):
    for name in (
        ".a_overlay.jpg.abcd1234.partial",
        ".annotations.json.abcd1234.partial",
        ".other.jpg.abcd1234.partial",
    ):
        (out / name).mkdir(parents=True)
        (out / name / "half").touch()
    run(find_photos([folder], out), Thresholds(), job(out))
    assert [path.name for path in out.glob(".*.partial")] == [".other.jpg.abcd1234.partial"]


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 2)])
def test_a_job_at_work_is_left_alone(folder, out, index, count):
    half = out / ".annotations.json.abcd1234.partial" / "annotations.json"
    half.parent.mkdir(parents=True)
    half.touch()
    generator = Thresholds()
    with working_in(out), pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        run(find_photos([folder], out), generator, job(out, process_index=index, process_count=count))
    assert half.exists()
    assert generator.calls == 0
    assert not files_below(out).keys() - {f"{half.parent.name}/annotations.json"}


def test_two_processes_at_once_leave_what_one_would(folder, out, start, tmp_path):
    run(find_photos([folder], out), Thresholds(), job(tmp_path / "alone", "coco", "png", "labelmap", "overlay"))
    processes = [start(index=index, count=2) for index in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert files_below(out) == files_below(tmp_path / "alone")
