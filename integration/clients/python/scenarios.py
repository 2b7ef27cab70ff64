"""The scenarios of integration/clients/README.md through pika, as its users write them."""

import datetime
import decimal
import os
import ssl
import time

import pika
import pika.exceptions

import support
from broker import control, needs
from support import PATIENCE, connect, equal, name, pump, run

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def persistently(do):
    """Tries again, after a moment, for as long as PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return do()
        except (pika.exceptions.AMQPError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def recovery():
    """A loop around connect, as pika's documentation has it."""
    needs("AMQP_CTL")
    queue, exchange = name("recovery"), name("recovery-x")

    def declare():
        ch = connect().channel()
        ch.exchange_declare(exchange, "topic", durable=True)
        ch.queue_declare(queue, durable=True)
        ch.queue_bind(queue, exchange, "a.#")
        ch.queue_declare(name("recovery-mine"), exclusive=True)  # of a dead connection it is free at once
        ch.basic_qos(prefetch_count=10)
        ch.confirm_delivery()
        return ch

    ch, number = persistently(declare), 0
    for round_ in range(3):
        sent = set()
        for i in range(100):
            if i == 50 and round_ < 2:
                control("kill")
                control("start")
            number += 1
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    ch.basic_publish(exchange, "a.b", str(number).encode(), PERSISTENT)
                    break
                except (pika.exceptions.AMQPError, OSError):
                    if time.monotonic() > deadline:
                        raise
                    ch = persistently(declare)
            sent.add(str(number))
        got = set()

        def work(channel, method, _properties, body):
            got.add(body.decode())
            channel.basic_ack(method.delivery_tag)

        tag = ch.basic_consume(queue, work)
        pump(ch.connection, lambda: sent <= got)
        ch.basic_cancel(tag)
    ch.queue_delete(queue)
    ch.exchange_delete(exchange)
    ch.connection.close()


def confirms():
    with connect() as connection:
        ch = connection.channel()
        ch.queue_declare(name("confirms"), durable=True)
        ch.confirm_delivery()
        for i in range(1000):
            ch.basic_publish("", name("confirms"), str(i).encode(), PERSISTENT)
        equal(ch.queue_declare(name("confirms"), passive=True).method.message_count, 1000)
        ch.queue_delete(name("confirms"))


def returns():
    """The blocking channel needs the return before the ack, or it says that the message was delivered."""
    with connect() as connection:
        ch = connection.channel()
        ch.confirm_delivery()
        queue = ch.queue_declare("", exclusive=True).method.queue
        try:
            ch.basic_publish("", name("nobody"), b"lost", mandatory=True)
        except pika.exceptions.UnroutableError as e:
            equal([(m.method.reply_code, m.method.reply_text, m.body) for m in e.messages], [(312, "NO_ROUTE", b"lost")])
        else:
            raise AssertionError("not returned")
        ch.basic_publish("", queue, b"found", mandatory=True)


def prefetch():
    with connect() as connection:
        ch = connection.channel()
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.confirm_delivery()
        for i in range(10):
            ch.basic_publish("", queue, str(i).encode())
        ch.basic_qos(prefetch_count=5)
        got = []
        ch.basic_consume(queue, lambda _ch, method, _properties, body: got.append((method.delivery_tag, body.decode())))

        def come(count):
            pump(connection, lambda: len(got) >= count)
            ch.queue_declare(queue, passive=True)  # what came beyond it would be here before this answer
            connection.process_data_events(0)
            equal(len(got), count)

        come(5)
        ch.basic_ack(got[0][0])
        come(6)
        ch.basic_ack(got[5][0], multiple=True)
        come(10)
        equal([body for _, body in got], [str(i) for i in range(10)])


def retry():
    with connect() as connection:
        ch = connection.channel()
        ch.queue_declare(name("work"), durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("wait")})
        ch.queue_declare(name("wait"), durable=True, arguments={
            "x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("work"),
        })
        tries = []

        def work(channel, method, properties, _body):
            deaths = (properties.headers or {}).get("x-death", [])
            count = next((d["count"] for d in deaths if d["queue"] == name("work") and d["reason"] == "rejected"), 0)
            tries.append(count)
            if count < 3:
                channel.basic_reject(method.delivery_tag, requeue=False)
            else:
                channel.basic_ack(method.delivery_tag)

        ch.basic_consume(name("work"), work)
        ch.basic_publish("", name("work"), b"job", PERSISTENT)
        pump(connection, lambda: len(tries) >= 4)
        equal(tries, [0, 1, 2, 3])
        ch.queue_delete(name("work"))
        ch.queue_delete(name("wait"))


