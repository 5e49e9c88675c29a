"""Commands as a shell calls them."""

from __future__ import annotations

from redis.asyncio import Redis

from gateway.cli import main
from gateway.journal import Journal
from gateway.session import NewClient, NewExpert, NewSession, opened

SIGNING_KEY = "0123456789abcdef0123456789abcdef"
GOOD = f"""
[media]
advertise = ["192.0.2.1"]
[stripe]
api_key = "sk_test_file"
webhook_secret = "whsec_file00000000000000000000"
[secrets]
signing_key = "{SIGNING_KEY}"
"""


def ended(arguments: list[str]) -> int:
    """The exit code, also where argparse ends the process itself."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def session() -> NewSession:
    return NewSession(NewClient("c1"), NewExpert("e1"), unit_amount=300, currency="usd", kind="pro_bono")


async def keep(url: str) -> None:
    """A session `ses_1` in that Redis."""
    async with Redis.from_url(url) as redis:
        step = opened(
            session(), id="ses_1", account="acc_1", livemode=False, now=0, cap_ms=60_000, expires_ms=4 * 10**12
        )
        await Journal(redis).commit("ses_1", {"session": (0, step.record.to_dict())})
