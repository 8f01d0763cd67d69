"""An evaluation from the first photo to its results: the next photos are read while some are judged."""

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from samjax.errors import describe_error
from samjax.evaluation import report
from samjax.evaluation.journal import JudgementJournal, Known, claim
from samjax.evaluation.protocol import Dataset, EvaluationProtocol, Judgement, Sample, Segmenter, Summary
from samjax.lock import working_in
from samjax.readers.left_out import Problem, Reason, Unusable

READERS = 2  # threads that read photos
HOPELESS = 20  # photos that fail before any is judged: the rest would too


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one process's run."""

    summary: Summary | None  # of all photos; None while other processes have some left
    judged: int  # photos, by this process now
    skipped: int  # of its photos were judged before
    failures: dict[str, str]  # by photo: what is wrong; of all processes
    left: int  # photos that other processes have not come to yet
    files: list[Path]  # the results


def evaluate(
    protocol: EvaluationProtocol,
    segmenter: Segmenter | None,
    dataset: Dataset,
    out: Path,
    *,
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    given: Mapping[str, str] | None = None,
    strays: Sequence[Problem] = (),
    process_index: int = 0,
    process_count: int = 1,
    progress: bool = True,
) -> Outcome:
    """Judges the photos that are not judged yet, and writes the results into OUT when none is left.

    A photo that cannot be read or judged, whatever the error, is counted as a failure while the others go on, and is
    tried again by the next run. The process that finishes last writes the results.

    Args:
        protocol: what is measured.
        segmenter: the model; None for a protocol that asks none (`protocol.asks`).
        dataset: of ALL processes.
        out: the folder of the results; a run that was stopped resumes there.
        data: what decides which objects are asked for, as JSON. The photos' names are compared beside it.
        model: what decides the answers, as JSON.
        given: what the results only mention, such as paths: it may change when a run resumes.
        strays: files and annotations of the data set that belong to no photo, for the results.
        process_index: this process judges photos i, i + N, i + 2 N, ... of N processes, which may share `out`.
        process_count: how many processes there are.
        progress: show a bar.

    Raises:
        ValueError: the protocol asks a model and there is none; OUT has results of something else; the data set has no
            photo, or two of one name; no photo at all could be judged, or none of the first `HOPELESS`.
        FolderInUse: another evaluation, or another process of this one with the same number, is at work in OUT.
    """
    if segmenter is None and protocol.asks:
        raise ValueError(f"{protocol.name} asks a model: give it a segmenter, not None")
    names = [dataset.name(index) for index in range(len(dataset))]
    if not names:
        raise ValueError("the data set has no photo; is its path right, and does --limit or --min-area leave any?")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two photos of the data set are called {twice}; results are kept by name, so rename one")
    journal = JudgementJournal(out, process_index, process_count)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    identity = {
        "protocol": protocol.name,
        "settings": protocol.settings(),
        "data": {**data, "photos": len(names), "names": digest},
        "model": dict(model),
    }
    with working_in(out, process_index, process_count) as check_lock:
        claim(out, identity)
        with journal:
            before = frozenset(journal.read().records)
            mine = range(process_index, len(names), process_count)
            todo = [index for index in mine if names[index] not in before]
            judged = tried = 0
            with tqdm(
                total=len(mine), initial=len(mine) - len(todo), unit="image", desc=protocol.name, disable=not progress
            ) as bar:
                for group in _read_ahead(dataset, todo, 1 if segmenter is None else max(segmenter.images_together, 1)):
                    check_lock()
                    judged += _judge(protocol, segmenter, group, names, journal)
                    tried += len(group)
                    bar.update(len(group))
                    if not before and not judged and len(mine) > tried >= HOPELESS:
                        raise _none_judged(journal.read().errors, tried)
            known = journal.read()
        failures = {name: known.errors[name] for name in names if name in known.errors}
        left = sum(name not in known.records and name not in failures for name in names)
        skipped = len(mine) - len(todo)
        if left:
            return Outcome(None, judged, skipped, failures, left, [])
        summary, files = _finish(
            protocol, names, known, failures, {**identity, "given": dict(given or {})}, out, strays
        )
        return Outcome(summary, judged, skipped, failures, 0, files)


