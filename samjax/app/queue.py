"""One queue for the device, shared by many clients: fair, bounded, and served by one thread.

Clients take turns. A long job (everything in a photo) offers its pauses to the short jobs of others; a short job of
many parts is interrupted for them.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Literal

Kind = Literal["short", "long", "background"]

_TURN = 0.2  # seconds after which a short job lets others have the device, between two of its parts
MOST_WAITING = 64
MOST_OF_CLIENT = 16
_CLOSING = "the server is closing"
_SUPERSEDED = "a newer preview has taken this one's place"

_log = logging.getLogger(__name__)


class Busy(RuntimeError):
    """No more jobs are taken at present; `retry_after` seconds later there may be room."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GivenUp(RuntimeError):
    """Nobody waits for the job any more."""


class Superseded(RuntimeError):
    """A newer preview of the same client has taken this one's place."""


class Job:
    """A piece of work for the device. Its `future` has the answer; `cancel` gives it up.

    Work that is a generator runs in parts, and returns its result; between two parts others may have their turn.
    """

    def __init__(self, client: str, work: Callable[["Job"], Any], kind: Kind, preview: bool, queue: "DeviceQueue"):
        self.client, self.kind, self.preview = client, kind, preview
        self.future: Future[Any] = Future()
        self.started: float | None = None  # time.monotonic() when it began and when it had ended
        self.ended: float | None = None
        self._work, self._queue = work, queue
        self._parts: Generator[None, None, Any] | None = None
        self._spent, self._resumed = 0.0, 0.0
        self._end: Exception | None = None
        self.submitted = time.monotonic()

    def cancel(self, why: Exception | None = None) -> None:
        """Takes the job from the queue, or ends it at its next pause, which then raises `why`."""
        self._end = self._end or why or GivenUp("the request was given up")
        if self.future.cancel():
            self._queue.forget(self)

    def pause(self) -> None:
        """Lets others' short jobs run; called by the work itself. Raises what ended it."""
        self._check_wanted()
        if self.kind != "short":
            self._queue.serve_others(self)
            self._check_wanted()

    def _check_wanted(self) -> None:
        if self._end is not None:
            raise self._end

    def position(self) -> int:
        """The number of jobs that will run before this one, about; 0 if it runs or has run."""
        return self._queue.position(self)

    def spent(self) -> float:
        """Seconds on the device so far; for the work itself to ask."""
        return self._spent + time.monotonic() - self._resumed

    def run(self) -> bool:
        """Runs the work until its end, or until its turn is over; true if it has ended. Whatever it raises is in the
        future."""
        if self.started is None and not self.future.set_running_or_notify_cancel():
            return True
        self._resumed = time.monotonic()
        self.started = self.started or self._resumed
        try:
            ended, result = self._run_parts()
        except BaseException as error:
            self.ended = time.monotonic()
            self.future.set_exception(error)
            return True
        self._spent += time.monotonic() - self._resumed
        if ended:
            self.ended = time.monotonic()
            self.future.set_result(result)
        return ended

    def _run_parts(self) -> tuple[bool, Any]:
        """Whether the work has ended, and its result."""
        if self._parts is None:
            begun = self._work(self)
            if not isinstance(begun, Generator):
                return True, begun
            self._parts = begun
        while True:
            self._check_wanted()
            try:
                next(self._parts)
            except StopIteration as end:
                return True, end.value
            if time.monotonic() - self._resumed >= _TURN and self._queue.others_wait():
                return False, None

    def refuse(self, error: Exception) -> None:
        """Ends a job that waits by an error; it may have begun."""
        if self.started is not None or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class DeviceQueue:
    """The queue and its thread.

    Args:
        most: jobs that may wait in all.
        most_of_client: jobs that may wait of one client.
    """

    def __init__(self, most: int = MOST_WAITING, most_of_client: int = MOST_OF_CLIENT) -> None:
        self._most, self._most_of_client = most, most_of_client
        # Clients in the order of their turns; of each, jobs in order of arrival, previews behind all others.
        self._waiting: collections.OrderedDict[str, collections.deque[Job]] = collections.OrderedDict()
        self._background: collections.deque[Job] = collections.deque()
        self._running: list[Job] = []  # a long job, and the short one in its pause
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)
        self._thread.start()

    def submit(self, client: str, work: Callable[[Job], Any], *, kind: Kind = "short", preview: bool = False) -> Job:
        """Takes a job, which runs as `work(job)` on the device's thread.

        Of a client's waiting previews only the newest stays; the future of the other raises `Superseded`. Background
        jobs run when nothing else waits, and do not count. Raises `Busy` if there is no room.
        """
        job = Job(client, work, kind, preview, self)
        superseded = None
        with self._changed:
            if self._closed:
                raise Busy(_CLOSING, 10)
            if kind == "background":
                self._background.append(job)
                self._changed.notify()
                return job
            own = self._waiting.get(client, ())
            if preview:
                superseded = next((other for other in own if other.preview), None)
            if superseded is None:
                self._check_room(len(own))
            else:
                self._remove(superseded)
            queue = self._waiting.setdefault(client, collections.deque())
            if not preview and queue and queue[-1].preview:
                queue.insert(len(queue) - 1, job)
            else:
                queue.append(job)
            self._changed.notify()
        if superseded is not None:
            superseded.refuse(Superseded(_SUPERSEDED))
        return job

    def _check_room(self, own: int) -> None:
        waiting = sum(map(len, self._waiting.values()))
        if own >= self._most_of_client:
            raise Busy(f"busy: {own} requests of this page or program wait already; wait for their answers")
        if waiting >= self._most:
            raise Busy(f"busy: {waiting} requests wait for the model already; try again soon", 2)

    def position(self, job: Job) -> int:
        """The number of jobs that run or wait before a job."""
        with self._changed:
            if job in self._running or job.future.done():
                return 0
            if job in self._background:
                return len(self._running) + sum(map(len, self._waiting.values())) + self._background.index(job)
            own = list(self._waiting.get(job.client, ()))
            if job not in own:
                return 0
            place = own.index(job)
            before, ahead = len(self._running) + place, 1  # whose turn comes first has one more turn before this job
            for client, jobs in self._waiting.items():
                if client == job.client:
                    ahead = 0
                else:
                    before += min(len(jobs), place + ahead)
            return before

    def forget(self, job: Job) -> None:
        """Takes a job out whose future was cancelled."""
        with self._changed:
            self._remove(job)

    def _remove(self, job: Job) -> None:
        for jobs in (self._waiting.get(job.client), self._background):
            if jobs is not None and job in jobs:
                jobs.remove(job)
        if job.client in self._waiting and not self._waiting[job.client]:
            del self._waiting[job.client]

    def serve_others(self, pausing: Job) -> None:
        """Runs a short job of each client (also of the pausing one's: its page goes on answering) while a long job
        pauses on the device's thread."""
        with self._changed:
            clients = list(self._waiting)
        for client in clients:
            with self._changed:
                jobs = self._waiting.get(client, ())
                # A client's long job, which waits for the end of this one, does not hold up its clicks.
                job = next((job for job in jobs if job.kind == "short" or pausing.kind == "background"), None)
                if job is None:
                    continue
                self._take(job)
            self._run(job)

    def _taken(self, client: str) -> Job:
        """A client's next job."""
        job = self._waiting[client][0]
        self._take(job)
        return job

    def _take(self, job: Job) -> None:
        """Takes a job from those that wait; its client is then the last in the order of turns."""
        client, jobs = job.client, self._waiting[job.client]
        jobs.remove(job)
        if jobs:
            self._waiting.move_to_end(client)
        else:
            del self._waiting[client]
        self._running.append(job)

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> Job | None:
        """The next job, waited for; None when the queue is closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                if self._waiting:
                    return self._taken(next(iter(self._waiting)))
                if self._background:
                    job = self._background.popleft()
                    self._running.append(job)
                    return job
                self._changed.wait()

    def _run(self, job: Job) -> None:
        ended = job.run()
        with self._changed:
            self._running.remove(job)
            error = None if ended else self._put_back(job)
        if error is not None:
            job.refuse(error)

    def _put_back(self, job: Job) -> Exception | None:
        """Has a job wait whose turn is over, before its client's others; the error if it must not."""
        if self._closed:
            return Busy(_CLOSING, 10)
        own = self._waiting.setdefault(job.client, collections.deque())  # whose turn is the last now
        if not job.preview:
            own.appendleft(job)
        elif own and own[-1].preview:
            return Superseded(_SUPERSEDED)
        else:
            own.append(job)
        return None

    def others_wait(self) -> bool:
        """True if what runs should let others have the device: those that wait, or a long job that pauses."""
        with self._changed:
            return bool(self._waiting) or len(self._running) > 1

    def close(self, timeout: float = 30.0) -> None:
        """`stop`, and waits for the thread's end."""
        self.stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning("the device has not finished its last job within %.0f s", timeout)

    def stop(self) -> None:
        """Takes no more jobs. What runs is finished; long jobs end at their next pause, and they and what waits raise
        `Busy`."""
        with self._changed:
            self._closed = True
            left = [job for jobs in self._waiting.values() for job in jobs] + list(self._background)
            self._waiting.clear()
            self._background.clear()
            running = list(self._running)
            self._changed.notify_all()
        for job in left:
            job.refuse(Busy(_CLOSING, 10))
        for job in running:
            if job.kind != "short":
                job.cancel(Busy(_CLOSING, 10))
