"""The queue and the thread that draws: batches, fairness, cancel, errors of one picture."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import mlx_starflow as sf
from mlx_starflow.errors import Cancelled, NumericsError

pytest.importorskip("starlette", reason="the extra [server] is not installed")

from mlx_starflow.server.errors import RequestError
from mlx_starflow.server.job import DrawJob, TaskJob, Update
from mlx_starflow.server.pace import Pace, left
from mlx_starflow.server.queue import Queue
from mlx_starflow.server.scheduler import Scheduler


@pytest.fixture(scope="module")
def pipe(colours):
    with sf.load(colours) as pipe:
        yield pipe


class Ear:
    """A listener that records events and can be waited for."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.ended = threading.Event()

    def __call__(self, update: Update) -> None:
        self.updates.append(update)
        if update.event in ("ended", "failed"):
            self.ended.set()

    def wait(self) -> Update:
        assert self.ended.wait(60)
        return self.updates[-1]

    def drawn(self) -> list[Update]:
        return sorted((u for u in self.updates if u.event == "drawn"), key=lambda u: u.picture)


def job_of(pipe, prompt="red", seeds=(1,), owner="me", previews=False, **options) -> DrawJob:
    settings = pipe.settings([prompt] * len(seeds), list(seeds), **options)
    return DrawJob(owner, Ear(), settings, options, previews)


def ear(job) -> Ear:
    return job._listener


@pytest.fixture
def scheduler(pipe):
    made = Scheduler(pipe, max_batch=4, max_queue=20)
    yield made
    made.start() if not made._thread.is_alive() else None
    made.stop()
    assert made.join(30)


def test_what_agrees_is_drawn_together_and_each_as_if_alone(pipe, scheduler):
    jobs = [
        job_of(pipe, "red", (1, 2)),
        job_of(pipe, "blue", (3,)),
        job_of(pipe, "red", (4,), guidance=0.5),  # disagrees
        job_of(pipe, "green", (5,), previews=True),
    ]
    for job in jobs:
        scheduler.submit(job)
    scheduler.start()
    for job in jobs:
        assert ear(job).wait().event == "ended"
    assert scheduler.batches == 2 and scheduler.drawn == 5
    for job in jobs:
        rows = ear(job).drawn()
        assert [u.value.seed for u in rows] == list(job.seeds)
        for update, prompt, seed in zip(rows, job.prompts, job.seeds, strict=True):
            alone = pipe.generate(prompt, seed=seed, **job.options)
            given, own = (np.asarray(i, int) for i in (update.value.image, alone.images[0]))
            assert np.abs(given - own).max() <= 1
            assert update.value.metadata["prompt"] == prompt
            assert "batch" not in update.value.metadata or len(jobs) == 1 or len(job.seeds) == 1
            assert np.isfinite(update.value.gain)
    previews = [u for u in ear(jobs[3]).updates if u.event == "preview"]
    assert len(previews) == 3 and {u.image.size for u in previews} == {(12, 12)}
    assert not [u for u in ear(jobs[0]).updates if u.event == "preview"]


def test_other_clients_prompts_are_not_in_a_pictures_settings(pipe, scheduler):
    jobs = [job_of(pipe, "red", (1,), "a"), job_of(pipe, "blue", (2,), "b")]
    for job in jobs:
        scheduler.submit(job)
    scheduler.start()
    for job in jobs:
        ear(job).wait()
    assert scheduler.batches == 1
    assert "blue" not in str(ear(jobs[0]).drawn()[0].value.metadata)


def test_a_client_with_much_work_does_not_keep_others_waiting(pipe):
    queue = Queue(100)
    much = job_of(pipe, "red", tuple(range(12)), "busy")
    queue.put(much, lambda: 1)
    little = job_of(pipe, "red", (1,), "other", guidance=0.5)
    queue.put(little, lambda: 1)
    assert queue.ahead(little) == 1
    first = queue.take(lambda item: 4)
    assert {item.job for item in first} == {much} and len(first) == 4
    assert queue.take(lambda item: 4) == little.items
    assert len(queue.take(lambda item: 4)) == 4 and len(queue) == 4


def test_clients_of_a_batch_are_awaited_a_moment_but_one_alone_is_not(pipe):
    queue, jobs = Queue(10), [job_of(pipe, "red", (i,)) for i in range(3)]
    for i, job in enumerate(jobs):
        threading.Timer(0.05 * i, lambda job=job: queue.put(job, lambda: 1)).start()
    assert len(queue.take(lambda item: 4, expected=3, patience=5.0)) == 3
    queue.put(job_of(pipe), lambda: 1)
    began = time.monotonic()
    assert len(queue.take(lambda item: 4)) == 1 and time.monotonic() - began < 1
    queue.put(job_of(pipe), lambda: 1)
    assert len(queue.take(lambda item: 4, expected=3, patience=0.05)) == 1


