"""What the programs in this folder share.

They run against AMQP_URL, print a line per check and "N passed, N failed" at the end, and exit with 1 if one failed.
Queues and exchanges have names of their own and are removed.
"""

import os
import sys
import time
import traceback
import uuid

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
PATIENCE = 30  # seconds for anything that must happen
RUN = uuid.uuid4().hex[:8]


def connect():
    parameters = pika.URLParameters(URL)
    parameters.socket_timeout = PATIENCE
    parameters.blocked_connection_timeout = PATIENCE
    return pika.BlockingConnection(parameters)


def name(hint):
    return f"clients-py-{RUN}-{hint}"


def pump(connection, done):
    """Serves the connection until done() is true."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("what should have been delivered was not")
        connection.process_data_events(time_limit=min(left, 0.1))


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def collector(channel, queue, auto_ack=True):
    """Consumes into a list of (routing key, body)."""
    got = []

    def callback(_ch, method, _properties, body):
        got.append((method.routing_key, body.decode()))

    channel.basic_consume(queue=queue, on_message_callback=callback, auto_ack=auto_ack)
    return got


class Skip(Exception):
    """What a check raises that cannot be made here."""


def run(*checks):
    """Runs the checks one after the other, reports, and ends the process."""
    passed = failed = 0
    for check in checks:
        try:
            check()
        except Skip as why:
            print(f"skip {check.__name__}: {why}", flush=True)
        except Exception:  # the report names it, the next one runs
            failed += 1
            print(f"FAIL {check.__name__}")
            traceback.print_exc()
        else:
            passed += 1
            print(f"ok   {check.__name__}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)
