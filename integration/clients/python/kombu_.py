"""The scenarios of integration/clients/README.md through kombu by itself, as Celery's relatives and Nameko use it."""

import os
import socket
import ssl
import time

import kombu
from kombu.exceptions import OperationalError

import support
from broker import control, needs
from support import PATIENCE, Skip, equal, name, run

SETTINGS = {"confirm_publish": True, "max_retries": 3, "interval_start": 0}


def connect(url=support.URL, **options):
    return kombu.Connection(url, connect_timeout=PATIENCE, transport_options=SETTINGS, **options)


def drain(connection, done):
    """Serves the connection until done() is true."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("what should have been delivered was not")
        try:
            connection.drain_events(timeout=0.1)
        except socket.timeout:
            pass


def as_bytes(body):
    """Bodies are strings or bytes, as their encoding says."""
    return body.encode() if isinstance(body, str) else bytes(body)


def recovery():
    """Ensured publishes, and consumers that are made anew when the connection is lost."""
    needs("AMQP_CTL")
    exchange = kombu.Exchange(name("recovery-x"), "topic", durable=True)
    queue = kombu.Queue(name("recovery"), exchange, "a.#", durable=True)
    mine = kombu.Queue(name("recovery-mine"), exclusive=True)  # of a dead connection it is free at once
    number = 0
    policy = {"max_retries": 600, "interval_start": 0.05, "interval_step": 0, "interval_max": 0.05}
    with connect() as publisher, connect() as consumer:
        producer = publisher.Producer()
        for round_ in range(3):
            sent, got = set(), set()

            def work(body, message):
                got.add(body)
                message.ack()

            for i in range(100):
                if i == 50 and round_ < 2:
                    control("kill")
                    control("start")
                number += 1
                producer.publish(
                    str(number), exchange=exchange, routing_key="a.b", declare=[queue, mine], retry=True, retry_policy=policy, delivery_mode=2
                )
                sent.add(str(number))
            consumer.ensure_connection(max_retries=600, interval_start=0.05, interval_step=0)
            deadline = time.monotonic() + PATIENCE
            while not sent <= got:
                try:
                    with consumer.Consumer(queue, callbacks=[work], prefetch_count=10):
                        drain(consumer, lambda: sent <= got)
                except consumer.connection_errors + consumer.channel_errors:
                    if time.monotonic() > deadline:
                        raise
                    consumer.close()
        queue(publisher.channel()).delete()
        exchange(publisher.channel()).delete()


def confirms():
    with connect() as connection:
        queue = kombu.Queue(name("confirms"), durable=True)(connection.channel())
        queue.declare()
        producer = connection.Producer()
        for i in range(1000):
            producer.publish(str(i), routing_key=queue.name, delivery_mode=2)
        equal(queue.queue_declare(passive=True).message_count, 1000)
        queue.delete()


def returns():
    with connect() as connection:
        returned = []
        producer = connection.Producer(on_return=lambda exc, exchange, key, message: returned.append((exc.reply_code, message.body)))
        producer.publish("lost", routing_key=name("nobody"), mandatory=True)
        drain(connection, lambda: returned)
        equal([(code, as_bytes(body)) for code, body in returned], [(312, b"lost")])


def prefetch():
    with connect() as connection:
        ch = connection.channel()
        queue = kombu.Queue(name("prefetch"), exclusive=True)(ch)
        queue.declare()
        for i in range(10):
            connection.Producer(ch).publish(str(i), routing_key=queue.name)
        got = []
        with connection.Consumer(queue, callbacks=[lambda _body, message: got.append(message)], prefetch_count=5, channel=ch):
            drain(connection, lambda: len(got) >= 5)
            queue.queue_declare(passive=True)
            equal(len(got), 5)
            got[0].ack()
            drain(connection, lambda: len(got) >= 6)
            queue.queue_declare(passive=True)
            equal(len(got), 6)
            got[5].ack(multiple=True)
            drain(connection, lambda: len(got) >= 10)
        equal([m.payload for m in got], [str(i) for i in range(10)])


def retry():
    with connect() as connection:
        ch = connection.channel()
        work = kombu.Queue(name("work"), queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("wait")})(ch)
        wait = kombu.Queue(name("wait"), message_ttl=0.05, queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work.name})(ch)
        work.declare()
        wait.declare()
        tries = []

        def handle(_body, message):
            deaths = message.headers.get("x-death", [])
            count = next((d["count"] for d in deaths if d["queue"] == work.name and d["reason"] == "rejected"), 0)
            tries.append(count)
            if count < 3:
                message.reject()
            else:
                message.ack()

        with connection.Consumer(work, callbacks=[handle], channel=ch):
            connection.Producer(ch).publish("job", routing_key=work.name)
            drain(connection, lambda: len(tries) >= 4)
        equal(tries, [0, 1, 2, 3])
        work.delete()
        wait.delete()


def rpc():
    with connect() as connection:
        client, server = connection.channel(), connection.channel()
        requests = kombu.Queue(name("rpc"), exclusive=True)
        answers = {}

        def answer(body, message):
            connection.Producer(server).publish(2 * body, routing_key=message.properties["reply_to"], correlation_id=message.properties["correlation_id"])

        replies = kombu.Queue("amq.rabbitmq.reply-to", no_declare=True)
        with connection.Consumer(requests, callbacks=[answer], no_ack=True, channel=server), connection.Consumer(
            replies, callbacks=[lambda body, message: answers.update({message.properties["correlation_id"]: body})], no_ack=True, channel=client
        ):
            for i in range(20):
                # The answers come to the channel that asks.
                connection.Producer(client).publish(i, routing_key=requests.name, reply_to="amq.rabbitmq.reply-to", correlation_id=str(i))
            drain(connection, lambda: len(answers) == 20)
        equal(answers, {str(i): 2 * i for i in range(20)})


def blocked():
    needs("AMQP_CTL")
    with kombu.Connection(support.URL) as connection, connect() as other:  # the first without waiting for confirms
        notices = []
        connection.connect()
        connection.connection.on_blocked = lambda _reason: notices.append("blocked")  # the broker's reason does not come so far
        connection.connection.on_unblocked = lambda: notices.append("unblocked")
        ch = connection.channel()
        ch.queue_declare(name("blocked"), durable=True, auto_delete=False)

        def publish(body):
            connection.Producer(ch).publish(body, routing_key=name("blocked"), delivery_mode=2)

        publish("before")
        equal(ch.queue_declare(name("blocked"), passive=True).message_count, 1)
        control("block")
        publish("first")  # by which a broker may notice
        drain(connection, lambda: notices == ["blocked"])
        publish("held")
        got = []
        reader = other.default_channel
        reader.basic_consume(name("blocked"), no_ack=True, callback=lambda m: got.append(m.body))
        drain(other, lambda: len(got) >= 1)
        control("unblock")
        drain(connection, lambda: notices == ["blocked", "unblocked"])
        drain(other, lambda: len(got) == 3)
        equal([as_bytes(body) for body in got], [b"before", b"first", b"held"])
        ch.queue_delete(name("blocked"))


def tls():
    needs("AMQPS_URL")
    if os.environ.get("SKIP_TLS"):
        raise Skip("this version's cannot verify a host")
    folder = os.environ["BROKER_TLS"]

    def secure(certificate):
        options = {"ca_certs": f"{folder}/ca.pem", "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "localhost"}
        if certificate:
            options |= {"certfile": f"{folder}/{certificate}.pem", "keyfile": f"{folder}/{certificate}-key.pem"}
        connection = kombu.Connection(os.environ["AMQPS_URL"], ssl=options, connect_timeout=PATIENCE)
        connection.connect()
        return connection

    with secure("client") as connection:
        with connection.SimpleQueue(name("tls"), queue_opts={"durable": False}) as queue:
            queue.put("safe")
            message = queue.get(timeout=PATIENCE)
            equal(message.payload, "safe")
            message.ack()
        connection.default_channel.queue_delete(name("tls"))
    for certificate in ["other", None]:
        try:
            secure(certificate)
        except (OperationalError, OSError):
            continue
        raise AssertionError(f"connected with {certificate}")


def cancel():
    with connect() as connection, connect() as other:
        queue = kombu.Queue(name("gone"), durable=False)
        cancelled = []
        with connection.Consumer(queue, callbacks=[lambda *_: None], on_decode_error=None) as consumer:
            for tag in list(consumer._active_tags.values()):
                consumer.channel.cancel_callbacks[tag] = cancelled.append
            try:
                other.default_channel.queue_delete(queue.name)
                drain(connection, lambda: cancelled)
            except connection.connection_errors + connection.channel_errors:
                cancelled.append("raised")
        equal(len(cancelled), 1)


def bodies():
    with connect() as connection:
        ch = connection.channel()
        queue = kombu.Queue(name("bodies"), exclusive=True)(ch)
        queue.declare()
        for size in [0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20]:
            body = os.urandom(size)
            connection.Producer(ch).publish(body, routing_key=queue.name, content_type="application/data", content_encoding="binary")
            got = queue.get(no_ack=True)
            equal((len(got.body), as_bytes(got.body) == body), (size, True))


def headers():
    with connect() as connection:
        ch = connection.channel()
        queue = kombu.Queue(name("headers"), exclusive=True)(ch)
        queue.declare()
        sent = {
            "true": True, "false": False, "octet": -5, "int": 2**31 - 1, "long": -(2**63), "text": "grün 🐇", "empty": "", "null": None, "double": 1.25,
            "table": {"in": {"deeper": 1}}, "list": [1, "two", [3], {"four": 4}],
        }
        connection.Producer(ch).publish(
            "x", routing_key=queue.name, headers=sent, priority=9, correlation_id="c", reply_to="r", expiration=100, message_id="m", timestamp=1700000000,
            type="t", app_id="a", delivery_mode=2,
        )
        got = queue.get(no_ack=True)
        equal({k: got.headers[k] for k in sorted(got.headers)}, {k: sent[k] for k in sorted(sent)})
        properties = got.properties
        equal(
            [properties[k] for k in ["priority", "correlation_id", "reply_to", "expiration", "message_id", "type", "app_id", "delivery_mode"]],
            [9, "c", "r", "100000", "m", "t", "a", 2],
        )


run(recovery, confirms, returns, prefetch, retry, rpc, blocked, tls, cancel, bodies, headers)
