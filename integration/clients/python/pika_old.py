"""Scenarios through pika 0.13, whose calls have other arguments, with a consumer that is a generator."""

import os

import pika
import pika.exceptions

import support
from support import equal, name, run

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def channel():
    return pika.BlockingConnection(pika.URLParameters(support.URL)).channel()


def take(ch, queue, count):
    """The next messages, acknowledged."""
    got = []
    for method, properties, body in ch.consume(queue, inactivity_timeout=support.PATIENCE):
        if method is None:
            raise TimeoutError("what should have been delivered was not")
        got.append((method, properties, body))
        ch.basic_ack(method.delivery_tag)
        if len(got) == count:
            ch.cancel()
            return got


def confirms():
    ch = channel()
    ch.queue_declare(name("confirms"), durable=True)
    ch.confirm_delivery()
    for i in range(200):
        equal(ch.basic_publish("", name("confirms"), str(i), PERSISTENT), True)
    equal([body for _, _, body in take(ch, name("confirms"), 200)], [str(i).encode() for i in range(200)])
    ch.queue_delete(name("confirms"))
    ch.connection.close()


def returns():
    """A publish that is returned says False."""
    ch = channel()
    ch.confirm_delivery()
    queue = ch.queue_declare(exclusive=True).method.queue
    equal(ch.basic_publish("", name("nobody"), "lost", mandatory=True), False)
    equal(ch.basic_publish("", queue, "found", mandatory=True), True)
    ch.connection.close()


def retry():
    ch = channel()
    ch.queue_declare(name("work"), exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("wait")})
    ch.queue_declare(name("wait"), exclusive=True, arguments={
        "x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("work"),
    })
    ch.basic_publish("", name("work"), "job")
    tries = []
    for method, properties, _ in ch.consume(name("work"), inactivity_timeout=support.PATIENCE):
        if method is None:
            raise TimeoutError("what should have been delivered was not")
        deaths = (properties.headers or {}).get("x-death", [])
        tries.append(next((d["count"] for d in deaths if d["reason"] == "rejected"), 0))
        if len(tries) == 4:
            break
        ch.basic_reject(method.delivery_tag, requeue=False)
    equal(tries, [0, 1, 2, 3])
    ch.connection.close()


def bodies():
    ch = channel()
    queue = ch.queue_declare(exclusive=True).method.queue
    for size in [0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20]:
        body = os.urandom(size)
        ch.basic_publish("", queue, body)
        equal(take(ch, queue, 1)[0][2] == body, True)
    ch.connection.close()


def cancel():
    """The generator ends."""
    ch, other = channel(), channel()
    ch.queue_declare(name("gone"))
    ch.basic_publish("", name("gone"), "last")
    got = []
    for method, _, body in ch.consume(name("gone"), inactivity_timeout=support.PATIENCE):
        if method is None:
            raise TimeoutError("the consumer was not cancelled")
        got.append(body)
        other.queue_delete(name("gone"))
    equal(got, [b"last"])
    ch.connection.close()
    other.connection.close()


run(confirms, returns, retry, bodies, cancel)
