"""A Celery application with real workers: what Celery asks of its broker.

Runs against AMQP_URL. Prints a line per check and "N passed, N failed" at the end; exits with 1 if one failed.
Queues have names of their own and are removed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid

os.environ.setdefault("AMQP_URL", "amqp://guest:guest@localhost:5672//")
os.environ["CLIENTS_RUN"] = "clients-celery-" + uuid.uuid4().hex[:8]

from celery import group  # noqa: E402: the settings come first
from kombu import Exchange, Producer, Queue  # noqa: E402
from kombu.transport.native_delayed_delivery import (  # noqa: E402
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_LEVEL,
    bind_queue_to_native_delayed_delivery_exchange,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)
from tasks import RUN, add, app, flaky, hold, note, when  # noqa: E402

PATIENCE = 30  # seconds for anything that must happen
TASKS, URGENT = f"{RUN}-tasks", f"{RUN}-urgent"


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def until(done, what):
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def lines(path):
    """The lines that tasks have written to a file so far. A task opens it before it writes."""
    try:
        with open(path, encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def touch(path):
    with open(path, "w", encoding="utf-8"):
        pass


class Worker:
    """A worker process with two children, in a process group of its own."""

    def __init__(self, folder, queues=(TASKS,), concurrency=2):
        self.name = f"w{uuid.uuid4().hex[:6]}@{RUN}"
        self.log = os.path.join(folder, self.name + ".log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", self.name, "-Q", ",".join(queues)]
                + ["-c", str(concurrency), "-l", "INFO"],
                cwd=os.path.dirname(os.path.abspath(__file__)),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def control(self):
        return app.control.inspect(destination=[self.name], timeout=PATIENCE, limit=1)

    def ready(self):
        until(self.says_ready, "the worker did not start:\n" + self.tail())
        return self

    def says_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError("the worker ended:\n" + self.tail())
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return f"{self.name} ready." in log.read()

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """A warm shutdown: what is running is finished, what is prefetched goes back."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


def counts(queue):
    with app.connection_for_read() as connection:
        declared = connection.default_channel.queue_declare(queue, passive=True)
        return declared.message_count, declared.consumer_count


def reply(answers):
    [(_worker, answer)] = answers.items()
    return answer


# The checks that share one worker.


def results(_worker, _folder):
    """Two hundred tasks and their results through rpc://, each once."""
    equal(group(add.s(i, i) for i in range(200))().get(timeout=PATIENCE), [2 * i for i in range(200)])


def retries(_worker, _folder):
    equal(flaky.delay(2).get(timeout=PATIENCE), 2)


def countdown_and_eta(_worker, _folder):
    start = time.time()
    late = when.apply_async(countdown=1)
    when.delay().get(timeout=PATIENCE)
    ran = late.get(timeout=PATIENCE) - start
    if ran < 1:
        raise AssertionError(f"ran after {ran:.2f} s, its countdown is 1 s")


def remote_control(worker, _folder):
    equal(reply(worker.control().ping()), {"ok": "pong"})
    equal([q["name"] for q in reply(worker.control().active_queues())], [TASKS])
    for limit in ("50/s", "0"):
        [answer] = app.control.rate_limit("tasks.add", limit, destination=[worker.name], reply=True, timeout=PATIENCE, limit=1)
        equal(list(reply(answer)), ["ok"])
        equal(add.delay(1, 2).get(timeout=PATIENCE), 3)


def prefetch_changes(worker, folder):
    """Prefetch is one limit of the channel, changed while the worker consumes: what is over it stays in the queue."""
    jobs = [hold.delay(folder) for _ in range(12)]
    # Two children times two: four are with the worker.
    until(lambda: counts(TASKS)[0] == 8, "prefetch 4 does not leave 8 of 12 in the queue")
    app.control.pool_grow(1, destination=[worker.name], reply=True, timeout=PATIENCE, limit=1)
    # A third child brings two more.
    until(lambda: counts(TASKS)[0] == 6, "a larger prefetch does not take 2 more")
    touch(os.path.join(folder, "go"))
    equal([job.get(timeout=PATIENCE) for job in jobs], [False] * 12)
    equal(counts(TASKS), (0, 1))


