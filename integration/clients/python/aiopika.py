"""The scenarios of integration/clients/README.md through aio-pika: robust connections, everything asynchronous."""

import asyncio
import datetime
import functools
import logging
import os
import ssl

import aio_pika
import aiormq.exceptions

import support
from support import PATIENCE, equal, name, run
from broker import control, needs

logging.disable(logging.CRITICAL)  # of reconnects
URL = support.URL
PERSISTENT = aio_pika.DeliveryMode.PERSISTENT


def check(needs_variable=None):
    """Makes a check of a coroutine function; it gets a robust connection."""

    def decorate(coroutine):
        @functools.wraps(coroutine)
        def wrapped():
            if needs_variable:
                needs(needs_variable)

            async def main():
                async with await aio_pika.connect_robust(URL, reconnect_interval=0.1, timeout=PATIENCE) as connection:
                    await asyncio.wait_for(coroutine(connection), 4 * PATIENCE)

            asyncio.run(main())

        return wrapped

    return decorate


async def until(done):
    async with asyncio.timeout(PATIENCE):
        while not done():
            await asyncio.sleep(0.01)


async def passive(ch, queue):
    """Asks the broker, where a robust channel has an answer of its own."""
    return await (await ch.get_underlay_channel()).queue_declare(queue, passive=True)


def text(body, **properties):
    return aio_pika.Message(body.encode(), **properties)


async def controlled(verb):
    await asyncio.to_thread(control, verb)


@check("AMQP_CTL")
async def recovery(connection):
    ch = await connection.channel()
    await ch.set_qos(10)
    exchange = await ch.declare_exchange(name("recovery-x"), aio_pika.ExchangeType.TOPIC, durable=True)
    queue = await ch.declare_queue(name("recovery"), durable=True)
    await queue.bind(exchange, "a.#")
    await ch.declare_queue(name("recovery-mine"), exclusive=True)  # of a dead connection it is free at once
    got = set()

    async def work(message):
        got.add(message.body.decode())
        try:
            await message.ack()
        except (aiormq.exceptions.AMQPError, ConnectionError, aio_pika.exceptions.ChannelInvalidStateError):
            pass  # it comes again

    await queue.consume(work)
    number = 0
    for round_ in range(3):
        sent = set()
        for i in range(100):
            if i == 50 and round_ < 2:
                await controlled("kill")
                await controlled("start")
            number += 1
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        await exchange.publish(text(str(number), delivery_mode=PERSISTENT), "a.b", timeout=5)
                        break
                    except (aiormq.exceptions.AMQPError, ConnectionError, asyncio.TimeoutError, aio_pika.exceptions.ChannelInvalidStateError):
                        await asyncio.sleep(0.05)
            sent.add(str(number))
        await until(lambda: sent <= got)
    await queue.delete(if_unused=False, if_empty=False)
    await exchange.delete()


@check()
async def confirms(connection):
    ch = await connection.channel()
    queue = await ch.declare_queue(name("confirms"), durable=True)
    await asyncio.gather(*(ch.default_exchange.publish(text(str(i), delivery_mode=PERSISTENT), queue.name) for i in range(1000)))
    equal((await passive(ch, queue.name)).message_count, 1000)
    await queue.delete(if_empty=False)


@check()
async def returns(connection):
    ch = await connection.channel(on_return_raises=True)
    queue = await ch.declare_queue(exclusive=True)
    try:
        await ch.default_exchange.publish(text("lost"), name("nobody"), mandatory=True)
    except aio_pika.exceptions.DeliveryError as e:
        equal((e.message.delivery.reply_code, e.message.delivery.reply_text, e.message.body), (312, "NO_ROUTE", b"lost"))
    else:
        raise AssertionError("not returned")
    await ch.default_exchange.publish(text("found"), queue.name, mandatory=True)


@check()
async def prefetch(connection):
    ch = await connection.channel()
    await ch.set_qos(5)
    queue = await ch.declare_queue(exclusive=True)
    for i in range(10):
        await ch.default_exchange.publish(text(str(i)), queue.name)
    got = []
    await queue.consume(lambda message: asyncio.sleep(0, got.append(message)))

    async def come(count):
        await until(lambda: len(got) >= count)
        await passive(ch, queue.name)  # what came beyond it would be here before this answer
        equal(len(got), count)

    await come(5)
    await got[0].ack()
    await come(6)
    await got[5].ack(multiple=True)
    await come(10)
    equal([m.body for m in got], [str(i).encode() for i in range(10)])


@check()
async def retry(connection):
    ch = await connection.channel()
    work = await ch.declare_queue(name("work"), durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("wait")})
    wait = await ch.declare_queue(name("wait"), durable=True, arguments={
        "x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("work"),
    })
    tries = []

    async def handle(message):
        count = next((d["count"] for d in message.headers.get("x-death", []) if d["queue"] == work.name and d["reason"] == "rejected"), 0)
        if count < 3:
            await message.reject()
        else:
            await message.ack()
        tries.append(count)

    await work.consume(handle)
    await ch.default_exchange.publish(text("job", delivery_mode=PERSISTENT), work.name)
    await until(lambda: len(tries) >= 4)
    equal(tries, [0, 1, 2, 3])
    await work.delete(if_unused=False)
    await wait.delete()


