"""The charge of a booking, brought into the records of its meetings: from then on each settles its own part.

A meeting that has its part is left alone, so a step whose outcome is unknown is simply sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from gateway.billing_bridge.outcome import Done, Outcome, Unknown
from gateway.billing_bridge.record import Part, Payment, told
from gateway.errors import Conflict, StoreUnavailable
from gateway.journal import NOW, Event, Journal

# Each try loses to a change of the same meeting; more of them mean a writer in a loop.
ATTEMPTS: Final = 20


def paid(payment: Payment, params: Mapping[str, Any], part: Part) -> Payment:
    """A meeting's payment with its part of the charge; unchanged if it has it. A meeting that was over before its
    booking was paid gets it all the same, and gives it back."""
    if payment.part is not None:
        return payment
    return payment.to(
        "captured", amount_captured=part.of(params["amount"]), payment_intent=params["payment_intent"],
        charge=params["charge"], card=params["card"], part=part, settled=False,
    )  # fmt: skip


class Parts:
    """Shell over the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def send(self, params: Mapping[str, Any]) -> Outcome:
        """`meetings.pay`: each meeting's record on disk, or Unknown."""
        meetings = params["meetings"]
        try:
            # Together, for each waits for the disk.
            await asyncio.gather(
                *(self._pay(session, params, Part(number, len(meetings))) for number, session in enumerate(meetings, 1))
            )
        except StoreUnavailable as error:
            return Unknown(error.code)
        return Done({"object": "parts"})

    async def _pay(self, session: str, params: Mapping[str, Any], part: Part) -> None:
        for _ in range(ATTEMPTS):
            doc = (await self._journal.read(session, "payment"))["payment"]
            assert doc is not None, "a booking is written after all of its meetings"
            before = Payment.from_dict(doc.body)
            after = paid(before, params, part)
            if after is before:
                return
            notice = told("captured", after)
            try:
                await self._journal.commit(
                    session, {"payment": (doc.version, after.to_dict())}, events=[Event(notice.type, notice.data)],
                    due={"money": NOW, "watch": NOW}, durable=True,
                )  # fmt: skip
            except Conflict:
                continue
            return
        raise StoreUnavailable(f"{session} changes faster than it can be paid.")