def revoked(worker, _folder):
    """A task that is revoked before it comes never runs."""
    task = str(uuid.uuid4())
    app.control.revoke(task, destination=[worker.name], reply=True, timeout=PATIENCE, limit=1)
    job = add.apply_async((1, 1), task_id=task)
    try:
        job.get(timeout=PATIENCE)
        raise AssertionError("a revoked task ran")
    except Exception as gone:  # celery.exceptions.TaskRevokedError, or a copy of it
        equal(type(gone).__name__, "TaskRevokedError")


# The checks with workers of their own.


def killed_worker(folder):
    """A worker is killed in its task: the task, acknowledged late, comes to another one, flagged."""
    first = Worker(folder, concurrency=1).ready()
    began = os.path.join(folder, "began")
    try:
        job = hold.delay(folder)
        until(lambda: lines(began), "the task did not begin")
    finally:
        first.kill()
    touch(os.path.join(folder, "go"))
    second = Worker(folder, concurrency=1).ready()
    try:
        equal(job.get(timeout=PATIENCE), True)
        equal([int(pid) for pid in lines(began)], [first.process.pid, second.process.pid])
    finally:
        second.stop()
    until(lambda: counts(TASKS) == (0, 0), "the queue is not left empty and without consumers")


def priorities(folder):
    """What waits in a priority queue is worked on in the order of priority."""
    path = os.path.join(folder, "order")
    for i, priority in enumerate((0, 5, 3, 5, 1)):
        note.apply_async((path, str(i)), queue=URGENT, priority=priority)
    worker = Worker(folder, queues=(URGENT,), concurrency=1).ready()
    try:
        until(lambda: len(lines(path)) == 5, "five tasks did not run")
    finally:
        worker.stop()
    equal(lines(path), ["1", "3", "2", "4", "0"])


def native_delayed_delivery(_folder):
    """kombu's chain of 28 topic exchanges and quorum queues with a time to live: 3 s go through two levels."""
    queue = Queue(f"{RUN}-delayed", Exchange(f"{RUN}-x", type="topic"), routing_key=f"{RUN}.key")
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum", prefix=RUN)
        bound = queue(channel)
        bound.declare()
        bind_queue_to_native_delayed_delivery_exchange(connection, bound, prefix=RUN)
        got = []
        start = time.monotonic()
        for delay in (3, 1):
            Producer(channel).publish(
                {"delay": delay}, exchange=level_name(MAX_LEVEL, RUN), routing_key=calculate_routing_key(delay, f"{RUN}.key")
            )

        def receive():
            message = bound.get(no_ack=True)
            if message:
                got.append((message.payload["delay"], time.monotonic() - start))
            return len(got) == 2

        until(receive, "what was delayed did not come")
        bound.delete()
        for level in range(MAX_LEVEL + 1):
            channel.queue_delete(level_name(level, RUN))
            channel.exchange_delete(level_name(level, RUN))
        for exchange in (f"{RUN}-x", f"{RUN}_{CELERY_DELAYED_DELIVERY_EXCHANGE}"):
            channel.exchange_delete(exchange)
    equal(sorted(delay for delay, _ in got), [1, 3])
    for delay, elapsed in got:
        if elapsed < delay:
            raise AssertionError(f"came after {elapsed:.2f} s, its delay is {delay} s")


def report(check, *arguments):
    try:
        check(*arguments)
    except Exception:  # the report names it, the next one runs
        print(f"FAIL {check.__name__}")
        traceback.print_exc(file=sys.stdout)
        return 1
    print(f"ok   {check.__name__}", flush=True)
    return 0


def main():
    sharing = (results, retries, countdown_and_eta, remote_control, prefetch_changes, revoked)
    alone = (killed_worker, priorities, native_delayed_delivery)
    failed = 0
    with tempfile.TemporaryDirectory() as top:
        worker = Worker(top)
        try:
            worker.ready()
            for check in sharing:
                folder = os.path.join(top, check.__name__)
                os.mkdir(folder)
                failed += report(check, worker, folder)
            if failed:
                print(worker.tail())
        finally:
            worker.stop()
        for check in alone:
            folder = os.path.join(top, check.__name__)
            os.mkdir(folder)
            failed += report(check, folder)
        with app.connection_for_write() as connection:
            for queue in (TASKS, URGENT):
                connection.default_channel.queue_delete(queue)
    print(f"{len(sharing) + len(alone) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