@check()
async def rpc(connection):
    """Over direct reply-to, and by aio-pika's own pattern with a queue for the answers."""
    server, client = await connection.channel(), await connection.channel()
    queue = await server.declare_queue(name("rpc"), exclusive=True)

    async def answer(message):
        reply = text(str(2 * int(message.body)), correlation_id=message.correlation_id)
        await server.default_exchange.publish(reply, message.reply_to)

    await queue.consume(answer, no_ack=True)
    answers = {}
    replies = await client.get_queue("amq.rabbitmq.reply-to", ensure=False)
    await replies.consume(lambda m: asyncio.sleep(0, answers.update({m.correlation_id: int(m.body)})), no_ack=True)
    for i in range(20):
        await client.default_exchange.publish(text(str(i), correlation_id=str(i), reply_to="amq.rabbitmq.reply-to"), queue.name)
    await until(lambda: len(answers) == 20)
    equal(answers, {str(i): 2 * i for i in range(20)})

    pattern = await aio_pika.patterns.RPC.create(await connection.channel())

    async def double(x):
        return 2 * x

    await pattern.register(name("double"), double, auto_delete=True)
    equal(await asyncio.gather(*(pattern.call(name("double"), {"x": i}) for i in range(20))), [2 * i for i in range(20)])
    await pattern.close()


@check("AMQP_CTL")
async def blocked(connection):
    """aio-pika has no notices; a publish waits, and everything else goes on."""
    ch = await connection.channel()
    queue = await ch.declare_queue(name("blocked"), durable=True)
    await ch.default_exchange.publish(text("before", delivery_mode=PERSISTENT), queue.name)
    await controlled("block")
    first = asyncio.create_task(ch.default_exchange.publish(text("first", delivery_mode=PERSISTENT), queue.name))
    async with await aio_pika.connect(URL) as other:
        consumer = await other.channel()
        got = []
        same = await consumer.get_queue(queue.name, ensure=False)
        await same.consume(lambda m: asyncio.sleep(0, got.append(m.body)), no_ack=True)
        await until(lambda: b"before" in got)
        held = asyncio.create_task(ch.default_exchange.publish(text("held", delivery_mode=PERSISTENT), queue.name))
        await consumer.get_queue(queue.name)
        equal(held.done(), False)
        await controlled("unblock")
        await asyncio.wait_for(asyncio.gather(first, held), PATIENCE)
        await until(lambda: len(got) == 3)
        equal(got, [b"before", b"first", b"held"])
        await queue.delete(if_unused=False)


@check("AMQPS_URL")
async def tls(_connection):
    folder = os.environ["BROKER_TLS"]

    async def secure(certificate):
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        if certificate:
            context.load_cert_chain(f"{folder}/{certificate}.pem", f"{folder}/{certificate}-key.pem")
        return await aio_pika.connect(os.environ["AMQPS_URL"], ssl_context=context, timeout=PATIENCE)

    async with await secure("client") as connection:
        ch = await connection.channel()
        queue = await ch.declare_queue(exclusive=True)
        await ch.default_exchange.publish(text("safe"), queue.name)
        equal((await queue.get(no_ack=True)).body, b"safe")
    for certificate in ["other", None]:
        try:
            await secure(certificate)
        except (aiormq.exceptions.AMQPError, OSError):
            continue
        raise AssertionError(f"connected with {certificate}")


@check()
async def cancel(connection):
    """The channel forgets the consumer; the robust ones would consume again if they could."""
    async with await aio_pika.connect(URL) as plain:
        ch = await plain.channel()
        queue = await ch.declare_queue(name("gone"))
        tag = await queue.consume(lambda _message: asyncio.sleep(0))
        consumers = (await ch.get_underlay_channel()).consumers
        equal(tag in consumers, True)
        await (await connection.channel()).queue_delete(name("gone"))
        await until(lambda: tag not in consumers)
        await ch.declare_queue(exclusive=True)  # the channel lives on


@check()
async def bodies(connection):
    ch = await connection.channel()
    queue = await ch.declare_queue(exclusive=True)
    for size in [0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20]:
        body = os.urandom(size)
        await ch.default_exchange.publish(aio_pika.Message(body), queue.name)
        got = (await queue.get(no_ack=True)).body
        equal((len(got), got == body), (size, True))


@check()
async def headers(connection):
    ch = await connection.channel()
    queue = await ch.declare_queue(exclusive=True)
    sent = {
        "true": True, "false": False, "octet": -5, "int": 2**31 - 1, "long": -(2**63), "text": "grün 🐇", "empty": "", "null": None, "double": 1.25,
        "bytes": bytearray(b"\x00\xff"), "table": {"in": {"deeper": 1}}, "list": [1, "two", [3], {"four": 4}],
        "time": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
    }
    properties = {
        "content_type": "text/plain", "content_encoding": "utf-8", "delivery_mode": PERSISTENT, "priority": 9, "correlation_id": "c", "reply_to": "r",
        "message_id": "m", "type": "t", "user_id": connection.url.user, "app_id": "a",
    }
    await ch.default_exchange.publish(aio_pika.Message(b"x", headers=sent, expiration=100, **properties), queue.name)
    got = await queue.get(no_ack=True)
    for key, value in sent.items():
        equal((key, got.headers[key]), (key, value))
    equal(len(got.headers), len(sent))
    for key, value in properties.items():
        equal((key, getattr(got, key)), (key, value))
    equal(float(got.expiration), 100.0)


run(recovery, confirms, returns, prefetch, retry, rpc, blocked, tls, cancel, bodies, headers)
