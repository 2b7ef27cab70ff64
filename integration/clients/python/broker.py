"""The broker as these programs may handle it."""

import os
import subprocess

from support import PATIENCE, Skip


def needs(variable):
    """Skips a check if the variable is not set."""
    if not os.environ.get(variable):
        raise Skip(f"{variable} is not set")


def control(verb):
    """Does something with the broker: kill, start, block, unblock."""
    subprocess.run([os.environ["AMQP_CTL"], verb], check=True, timeout=4 * PATIENCE, stdout=subprocess.DEVNULL)
