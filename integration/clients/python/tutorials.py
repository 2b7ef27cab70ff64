"""The six tutorial patterns through pika, as its users write them. See support.py for what it prints."""

import uuid

import pika

from support import collector, connect, equal, name, pump, run


def hello():
    connection = connect()
    channel = connection.channel()
    queue = name("hello")
    channel.queue_declare(queue=queue, exclusive=True)
    got = collector(channel, queue)
    channel.basic_publish(exchange="", routing_key=queue, body="Hello World!")
    pump(connection, lambda: got)
    equal(got, [(queue, "Hello World!")])
    connection.close()


def work_queue():
    """Two workers with prefetch 1 and acks; one dies with its task, which the other one gets."""
    connection, dying = connect(), connect()
    publisher, channel, dying_channel = connection.channel(), connection.channel(), dying.channel()
    queue = name("tasks")
    publisher.queue_declare(queue=queue, durable=True)
    try:
        publisher.confirm_delivery()
        tasks = [f"task {i}" + "." * i for i in range(6)]
        for task in tasks:
            publisher.basic_publish(
                exchange="",
                routing_key=queue,
                body=task,
                properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
                mandatory=True,
            )
        lost = []
        dying_channel.basic_qos(prefetch_count=1)
        dying_channel.basic_consume(queue=queue, on_message_callback=lambda _c, _m, _p, body: lost.append(body.decode()))
        pump(dying, lambda: lost)
        equal(lost, [tasks[0]])

        done, redelivered = [], []

        def work(ch, method, properties, body):
            equal(properties.delivery_mode, 2)
            done.append(body.decode())
            if method.redelivered:
                redelivered.append(body.decode())
            ch.basic_ack(delivery_tag=method.delivery_tag)

        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue=queue, on_message_callback=work)
        pump(connection, lambda: len(done) == 5)
        equal(done, tasks[1:])
        equal(lost, [tasks[0]])  # prefetch 1: no second one without an ack
        dying.close()
        pump(connection, lambda: len(done) == 6)
        equal(done[-1], tasks[0])
        equal(redelivered, [tasks[0]])
    finally:
        publisher.queue_delete(queue=queue)
        connection.close()


def publish_subscribe():
    connection = connect()
    channel = connection.channel()
    exchange = name("logs")
    channel.exchange_declare(exchange=exchange, exchange_type="fanout", auto_delete=True)
    received = []
    for _ in range(3):
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.queue_bind(exchange=exchange, queue=queue)
        received.append(collector(channel, queue))
    for i in range(10):
        channel.basic_publish(exchange=exchange, routing_key="", body=f"log {i}")
    pump(connection, lambda: all(len(got) == 10 for got in received))
    for got in received:
        equal(got, [("", f"log {i}") for i in range(10)])
    connection.close()


def routing():
    connection = connect()
    channel = connection.channel()
    exchange = name("direct_logs")
    channel.exchange_declare(exchange=exchange, exchange_type="direct", auto_delete=True)
    received = []
    for severities in (["error"], ["info", "warning", "error"]):
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        for severity in severities:
            channel.queue_bind(exchange=exchange, queue=queue, routing_key=severity)
        received.append(collector(channel, queue))
    for severity in ("info", "error", "debug", "warning"):
        channel.basic_publish(exchange=exchange, routing_key=severity, body=severity)
    pump(connection, lambda: len(received[0]) == 1 and len(received[1]) == 3)
    equal(received[0], [("error", "error")])
    equal([key for key, _ in received[1]], ["info", "error", "warning"])
    connection.close()


def topics():
    connection = connect()
    channel = connection.channel()
    exchange = name("topic_logs")
    channel.exchange_declare(exchange=exchange, exchange_type="topic", auto_delete=True)
    want = {
        "#": ["kern.critical", "kern.info", "cron.critical", "a.b.critical", "kern"],
        "kern.*": ["kern.critical", "kern.info"],
        "*.critical": ["kern.critical", "cron.critical"],
        "#.critical": ["kern.critical", "cron.critical", "a.b.critical"],
        "kern.#": ["kern.critical", "kern.info", "kern"],
    }
    received = {}
    for pattern in want:
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.queue_bind(exchange=exchange, queue=queue, routing_key=pattern)
        received[pattern] = collector(channel, queue)
    for key in want["#"]:
        channel.basic_publish(exchange=exchange, routing_key=key, body=key)
    pump(connection, lambda: all(len(received[p]) == len(keys) for p, keys in want.items()))
    for pattern, keys in want.items():
        equal([key for key, _ in received[pattern]], keys)
    connection.close()


def tutorial_rpc():
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    connection = connect()
    server, client = connection.channel(), connection.channel()
    queue = name("rpc")
    server.queue_declare(queue=queue, exclusive=True)
    server.basic_qos(prefetch_count=1)

    def serve(ch, method, properties, body):
        ch.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(correlation_id=properties.correlation_id),
            body=str(fib(int(body))),
        )
        ch.basic_ack(delivery_tag=method.delivery_tag)

    server.basic_consume(queue=queue, on_message_callback=serve)
    callback_queue = client.queue_declare(queue="", exclusive=True).method.queue
    answers = {}

    def on_response(_ch, _method, properties, body):
        answers[properties.correlation_id] = int(body)

    client.basic_consume(queue=callback_queue, on_message_callback=on_response, auto_ack=True)
    want = {}
    for n in range(15):
        correlation_id = str(uuid.uuid4())
        want[correlation_id] = fib(n)
        client.basic_publish(
            exchange="",
            routing_key=queue,
            properties=pika.BasicProperties(reply_to=callback_queue, correlation_id=correlation_id),
            body=str(n),
        )
    pump(connection, lambda: len(answers) == len(want))
    equal(answers, want)
    connection.close()


if __name__ == "__main__":
    run(hello, work_queue, publish_subscribe, routing, topics, tutorial_rpc)
