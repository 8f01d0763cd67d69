"""Two jobs never work in one folder, and a job that was killed keeps nobody out."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from samjax import lock
from samjax.lock import FolderInUse, working_in

# Without `import samjax`, which takes a second.
WORKING = f"""
import pathlib, runpy, sys, time
lock = runpy.run_path({lock.__file__!r})
with lock["working_in"](pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(lock, "_PAUSE", 0.01)


@pytest.fixture
def other(tmp_path):
    """Another process that is at work in the folder."""
    with subprocess.Popen([sys.executable, "-c", WORKING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def signs(folder: Path) -> list[Path]:
    return sorted(folder.glob(".running-*"))


def leave_sign(folder: Path, *, silent: float = 0, **changes) -> Path:
    """The file of a job that said nothing for so many seconds."""
    with working_in(folder):
        (sign,) = signs(folder)
        content = json.loads(sign.read_text()) | changes
    sign.write_text(json.dumps(content))
    os.utime(sign, (time.time() - silent,) * 2)
    return sign


def test_a_second_job_is_told_whose_the_folder_is_and_the_first_goes_on(tmp_path):
    with working_in(tmp_path / "out") as check:
        with pytest.raises(FolderInUse, match=rf"out is in use by process {os.getpid()} on \S+, last sign of life . s"):
            working_in(tmp_path / "out").__enter__()
        check()
        assert len(signs(tmp_path / "out")) == 1
    with working_in(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()  # they made it, and wrote nothing


def test_a_folder_that_was_there_stays(tmp_path):
    with working_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), working_in(tmp_path):
        raise KeyError
    assert signs(tmp_path) == []


def test_shares_of_one_job_work_together_and_with_nothing_else(tmp_path):
    with working_in(tmp_path, 0, 3), working_in(tmp_path, 2, 3):
        for index, count in ((0, 3), (0, 1), (1, 2)):
            with pytest.raises(FolderInUse, match="share a folder have the same --process-count"):
                working_in(tmp_path, index, count).__enter__()
        with working_in(tmp_path, 1, 3):
            pass


def test_a_killed_job_keeps_nobody_out(tmp_path, other):
    with pytest.raises(FolderInUse, match=f"in use by process {other.pid}"):
        working_in(tmp_path).__enter__()
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the list of processes
    told = []
    with working_in(tmp_path, say=told.append):
        assert len(signs(tmp_path)) == 1
    (message,) = told
    assert f"process {other.pid} on" in message
    assert message.endswith(f"ended before it had finished its work in {tmp_path}; this job takes over")


def test_a_dead_jobs_number_may_be_another_process_now(tmp_path):
    leave_sign(tmp_path, started="1")
    with pytest.warns(UserWarning, match="takes over"), working_in(tmp_path):
        pass


@pytest.mark.parametrize("content", [{"machine": "another", "host": "elsewhere"}, {"unknown": 1}])
def test_of_jobs_elsewhere_the_last_sign_of_life_decides(tmp_path, content):
    sign = leave_sign(tmp_path, silent=200, **content)
    with pytest.raises(FolderInUse, match=rf"last sign of life 200 s ago.* If it is dead, remove {sign}; after 300 s"):
        working_in(tmp_path).__enter__()
    assert signs(tmp_path) == [sign]
    sign.unlink()
    leave_sign(tmp_path, silent=400, **content)
    told = []
    with working_in(tmp_path, say=told.append):
        assert len(signs(tmp_path)) == 1
    assert len(told) == 1


def test_another_share_that_was_killed_is_no_news(tmp_path):
    leave_sign(tmp_path, started="1", index=1, count=2)
    with working_in(tmp_path, 0, 2):
        assert len(signs(tmp_path)) == 1


def test_a_job_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with working_in(tmp_path):
        (sign,) = signs(tmp_path)
        os.utime(sign, (0, 0))
        deadline = time.monotonic() + 10
        while sign.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_job_whose_place_was_taken_notices(tmp_path):
    with working_in(tmp_path) as check:
        signs(tmp_path)[0].unlink()
        with pytest.raises(FolderInUse, match="is gone: another job may have taken over"):
            check()


def test_of_jobs_that_start_at_once_one_gets_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PAUSE", 0.3)
    together, over, inside, most = threading.Barrier(4), threading.Barrier(4), [], []

    def job():
        together.wait()
        try:
            with working_in(tmp_path):
                inside.append(1)
                over.wait(30)
        except FolderInUse:
            over.wait(30)

    for _ in range(3):
        threads = [threading.Thread(target=job) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        most.append(len(inside))
        inside.clear()
    assert most == [1, 1, 1]
    assert signs(tmp_path) == []
