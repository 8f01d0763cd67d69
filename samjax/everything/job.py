"""Many photos, one after the other: the next one is read, and the one before is written, while one is computed."""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samjax import pictures
from samjax.errors import describe_error
from samjax.everything.journal import OutputJournal, sweep
from samjax.lock import check_share, working_in
from samjax.writers import FORMATS, Options, Photo, SegmentedPhoto

AHEAD = 2  # photos that may wait to be written


@dataclasses.dataclass(frozen=True)
class Job:
    """The work on every photo, and this process's share of the photos: k, k + N, k + 2 N, ... of N processes.

    `settings` is whatever decides about the masks, ready for JSON: results made with other ones are made again.
    What formats that are not asked for wrote with these settings stays.
    """

    out: Path
    formats: tuple[str, ...]  # keys of FORMATS
    settings: Mapping[str, Any]
    options: Options = dataclasses.field(default_factory=Options)
    process_index: int = 0
    process_count: int = 1
    overwrite: bool = False  # also what is done

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - FORMATS.keys())
        if unknown:
            raise ValueError(f"there is no format {', '.join(unknown)}; there are {', '.join(FORMATS)}")
        check_share(self.process_index, self.process_count)

    def journal(self) -> OutputJournal:
        """The journal of `out` for these settings and formats."""
        options = dataclasses.asdict(self.options)
        formats = {name: {option: options[option] for option in FORMATS[name].options} for name in self.formats}
        return OutputJournal(self.out, self.settings, formats)


@dataclasses.dataclass(frozen=True)
class Done:
    """A photo that has been written."""

    photo: Photo
    masks: int
    seconds: float  # of finding them
    files: list[Path]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The outcome of one process's photos."""

    done: int
    skipped: int  # were done before
    failures: dict[str, str]  # by path: what is wrong
    files: list[Path]  # of the whole run; empty while other processes have photos left


def run(
    photos: Sequence[Photo],
    generate: Callable[[UInt8[np.ndarray, "H W 3"]], list[dict[str, Any]]],
    job: Job,
    *,
    report: Callable[[Done], None] = lambda done: None,
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[Sequence[Photo]], Iterable[Photo]] = iter,
) -> Summary:
    """Finds and writes the masks of this process's photos that are not done yet.

    A photo that cannot be read, segmented or written is counted as a failure, whatever the error, and the others
    are done. Whoever finishes last writes what a format has once, of these photos and of those that earlier runs did
    in OUT.

    Args:
        photos: of ALL processes, in the same order everywhere.
        generate: a `samjax.amg.generator.MaskGenerator`'s.
        job: what to do.
        report: is told of every photo that is done.
        say: is told what a person should know, e.g. that settings have changed.
        progress: goes through the photos, e.g. `tqdm.tqdm`.

    Raises:
        FolderInUse: another job, or another process of this job with the same number, is at work in OUT.
    """
    with working_in(job.out, job.process_index, job.process_count, say=say) as check_lock:
        return _run(photos, generate, job, report, say, progress, check_lock)


def _run(
    photos: Sequence[Photo],
    generate: Callable[[UInt8[np.ndarray, "H W 3"]], list[dict[str, Any]]],
    job: Job,
    report: Callable[[Done], None],
    say: Callable[[str], None],
    progress: Callable[[Sequence[Photo]], Iterable[Photo]],
    check_lock: Callable[[], None],
) -> Summary:
    journal = job.journal()
    mine = photos[job.process_index :: job.process_count]
    todo = [photo for photo in mine if job.overwrite or not journal.is_done(photo)]
    changed = [(photo, changes) for photo in todo if (changes := journal.changes(photo))]
    if changed:
        photo, changes = changed[0]
        say(f"{len(changed)} photo(s) were done with other settings and are done again ({'; '.join(changes)})")
    failures: dict[str, str] = {}
    done = 0

    def failed(photo: Photo, error: Exception) -> None:
        failures[str(photo.path)] = describe_error(error)
        with contextlib.suppress(OSError):
            journal.fail(photo, failures[str(photo.path)])

    def settle(written: tuple[Photo, Future[Done]]) -> int:
        photo, future = written
        try:
            outcome = future.result()
        except Exception as error:
            failed(photo, error)
            return 0
        report(outcome)
        return 1

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading = collections.deque([reader.submit(_read, photo, job) for photo in todo[:1]])
        writing: collections.deque[tuple[Photo, Future[Done]]] = collections.deque()
        for number, photo in enumerate(progress(todo)):
            current = reading.popleft()
            check_lock()
            try:
                rgb = current.result()
            except Exception as error:
                failed(photo, error)
                rgb = None
            reading.extend(reader.submit(_read, following, job) for following in todo[number + 1 : number + 2])
            if rgb is not None:
                start = time.perf_counter()
                try:
                    found = SegmentedPhoto(photo, rgb, generate(rgb))
                except Exception as error:
                    failed(photo, error)
                else:
                    seconds = time.perf_counter() - start
                    writing.append((photo, writer.submit(_write, found, journal, job, seconds)))
            while writing and (len(writing) > AHEAD or writing[0][1].done()):
                done += settle(writing.popleft())
        while writing:
            done += settle(writing.popleft())
    return Summary(done, len(mine) - len(todo), failures, _finish(photos, journal, job))


def _read(photo: Photo, job: Job) -> UInt8[np.ndarray, "H W 3"]:
    rgb = pictures.read_image(photo.path)
    for name in job.formats:
        if check := FORMATS[name].check:
            check(photo.path, job.options)
    return rgb


def _write(found: SegmentedPhoto, journal: OutputJournal, job: Job, seconds: float) -> Done:
    journal.begin(found.photo)
    files = {name: FORMATS[name].write(found, job.out, job.options) for name in job.formats}
    journal.finish(found.photo, files, len(found.records))
    return Done(found.photo, len(found.records), seconds, [path for paths in files.values() for path in paths])


def _finish(photos: Sequence[Photo], journal: OutputJournal, job: Job) -> list[Path]:
    """Writes the files of the whole run if no photo is left: several processes may, and write the same."""
    if not all(journal.is_done(photo) or journal.has_failed(photo) for photo in photos):
        return []
    files: list[Path] = []
    for name in job.formats:
        finish = FORMATS[name].finish
        if finish and (done := journal.done(name, photos)):
            files += finish(job.out, done, job.options)
    if job.process_count == 1:  # otherwise another process may be at it
        sweep(files)
    return files
