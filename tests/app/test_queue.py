"""The device's queue: one thread, turns, bounds, previews, pauses."""

import threading

import pytest


class Gate:
    """A job that holds the device until it is opened."""

    def __init__(self, queue, client="gate"):
        self.entered, self.leave = threading.Event(), threading.Event()
        self.job = queue.submit(client, self.work)
        assert self.entered.wait(5)

    def work(self, _):
        self.entered.set()
        assert self.leave.wait(5)


@pytest.fixture
def queue():
    from samjax.app.queue import DeviceQueue

    queue = DeviceQueue(most=10, most_of_client=4)
    yield queue
    queue.close(5.0)


def noted(order, name):
    return lambda _: order.append(name)


def test_clients_take_turns_however_many_jobs_one_has(queue):
    gate, order = Gate(queue), []
    jobs = [queue.submit("a", noted(order, f"a{number}")) for number in range(3)]
    jobs += [queue.submit("b", noted(order, "b0")), queue.submit("c", noted(order, "c0"))]
    gate.leave.set()
    for job in jobs:
        job.future.result(5)
    assert order == ["a0", "b0", "c0", "a1", "a2"]


def test_all_jobs_run_on_one_thread(queue):
    threads = {queue.submit(str(n), lambda _: threading.current_thread()).future.result(5) for n in range(5)}
    assert len(threads) == 1
    assert threads != {threading.current_thread()}


