"""A folder of results has one job at a time: small files that say who is at work there.

Each job announces itself in a file of its own, `.running-<random>.json`, and then looks at the others'. Names are
never used twice, so removing a dead job's file can never hit a living one's, and nothing but creating, renaming and
listing files is asked of the file system: locks of the operating system (`flock`) do not reach over every network file
system, are inherited by worker processes that outlive a killed job, and do not say whose they are.

A job on this machine is dead where its process is gone, or another process has its number. Of others only the time
since they last touched their file is known.
"""

import contextlib
import dataclasses
import json
import os
import random
import socket
import subprocess
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

BEAT = 30.0  # seconds after which a job touches its file again
LOST = 300.0  # seconds without that, after which a job on another machine is taken for dead
_PREFIX = ".running-"
_ATTEMPTS, _PAUSE = 6, 0.3  # seconds at most
_ENDED = "ended"  # equals no start


class FolderInUse(ValueError):
    """Another job is at work in the folder; the message says which, and what to do."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process at work: share `index` of `count` processes, which may share a folder."""

    index: int
    count: int
    host: str
    machine: str  # which running system, as far as processes see each other in it
    pid: int
    started: str | None  # when the process was, to tell it from a later one of its number; None if that is not known

    @classmethod
    def this(cls, index: int, count: int) -> "Owner":
        """The present process, with share `index` of `count`."""
        return cls(index, count, socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()))

    def shares_with(self, other: "Owner") -> bool:
        """True if both may work in one folder: different shares of equally many."""
        return self.count == other.count and self.index != other.index

    def is_running(self) -> bool | None:
        """None if it cannot be known: on another machine."""
        return _is_running(self.pid, self.started) if self.machine == _machine() else None

    def __str__(self) -> str:
        share = f", share {self.index} of {self.count}" if self.count > 1 else ""
        return f"process {self.pid} on {self.host}{share}"


@dataclasses.dataclass(frozen=True)
class _Sign:
    """The visible traces of another job."""

    file: Path
    job: Owner | None  # None if the file cannot be read
    silent: float  # seconds since its last sign of life
    running: bool | None  # None if that cannot be known

    @property
    def dead(self) -> bool:
        return self.silent > LOST if self.running is None else not self.running

    def __str__(self) -> str:
        return str(self.job) if self.job else f"an unknown process ({self.file.name})"


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def check_share(process_index: int, process_count: int) -> None:
    """Raises ValueError unless the index is one of 0, ..., `process_count` - 1."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"the process index counts from 0 to the process count - 1, got {process_index} of {process_count}"
        )


@contextlib.contextmanager
def working_in(
    folder: Path, index: int = 0, count: int = 1, *, say: Callable[[str], None] = _warn
) -> Iterator[Callable[[], None]]:
    """Keeps other jobs out of a folder, which is made if it is missing.

    Processes with the same `count` and different `index` may work there together. `say` is told of a job that ended
    without a word, killed for example, and whose place this one takes. Gives a function that raises `FolderInUse` where
    this job's own place has been taken meanwhile, because it was silent for too long or its file was removed by hand.

    Raises `FolderInUse`, and OSError if the folder cannot be written.
    """
    is_new = not folder.exists()
    own, dead = _enter(folder, Owner.this(index, count))
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(own, ended), name="lock", daemon=True)
    heart.start()

    def check() -> None:
        if not own.exists():
            raise FolderInUse(f"{own} is gone: another job may have taken over {folder}, so this one stops")

    try:
        for sign in dead:
            say(f"{sign} ended before it had finished its work in {folder}; this job takes over")
        yield check
    finally:
        ended.set()
        heart.join()
        with contextlib.suppress(OSError):
            own.unlink()
        if is_new:
            with contextlib.suppress(OSError):  # a job that failed before it wrote anything leaves nothing
                folder.rmdir()


def _enter(folder: Path, job: Owner) -> tuple[Path, list[_Sign]]:
    """This job's file, and the dead whose place it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(_ATTEMPTS):
        own = _announce(folder, job)
        try:
            others = _others(own)
        except BaseException:
            own.unlink()
            raise
        in_the_way = [sign for sign in others if sign.job is None or not job.shares_with(sign.job)]
        living = [sign for sign in in_the_way if not sign.dead]
        if not living:
            for sign in others:
                if sign.dead:
                    sign.file.unlink(missing_ok=True)
            return own, in_the_way
        own.unlink()
        # Of jobs that start in the same moment each sees the other, and makes way for it.
        if attempt + 1 == _ATTEMPTS or all(sign.silent > 1 for sign in living):
            raise FolderInUse(_described(folder, living[0]))
        time.sleep(random.uniform(0, _PAUSE))
    raise AssertionError("unreachable")


def _announce(folder: Path, job: Owner) -> Path:
    own = folder / f"{_PREFIX}{uuid.uuid4().hex}.json"
    unfinished = own.with_suffix(".new")
    try:
        unfinished.write_text(json.dumps(dataclasses.asdict(job)), encoding="utf-8")
        unfinished.replace(own)
    finally:
        unfinished.unlink(missing_ok=True)
    return own


def _others(own: Path) -> list[_Sign]:
    """The signs of all jobs in the folder but one's own."""
    now = own.stat().st_mtime  # by the file system's clock, which other machines' files have their times from
    signs = []
    for file in sorted(own.parent.glob(f"{_PREFIX}*.json")):
        if file == own:
            continue
        try:
            silent = max(now - file.stat().st_mtime, 0.0)
            job = Owner(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:  # it has finished
            continue
        except (ValueError, TypeError):
            job = None
        signs.append(_Sign(file, job, silent, job.is_running() if job else None))
    return signs


def _described(folder: Path, sign: _Sign) -> str:
    text = f"{folder} is in use by {sign}, last sign of life {sign.silent:.0f} s ago. Wait for it, stop it, or give "
    text += "this job another folder"
    if sign.job and sign.job.count > 1:
        text += "; processes that share a folder have the same --process-count and each its own --process-index"
    if sign.running is None:
        text += f". If it is dead, remove {sign.file}; after {LOST:.0f} s without a sign of life that is assumed"
    return text


def _beat(own: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # the network may come back, and `check` says if the file is gone
            os.utime(own)


def _is_running(pid: int, started: str | None) -> bool | None:
    if os.name == "nt":
        return None  # os.kill would end it there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    now = _started(pid)
    return started is None or now is None or now == started


def _started(pid: int) -> str | None:
    """When a process began, as text to compare; `_ENDED` for one that is waited for only, None if it is not known."""
    try:
        # The name, in parentheses, may hold anything; after it come the third field, the state, and the others.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return _ENDED if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    try:
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=True)
        return done.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _machine() -> str:
    """The boot of the system and the container's numbering of processes; the host's name if there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