def _reason(error: Exception) -> Reason:
    if isinstance(error, Unusable):
        return error.reason
    return Reason.UNREADABLE if isinstance(error, OSError) else Reason.OTHER


def _read_ahead(dataset: Dataset, todo: Sequence[int], together: int) -> Iterable[list[tuple[int, "Future[Any]"]]]:
    """Photos in groups, by index; those of the next group are being read when one is handed out."""
    groups = [todo[start : start + together] for start in range(0, len(todo), together)]
    with ThreadPoolExecutor(READERS, "read") as reader:
        following: list[tuple[int, Future[Any]]] = []
        try:
            for group in [*groups, []]:
                current, following = following, [(index, reader.submit(dataset.__getitem__, index)) for index in group]
                if current:
                    yield current
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


def _judge(
    protocol: EvaluationProtocol,
    segmenter: Segmenter | None,
    group: Sequence[tuple[int, "Future[Any]"]],
    names: Sequence[str],
    journal: JudgementJournal,
) -> int:
    """Judges those of a group that can be read; returns how many have a record now."""
    samples: dict[str, Any] = {}  # whatever the protocol takes: `Sample`, `AnnotatedEdges`
    for index, reading in group:
        try:
            samples[names[index]] = reading.result()
        except Exception as error:
            journal.failed(names[index], describe_error(error), _reason(error))
    try:
        judged = _records(protocol, segmenter, samples)
    except Exception as error:
        if len(samples) > 1:  # whose fault it is shows when they come one by one
            return sum(_judge(protocol, segmenter, [one], names, journal) for one in group if names[one[0]] in samples)
        for name in samples:  # one at most
            journal.failed(name, describe_error(error), _reason(error))
        return 0
    for name, record, seconds in judged:
        sample = samples[name]
        left_out, noted = (sample.left_out, sample.noted) if isinstance(sample, Sample) else ((), ())
        journal.done(name, record, seconds, left_out, noted)
    return len(judged)


def _records(
    protocol: EvaluationProtocol, segmenter: Segmenter | None, samples: Mapping[str, Any]
) -> list[tuple[str, Judgement, float]]:
    """(name, record, seconds) of each."""
    if not samples:
        return []
    start = time.perf_counter()
    records = protocol.judge(segmenter, list(samples.values()))
    seconds = (time.perf_counter() - start) / len(samples)
    return [(name, record, seconds) for name, record in zip(samples, records, strict=True)]


def _finish(
    protocol: EvaluationProtocol,
    names: Sequence[str],
    known: Known,
    failures: Mapping[str, str],
    identity: Mapping[str, Any],
    out: Path,
    strays: Sequence[Problem],
) -> tuple[Summary, list[Path]]:
    records = [known.records[name] for name in names if name in known.records]
    if not records:
        raise _none_judged(failures, len(names))
    reasons = Counter(known.reasons[name] for name in failures)
    left_out = report.LeftOut(reasons, known.left_out, known.noted, strays)
    try:
        summary = protocol.summarise(records)
    except ValueError as error:  # nothing to judge
        raise ValueError(f"{error} ({left_out.tally.explain()})" if left_out.tally else str(error)) from error
    counts = {
        "judged": len(records),
        "failed": len(failures),
        "annotations_left_out": left_out.tally.annotations.total(),
    }
    return summary, report.write(out, summary, identity, counts, failures, known.seconds, left_out)


def _none_judged(failures: Mapping[str, str], photos: int) -> ValueError:
    name, reason = next(iter(failures.items()))
    return ValueError(f"none of {photos} photo(s) could be judged; the first, {name}: {reason}")