def rpc():
    with connect() as connection:
        server, client = connection.channel(), connection.channel()
        server.queue_declare(name("rpc"), exclusive=True)

        def answer(channel, _method, properties, body):
            reply = pika.BasicProperties(correlation_id=properties.correlation_id)
            channel.basic_publish("", properties.reply_to, str(2 * int(body)).encode(), reply)

        server.basic_consume(name("rpc"), answer, auto_ack=True)
        answers = {}
        client.basic_consume(
            "amq.rabbitmq.reply-to", lambda _ch, _method, properties, body: answers.update({properties.correlation_id: int(body)}), auto_ack=True
        )
        for i in range(20):
            client.basic_publish("", name("rpc"), str(i).encode(), pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=str(i)))
        pump(connection, lambda: len(answers) == 20)
        equal(answers, {str(i): 2 * i for i in range(20)})


def blocked():
    needs("AMQP_CTL")
    with connect() as connection, connect() as other:
        notices = []
        connection.add_on_connection_blocked_callback(lambda _connection, frame: notices.append(f"blocked: {frame.method.reason}"))
        connection.add_on_connection_unblocked_callback(lambda _connection, _frame: notices.append("unblocked"))
        ch = connection.channel()
        ch.queue_declare(name("blocked"), durable=True)
        ch.basic_publish("", name("blocked"), b"before", PERSISTENT)
        equal(ch.queue_declare(name("blocked"), passive=True).method.message_count, 1)
        control("block")
        ch.basic_publish("", name("blocked"), b"first", PERSISTENT)  # by which a broker may notice
        pump(connection, lambda: notices == ["blocked: low on memory"])
        ch.basic_publish("", name("blocked"), b"held", PERSISTENT)
        got = []
        consumer = other.channel()
        consumer.basic_consume(name("blocked"), lambda _ch, _method, _properties, body: got.append(body), auto_ack=True)
        pump(other, lambda: b"before" in got)
        control("unblock")
        pump(connection, lambda: notices == ["blocked: low on memory", "unblocked"])
        pump(other, lambda: len(got) == 3)
        equal(got, [b"before", b"first", b"held"])
        ch.queue_delete(name("blocked"))


def tls():
    needs("AMQPS_URL")
    folder = os.environ["BROKER_TLS"]

    def secure(certificate):
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        if certificate:
            context.load_cert_chain(f"{folder}/{certificate}.pem", f"{folder}/{certificate}-key.pem")
        parameters = pika.URLParameters(os.environ["AMQPS_URL"])
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
        return pika.BlockingConnection(parameters)

    with secure("client") as connection:
        ch = connection.channel()
        queue = ch.queue_declare("", exclusive=True).method.queue
        got = support.collector(ch, queue)
        ch.basic_publish("", queue, b"safe")
        pump(connection, lambda: got == [(queue, "safe")])
    for certificate in ["other", None]:
        try:
            secure(certificate)
        except (pika.exceptions.AMQPError, OSError):
            continue
        raise AssertionError(f"connected with {certificate}")


def cancel():
    with connect() as connection, connect() as other:
        ch = connection.channel()
        ch.queue_declare(name("gone"))
        cancelled = []
        ch.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        tag = ch.basic_consume(name("gone"), lambda *_: None)
        other.channel().queue_delete(name("gone"))
        pump(connection, lambda: cancelled == [tag])


def bodies():
    with connect() as connection:
        ch = connection.channel()
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.confirm_delivery()
        for size in [0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20]:
            body = os.urandom(size)
            ch.basic_publish("", queue, body)
            _, _, got = ch.basic_get(queue, auto_ack=True)
            equal((len(got), got == body), (size, True))


def headers():
    with connect() as connection:
        ch = connection.channel()
        queue = ch.queue_declare("", exclusive=True).method.queue
        ch.confirm_delivery()
        sent = {
            "true": True, "false": False, "short": -5, "int": 2**31 - 1, "long": -(2**63), "text": "grün 🐇", "empty": "", "null": None,
            "bytes": b"\x00\xff", "decimal": decimal.Decimal("123.45"), "table": {"in": {"deeper": 1}},
            "list": [1, "two", [3], {"four": 4}], "time": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        }
        properties = {
            "content_type": "text/plain", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 9, "correlation_id": "c", "reply_to": "r",
            "expiration": "100000", "message_id": "m", "timestamp": 1700000000, "type": "t", "user_id": pika.URLParameters(support.URL).credentials.username,
            "app_id": "a", "cluster_id": "k",
        }
        ch.basic_publish("", queue, b"x", pika.BasicProperties(headers=sent, **properties))
        _, got, _ = ch.basic_get(queue, auto_ack=True)
        for key, value in sent.items():
            have = got.headers[key]
            if isinstance(have, datetime.datetime):
                have = have.replace(tzinfo=datetime.timezone.utc)
            equal((key, have, isinstance(have, type(value))), (key, value, True))
        equal(len(got.headers), len(sent))
        for key, value in properties.items():
            equal((key, getattr(got, key)), (key, value))


run(recovery, confirms, returns, prefetch, retry, rpc, blocked, tls, cancel, bodies, headers)
