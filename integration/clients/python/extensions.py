"""RabbitMQ's extensions of AMQP 0-9-1 through pika, as its users write them. See support.py for what it prints."""

import time
import uuid

import pika
import pika.exceptions

from support import collector, connect, equal, name, pump, run


def drain(channel, queue):
    """The bodies that a queue holds, oldest first."""
    got = []
    while True:
        method, _properties, body = channel.basic_get(queue=queue, auto_ack=True)
        if method is None:
            return got
        got.append(body.decode())


def retry_loop():
    """Failed work waits in a queue with a time to live and comes back, until x-death says that it was tried three times."""
    connection = connect()
    channel = connection.channel()
    work, retry = name("work"), name("retry")
    channel.queue_declare(
        queue=work, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry}
    )
    channel.queue_declare(
        queue=retry,
        exclusive=True,
        arguments={"x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work},
    )
    tries = []

    def attempt(ch, method, properties, _body):
        deaths = (properties.headers or {}).get("x-death", [])
        tries.append((time.monotonic(), properties.headers, deaths))
        failures = sum(d["count"] for d in deaths if d["queue"] == work and d["reason"] == "rejected")
        if failures < 3:
            ch.basic_reject(method.delivery_tag, requeue=False)
        else:
            ch.basic_ack(method.delivery_tag)

    channel.basic_consume(queue=work, on_message_callback=attempt)
    channel.basic_publish("", work, b"job", pika.BasicProperties(headers={"app": "kept"}))
    pump(connection, lambda: len(tries) == 4)

    equal(tries[0][2], [])
    for (before, _, _), (after, _, _) in zip(tries, tries[1:]):
        if after - before < 0.045:  # the clock of the client began later than that of the queue
            raise AssertionError(f"came back after {after - before:.3f} s, its time to live is 0.05 s")
    headers, deaths = tries[3][1], tries[3][2]
    equal(headers["app"], "kept")
    equal([headers[f"x-first-death-{k}"] for k in ("queue", "reason", "exchange")], [work, "rejected", ""])
    equal([headers[f"x-last-death-{k}"] for k in ("queue", "reason", "exchange")], [retry, "expired", ""])
    equal(
        [(d["queue"], d["reason"], d["count"], d["exchange"], d["routing-keys"]) for d in deaths],
        [(retry, "expired", 3, "", [retry]), (work, "rejected", 3, "", [work])],
    )
    equal(drain(channel, work) + drain(channel, retry), [])
    connection.close()


def reject_publish():
    """A full queue refuses: the publisher sees a nack, and what was accepted stays."""
    connection = connect()
    channel = connection.channel()
    queue = name("full")
    channel.queue_declare(queue=queue, exclusive=True, arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    outcome = ""
    for i in range(6):
        try:
            channel.basic_publish("", queue, str(i))
            outcome += "a"
        except pika.exceptions.NackError:
            outcome += "n"
    equal(outcome, "aaannn")
    equal(drain(channel, queue), ["0", "1", "2"])
    channel.basic_publish("", queue, "7")
    equal(drain(channel, queue), ["7"])
    connection.close()


def length_limit_with_dead_letters():
    connection = connect()
    channel = connection.channel()
    queue, dropped = name("newest"), name("dropped")
    channel.queue_declare(queue=dropped, exclusive=True)
    channel.queue_declare(
        queue=queue,
        exclusive=True,
        arguments={"x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dropped},
    )
    channel.confirm_delivery()
    for i in range(5):
        channel.basic_publish("", queue, str(i))
    equal(drain(channel, queue), ["3", "4"])
    reasons = []
    for body in ("0", "1", "2"):
        _method, properties, got = channel.basic_get(queue=dropped, auto_ack=True)
        equal(got.decode(), body)
        reasons.append(properties.headers["x-death"][0]["reason"])
    equal(reasons, ["maxlen"] * 3)
    connection.close()


def expiration():
    """The time to live of a message and of a queue."""
    connection = connect()
    channel = connection.channel()
    queue, late, gone = name("expiring"), name("late"), name("unused")
    channel.queue_declare(queue=late, exclusive=True)
    channel.queue_declare(
        queue=queue, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": late}
    )
    channel.queue_declare(queue=gone, arguments={"x-expires": 100}, durable=True)
    got = []
    channel.basic_consume(
        queue=late, on_message_callback=lambda _c, _m, p, body: got.append((body, p.expiration, p.headers)), auto_ack=True
    )
    channel.basic_publish("", queue, b"short", pika.BasicProperties(expiration="30"))
    channel.basic_publish("", queue, b"long", pika.BasicProperties(expiration="60000"))
    pump(connection, lambda: got)
    body, left, headers = got[0]
    equal((body, left), (b"short", None))
    death = headers["x-death"][0]
    equal((death["reason"], death["original-expiration"]), ("expired", "30"))
    equal(drain(channel, queue), ["long"])

    def vanished():
        probe = connection.channel()
        try:
            probe.queue_declare(queue=gone, passive=True)
        except pika.exceptions.ChannelClosedByBroker as closed:
            equal(closed.reply_code, 404)
            return True
        probe.close()
        # Passive declares count as use, so ask less often than the queue expires.
        connection.sleep(0.2)
        return False

    pump(connection, vanished)
    connection.close()


def priorities():
    connection = connect()
    channel = connection.channel()
    queue = name("priorities")
    channel.queue_declare(queue=queue, exclusive=True, arguments={"x-max-priority": 5})
    for i, priority in enumerate((0, 5, 1, 5, 9, None, 3)):
        channel.basic_publish("", queue, str(i), pika.BasicProperties(priority=priority))
    equal(drain(channel, queue), ["1", "3", "4", "6", "2", "0", "5"])  # 9 counts as 5, none as 0
    connection.close()


def consumer_priorities():
    connection = connect()
    low, high = connection.channel(), connection.channel()
    queue = name("consumers")
    low.queue_declare(queue=queue, exclusive=True)
    got_low = collector(low, queue)
    got_high = []
    high.basic_qos(prefetch_count=2)
    high.basic_consume(
        queue=queue, on_message_callback=lambda _c, _m, _p, body: got_high.append(body), arguments={"x-priority": 10}
    )
    for i in range(5):
        low.basic_publish("", queue, str(i))
    pump(connection, lambda: len(got_low) + len(got_high) == 5)
    equal((got_high, [body for _, body in got_low]), ([b"0", b"1"], ["2", "3", "4"]))
    connection.close()


def single_active_consumer():
    """One of two consumers gets everything, in order; the other one takes over what the first did not finish."""
    connection, other = connect(), connect()
    channel, waiting = connection.channel(), other.channel()
    queue = name("single")
    channel.queue_declare(queue=queue, durable=True, arguments={"x-single-active-consumer": True})
    try:
        first, second = [], []
        channel.basic_qos(prefetch_count=10)
        channel.basic_consume(queue=queue, on_message_callback=lambda _c, m, _p, body: first.append((m, body)))
        waiting.basic_consume(
            queue=queue, on_message_callback=lambda _c, m, _p, body: second.append((m.redelivered, body)), auto_ack=True
        )
        for i in range(6):
            channel.basic_publish("", queue, str(i))
        pump(connection, lambda: len(first) == 6)
        other.process_data_events(time_limit=0)
        equal(second, [])
        for method, _body in first[:4]:
            channel.basic_ack(method.delivery_tag)
        connection.close()
        pump(other, lambda: len(second) == 2)
        equal(second, [(True, b"4"), (True, b"5")])
    finally:
        waiting.queue_delete(queue=queue)
        other.close()


def direct_reply_to():
    connection, service = connect(), connect()
    client, server = connection.channel(), service.channel()
    queue = name("rpc")
    server.queue_declare(queue=queue, exclusive=True)

    def serve(ch, method, properties, body):
        ch.basic_publish(
            "", properties.reply_to, body.upper(), pika.BasicProperties(correlation_id=properties.correlation_id)
        )
        ch.basic_ack(method.delivery_tag)

    server.basic_consume(queue=queue, on_message_callback=serve)
    answers = {}
    client.basic_consume(
        queue="amq.rabbitmq.reply-to",
        on_message_callback=lambda _c, _m, p, body: answers.update({p.correlation_id: body}),
        auto_ack=True,
    )
    want = {}
    for i in range(10):
        correlation_id = str(uuid.uuid4())
        want[correlation_id] = b"CALL %d" % i
        client.basic_publish(
            "",
            queue,
            b"call %d" % i,
            pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=correlation_id),
        )

    def answered():
        service.process_data_events(time_limit=0)
        return len(answers) == len(want)

    pump(connection, answered)
    equal(answers, want)
    connection.close()
    service.close()


def delayed_exchange():
    connection = connect()
    channel = connection.channel()
    exchange = name("delayed")
    channel.exchange_declare(
        exchange=exchange, exchange_type="x-delayed-message", auto_delete=True, arguments={"x-delayed-type": "topic"}
    )
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange=exchange, queue=queue, routing_key="mail.*")
    channel.confirm_delivery()
    start = time.monotonic()
    for delay in (300, 100, 0):
        channel.basic_publish(exchange, "mail.x", str(delay), pika.BasicProperties(headers={"x-delay": delay}))
    quick = time.monotonic() - start < 0.1  # otherwise the order of what is due is that of the publishing
    got = []
    channel.basic_consume(
        queue=queue,
        on_message_callback=lambda _c, _m, p, body: got.append((int(body), time.monotonic() - start, p.headers)),
        auto_ack=True,
    )
    pump(connection, lambda: len(got) == 3)
    order = [delay for delay, _, _ in got]
    equal(order if quick else sorted(order), [0, 100, 300])
    for delay, elapsed, headers in got:
        equal(headers["x-delay"], -delay)
        if elapsed < delay / 1000:
            raise AssertionError(f"came after {elapsed:.3f} s, its delay is {delay} ms")
    connection.close()


def confirms_and_returns():
    connection = connect()
    channel = connection.channel()
    queue = name("confirmed")
    channel.queue_declare(queue=queue, durable=True)
    try:
        channel.confirm_delivery()
        persistent = pika.BasicProperties(delivery_mode=2, headers={"n": 1})
        channel.basic_publish("", queue, b"stored", persistent, mandatory=True)
        try:
            channel.basic_publish("", name("nowhere"), b"lost", persistent, mandatory=True)
            raise AssertionError("what matches no queue was taken for delivered")
        except pika.exceptions.UnroutableError as unroutable:
            [message] = unroutable.messages
            equal(message.method.reply_code, 312)
            equal(message.method.reply_text, "NO_ROUTE")
            equal((message.body, message.properties.headers), (b"lost", {"n": 1}))
        equal(drain(channel, queue), ["stored"])
    finally:
        channel.queue_delete(queue=queue)
        connection.close()


def consumer_cancel():
    """The broker tells consumers that their queue is gone; the channel lives on."""
    connection, other = connect(), connect()
    channel = connection.channel()
    queue = name("doomed")
    channel.queue_declare(queue=queue, durable=True)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(queue=queue, on_message_callback=lambda *_: None)
    deleter = other.channel()
    deleter.queue_delete(queue=queue)
    pump(connection, lambda: cancelled)
    equal(cancelled, [tag])
    channel.queue_declare(queue=name("next"), exclusive=True)
    other.close()
    connection.close()


def read_stream(connection, queue, count, arguments):
    """Reads count messages in a channel of its own and returns their (offset, body)."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=5)
    got = []

    def callback(ch, method, properties, body):
        got.append((properties.headers["x-stream-offset"], body.decode()))
        ch.basic_ack(method.delivery_tag)

    channel.basic_consume(queue=queue, on_message_callback=callback, arguments=arguments)
    pump(connection, lambda: len(got) >= count)
    channel.close()
    return got


def streams():
    connection = connect()
    channel = connection.channel()
    queue = name("stream")
    channel.queue_declare(queue=queue, durable=True, arguments={"x-queue-type": "stream", "x-max-age": "1D"})
    try:
        channel.confirm_delivery()
        for i in range(20):
            country = "germany" if i % 4 == 0 else "france"
            channel.basic_publish("", queue, str(i), pika.BasicProperties(headers={"x-stream-filter-value": country}))
        everything = [(i, str(i)) for i in range(20)]
        for _ in range(2):  # reading takes nothing away
            equal(read_stream(connection, queue, 20, {"x-stream-offset": "first"}), everything)
        equal(read_stream(connection, queue, 7, {"x-stream-offset": 13}), everything[13:])
        filtered = read_stream(connection, queue, 5, {"x-stream-offset": "first", "x-stream-filter": "germany"})
        equal([m for m in filtered if int(m[1]) % 4 == 0], everything[::4])

        tail = connection.channel()
        tail.basic_qos(prefetch_count=5)
        got = []
        tail.basic_consume(
            queue=queue,
            on_message_callback=lambda _c, _m, p, body: got.append((p.headers["x-stream-offset"], body)),
            arguments={"x-stream-offset": "next"},
        )
        channel.basic_publish("", queue, b"new")
        pump(connection, lambda: got)
        equal(got, [(20, b"new")])
    finally:
        channel.queue_delete(queue=queue)
        connection.close()


if __name__ == "__main__":
    run(
        retry_loop,
        reject_publish,
        length_limit_with_dead_letters,
        expiration,
        priorities,
        consumer_priorities,
        single_active_consumer,
        direct_reply_to,
        delayed_exchange,
        confirms_and_returns,
        consumer_cancel,
        streams,
    )
