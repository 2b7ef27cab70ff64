"""dramatiq with its RabbitMQ broker: actors, retries, delays, dead letters, results of a group, a broker that is killed."""

import logging
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

import support
from broker import control, needs
from support import PATIENCE, equal, name, run

logging.disable(logging.CRITICAL)  # of what fails as planned
broker = RabbitmqBroker(url=support.URL, max_priority=10, confirm_delivery=True)
dramatiq.set_broker(broker)
seen = {}


def until(done):
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("what should have happened did not")
        time.sleep(0.01)


def note(kind, value):
    seen.setdefault(kind, []).append(value)


@dramatiq.actor(queue_name=name("default"), max_retries=0)
def add(a, b):
    note("add", a + b)


@dramatiq.actor(queue_name=name("retries"), max_retries=3, min_backoff=50, max_backoff=100)
def fail():
    note("fail", time.monotonic())
    raise RuntimeError("as planned")


@dramatiq.actor(queue_name=name("priorities"), max_retries=0)
def ranked(n):
    note("ranked", n)


def worked(check):
    """Runs a check beside a worker with two threads."""

    def wrapped():
        worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
        worker.start()
        try:
            check()
        finally:
            worker.stop()

    wrapped.__name__ = check.__name__
    return wrapped


@worked
def tasks():
    for i in range(100):
        add.send(i, i)
    until(lambda: len(seen.get("add", [])) >= 100)
    equal(sorted(seen["add"]), [2 * i for i in range(100)])


@worked
def delays():
    """By the queue .DQ, whose messages wait in the worker."""
    start = time.monotonic()
    seen.pop("add", None)
    add.send_with_options(args=(1, 2), delay=500)
    until(lambda: seen.get("add"))
    equal((seen["add"], time.monotonic() - start >= 0.5), ([3], True))


@worked
def retries():
    """Three retries, then the message is in the queue .XQ, which keeps it for a week."""
    fail.send()
    until(lambda: broker.get_queue_message_counts(name("retries"))[2] == 1)
    equal(len(seen["fail"]), 4)


def priorities():
    """What is sent before the worker starts comes in the order of its priority."""
    for n in [1, 9, 5]:
        ranked.send_with_options(args=(n,), broker_priority=n)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    until(lambda: len(seen.get("ranked", [])) == 3)
    worker.stop()
    equal(seen["ranked"], [9, 5, 1])


def recovery():
    needs("AMQP_CTL")
    seen.pop("add", None)
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    for i in range(200):
        if i in (50, 120):
            control("kill")
            control("start")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                add.send(i, 0)
                break
            except dramatiq.errors.ConnectionError:
                if time.monotonic() > deadline:
                    raise
    until(lambda: set(seen.get("add", [])) == set(range(200)))
    worker.stop()


def leave_nothing():
    broker.close()
    with support.connect() as connection:
        for hint in ["default", "retries", "priorities"]:
            for suffix in ["", ".DQ", ".XQ"]:
                connection.channel().queue_delete(name(hint) + suffix)


run(tasks, delays, retries, priorities, recovery, leave_nothing)