def test_what_is_cancelled_while_it_is_taken_does_not_end_the_queue(pipe):
    queue, job, after = Queue(10), job_of(pipe), job_of(pipe, "blue")
    queue.put(job, lambda: 1)

    def cancelled_meanwhile(item):
        if item.job is job:
            queue.drop(job)
            threading.Timer(0.05, lambda: queue.put(after, lambda: 1)).start()
        return 4

    assert queue.take(cancelled_meanwhile) == after.items


def test_the_queue_is_bounded_and_says_when_to_come_back(pipe, scheduler):
    scheduler.submit(job_of(pipe, "red", tuple(range(20))))
    with pytest.raises(RequestError) as refused:
        scheduler.submit(job_of(pipe, "red", (1,)))
    assert refused.value.status == 429 and refused.value.retry_after >= 1
    assert len(scheduler.queue) == 20


def test_cancelling_one_of_a_batch_leaves_the_others(pipe, scheduler):
    kept, left_, waiting = job_of(pipe), job_of(pipe, "blue", (2,)), job_of(pipe, "red", (9,))
    began = threading.Event()
    kept._listener = Ear()
    inner = kept._listener

    def listen(update):
        inner(update)
        if update.data.get("event") == "started":
            scheduler.cancel(left_)
            scheduler.cancel(waiting)
            began.set()

    kept._listener = listen
    for job in (kept, left_):
        scheduler.submit(job)
    scheduler.start()
    assert began.wait(60)
    assert inner.wait().event == "ended" and len(inner.drawn()) == 1
    assert isinstance(ear(left_).wait().error, Cancelled) and not ear(left_).drawn()


def test_a_batch_that_nobody_wants_ends_at_its_next_step(pipe, scheduler):
    job = job_of(pipe, "red", (1, 2, 3, 4), sampler="sequential")
    inner = job._listener
    seen = []

    def listen(update):
        inner(update)
        seen.append(update.data.get("event"))
        if update.data.get("event") == "started":
            scheduler.cancel(job)

    job._listener = listen
    scheduler.submit(job)
    scheduler.start()
    assert isinstance(inner.wait().error, Cancelled)
    assert "decoded" not in seen and job.state == "cancelled"
    after = job_of(pipe)
    scheduler.submit(after)
    assert ear(after).wait().event == "ended"


def test_one_pictures_failure_is_not_the_others(pipe, scheduler, monkeypatch):
    stream = pipe.stream

    def fails(prompts, seeds, **options):
        if 13 in seeds:
            raise NumericsError("picture 13 holds NaN")
        return stream(prompts, seeds, **options)

    monkeypatch.setattr(pipe, "stream", fails)
    good, bad = job_of(pipe, "red", (1,)), job_of(pipe, "blue", (13,))
    for job in (good, bad):
        scheduler.submit(job)
    scheduler.start()
    assert ear(good).wait().event == "ended" and len(ear(good).drawn()) == 1
    assert "NaN" in str(ear(bad).wait().error)


def test_tasks_take_their_turn_and_can_be_cancelled(pipe, scheduler):
    def work(pipe):
        for step in range(10**6):
            yield step / 10**6
            time.sleep(0.001)

    def short(pipe):
        yield 0.5
        return {"blocks": len(pipe.flow.blocks)}

    long = TaskJob("me", Ear(), "edit", work)
    quick = TaskJob("me", Ear(), "score", short)
    scheduler.submit(long)
    scheduler.submit(quick)
    scheduler.start()
    while not any(u.event == "progress" for u in ear(long).updates):
        time.sleep(0.01)
    scheduler.cancel(long)
    assert isinstance(ear(long).wait().error, Cancelled)
    assert ear(quick).wait().event == "ended"
    assert [u.value for u in ear(quick).updates if u.event == "finished"] == [{"blocks": 3}]


def test_stopping_ends_everything_at_once(pipe):
    scheduler = Scheduler(pipe, 2, 40)
    jobs = [job_of(pipe, "red", tuple(range(5)), sampler="sequential") for _ in range(4)]
    for job in jobs:
        scheduler.submit(job)
    scheduler.start()
    time.sleep(0.1)
    scheduler.stop()
    assert scheduler.join(5)
    for job in jobs:
        assert ear(job).wait().event == "failed" and job.state == "cancelled"
    with pytest.raises(RequestError, match="stopping"):
        scheduler.submit(job_of(pipe))


def test_the_pace_is_learned():
    pace = Pace()
    assert pace.batch(1) is None and pace.several(3, 2) is None
    pace.learn(1, 1.0)
    pace.learn(4, 2.0)
    assert pace.batch(1) == 1.0 and pace.several(9, 4) == pytest.approx(5.0)
    assert 1.0 < pace.batch(2) < 2.0
    assert left(0.25, 1.0, None) == pytest.approx(3.0) and left(0.0, 1.0, 5.0) == 4.0
    assert left(0.0, 1.0, None) is None