def test_what_a_job_raises_is_its_answer_and_the_next_one_runs(queue):
    def fail(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        queue.submit("a", fail).future.result(5)
    assert queue.submit("a", lambda _: 3).future.result(5) == 3


def test_a_client_has_few_places(queue):
    from samjax.app.queue import Busy

    gate = Gate(queue)
    for _ in range(4):
        queue.submit("a", lambda _: None)
    with pytest.raises(Busy, match="4 requests of this page or program wait already"):
        queue.submit("a", lambda _: None)
    queue.submit("b", lambda _: None)
    gate.leave.set()


def test_all_clients_together_have_a_bounded_number_of_places(queue):
    from samjax.app.queue import Busy

    gate = Gate(queue)
    jobs = [queue.submit(str(number), lambda _: None) for number in range(10)]
    with pytest.raises(Busy, match="10 requests wait") as caught:
        queue.submit("one more", lambda _: None)
    assert caught.value.retry_after >= 1
    gate.leave.set()
    for job in jobs:
        job.future.result(5)
    queue.submit("one more", lambda _: None).future.result(5)


def test_of_previews_only_a_client_s_newest_is_computed(queue):
    from samjax.app.queue import Superseded

    gate, order = Gate(queue), []
    jobs = [queue.submit("a", noted(order, number), preview=True) for number in range(6)]
    other = queue.submit("b", noted(order, "b"), preview=True)
    gate.leave.set()
    jobs[-1].future.result(5)
    other.future.result(5)
    assert order == [5, "b"]
    for job in jobs[:-1]:
        with pytest.raises(Superseded):
            job.future.result(5)


def test_a_click_comes_before_a_preview_that_waits(queue):
    gate, order = Gate(queue), []
    preview = queue.submit("a", noted(order, "preview"), preview=True)
    queue.submit("a", noted(order, "click"))
    gate.leave.set()
    preview.future.result(5)
    assert order == ["click", "preview"]


def test_a_cancelled_job_never_runs_and_leaves_its_place(queue):
    gate, order = Gate(queue), []
    jobs = [queue.submit("a", noted(order, number)) for number in range(4)]
    jobs[1].cancel()
    jobs.append(queue.submit("a", noted(order, 4)))
    gate.leave.set()
    jobs[-1].future.result(5)
    assert order == [0, 2, 3, 4]
    assert jobs[1].future.cancelled()


def test_positions_count_what_runs_before(queue):
    gate = Gate(queue)
    first, second = queue.submit("a", lambda _: None), queue.submit("a", lambda _: None)
    other = queue.submit("b", lambda _: None)
    assert (gate.job.position(), first.position(), other.position()) == (0, 1, 2)
    assert second.position() == 3
    gate.leave.set()
    second.future.result(5)
    assert second.position() == 0


def parts(order, name, count, gate=None):
    """Work in parts of a tenth of a second each."""

    def work(_):
        for number in range(count):
            order.append(f"{name}{number}")
            if gate is not None:
                gate.set()
            threading.Event().wait(0.1)
            yield
        return name

    return work


def test_a_short_job_of_many_parts_is_interrupted_for_others(queue):
    order, begun = [], threading.Event()
    many = queue.submit("a", parts(order, "a", 12, begun))
    assert begun.wait(5)
    other = queue.submit("b", noted(order, "b"))
    own = queue.submit("a", noted(order, "its next"))
    assert other.future.result(5) is None
    assert not many.future.done()
    assert many.future.result(5) == "a"
    own.future.result(5)
    assert [name for name in order if name[0] == "a"] == [f"a{number}" for number in range(12)]
    assert order[-1] == "its next"


def test_alone_it_is_not_interrupted(queue):
    order = []
    job = queue.submit("a", parts(order, "a", 4))
    assert job.future.result(5) == "a"
    assert job.ended - job.started < 2


def test_given_up_it_ends_after_the_part(queue):
    from samjax.app.queue import GivenUp

    order, begun = [], threading.Event()
    job = queue.submit("a", parts(order, "a", 100, begun))
    assert begun.wait(5)
    job.cancel()
    with pytest.raises(GivenUp):
        job.future.result(5)
    assert len(order) < 10


def test_a_preview_that_was_interrupted_gives_way_to_a_newer_one(queue):
    from samjax.app.queue import Superseded

    order, begun = [], threading.Event()
    old = queue.submit("a", parts(order, "old", 100, begun), preview=True)
    assert begun.wait(5)
    new = queue.submit("a", noted(order, "new"), preview=True)
    with pytest.raises(Superseded):
        old.future.result(5)
    new.future.result(5)


def test_what_was_interrupted_is_refused_when_the_queue_closes():
    from samjax.app.queue import Busy, DeviceQueue

    queue = DeviceQueue()
    order, begun = [], threading.Event()
    many = queue.submit("a", parts(order, "a", 100, begun))
    assert begun.wait(5)
    gate = Gate(queue, "b")  # which runs when the first turn is over
    closing = threading.Thread(target=queue.close, args=(5.0,))
    closing.start()
    with pytest.raises(Busy, match="closing"):
        many.future.result(5)
    gate.leave.set()
    closing.join(5)


class LongJob:
    """Takes pauses until it is told to end."""

    def __init__(self, queue, client="long"):
        self.pauses, self.end, self.begun = 0, threading.Event(), threading.Event()
        self.job = queue.submit(client, self.work, kind="long")
        assert self.begun.wait(5)

    def work(self, job):
        self.begun.set()
        while not self.end.wait(0.005):
            job.pause()
            self.pauses += 1
        return "done"


def test_short_jobs_run_in_the_pauses_of_a_long_one(queue):
    long = LongJob(queue)
    assert queue.submit("a", lambda _: "short").future.result(5) == "short"
    assert queue.submit("long", lambda _: "its own").future.result(5) == "its own"
    assert not long.job.future.done()
    long.end.set()
    assert long.job.future.result(5) == "done"


def test_a_client_s_own_long_job_that_waits_does_not_hold_up_its_clicks(queue):
    long = LongJob(queue)
    embedding = queue.submit("a", lambda _: "embedded", kind="long")
    assert queue.submit("a", lambda _: "clicked").future.result(5) == "clicked"
    assert not embedding.future.done()
    long.end.set()
    assert embedding.future.result(5) == "embedded"


def test_another_long_job_waits_for_the_end(queue):
    long = LongJob(queue)
    second = queue.submit("b", lambda _: "second", kind="long")
    queue.submit("a", lambda _: None).future.result(5)
    assert not second.future.done()
    long.end.set()
    assert second.future.result(5) == "second"


def test_a_long_job_that_is_given_up_ends_at_its_next_pause(queue):
    from samjax.app.queue import GivenUp

    long = LongJob(queue)
    long.job.cancel()
    with pytest.raises(GivenUp):
        long.job.future.result(5)
    assert queue.submit("a", lambda _: 1).future.result(5) == 1


def test_background_jobs_wait_for_all_others_and_have_no_bound(queue):
    gate, order = Gate(queue), []
    background = [queue.submit("", noted(order, "background"), kind="background") for _ in range(20)]
    queue.submit("a", noted(order, "a"))
    gate.leave.set()
    background[-1].future.result(5)
    assert order == ["a"] + ["background"] * 20


def test_closing_finishes_what_runs_and_refuses_the_rest(queue):
    from samjax.app.queue import Busy

    long = LongJob(queue)
    waiting = queue.submit("b", lambda _: None, kind="long")
    queue.close(5.0)
    with pytest.raises(Busy, match="closing"):
        waiting.future.result(5)
    with pytest.raises(Busy, match="closing"):
        long.job.future.result(5)
    with pytest.raises(Busy, match="closing"):
        queue.submit("c", lambda _: None)
