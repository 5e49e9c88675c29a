"""Parley Gateway: a sealed relay for paid one-to-one calls, with the meter and the Stripe bridge that belong to it."""

__version__ = "0.1.0"

from gateway.waiting import mend

mend()  # before anything of redis-py or aiosmtplib runs
