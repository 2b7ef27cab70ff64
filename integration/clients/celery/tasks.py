"""The tasks that extensions.py gives to a Celery worker. CLIENTS_RUN names the queues, so that runs do not meet."""

import os
import time

from celery import Celery
from kombu import Queue

RUN = os.environ["CLIENTS_RUN"]

app = Celery("clients", broker=os.environ["AMQP_URL"], backend="rpc://")
app.conf.update(
    task_queues=[Queue(f"{RUN}-tasks"), Queue(f"{RUN}-urgent", max_priority=5)],
    task_default_queue=f"{RUN}-tasks",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=2,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    result_expires=60,
)


@app.task
def add(x, y):
    return x + y


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    """Fails that many times, then returns how often it was tried again."""
    if self.request.retries < failures:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(bind=True)
def hold(self, folder):
    """Notes that it began, waits until the file "go" is there, and returns whether it was delivered before."""
    with open(os.path.join(folder, "began"), "a", encoding="utf-8") as log:
        log.write(f"{os.getppid()}\n")
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return bool(self.request.delivery_info["redelivered"])


@app.task
def when():
    return time.time()


@app.task
def note(path, text):
    with open(path, "a", encoding="utf-8") as log:
        log.write(text + "\n")
