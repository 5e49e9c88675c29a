"""What the marketplace's backend and the cardholder want of a session: the real use cases, without their waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway import session as core
from gateway.billing_bridge import payment as payments
from gateway.bookings.bookings import Bookings
from gateway.errors import InvalidRequest, StoreUnavailable
from gateway.payees.routes import MAIN
from gateway.session import SessionRecord
from gateway.sessions import refunds
from gateway.sessions import sessions as use_cases
from gateway.sessions.orders import people_of
from gateway.sessions.sessions import Sessions
from tests.simulation.node import BOOKING, SESSION
from tests.simulation.world import START, World, sleep

if TYPE_CHECKING:
    from tests.simulation.gateway import Processes

ACCOUNT = "acc_sim"
DAY_MS = 86_400_000


class PromptChanges:
    """Answers at once, where the real ones wait up to ten seconds for the card's first word."""

    async def until(self, _session: str, look: Any, _said: Any, _wait_s: float) -> Any:
        return await look()


class PayeesModel:
    """Whether the expert can be paid, as the marketplace and Stripe know it: until a certain instant."""

    def __init__(self, world: World, unable_at: int) -> None:
        self._world, self._unable_at = world, START + unable_at

    async def platform(self, *_: Any, **__: Any) -> str:
        if self._world.now >= self._unable_at:
            raise InvalidRequest("The expert cannot be paid.", code="expert_not_payable", reason="account_restricted")
        return MAIN


class NoDirectory:
    """No listings and no references: nobody looks for a session here."""

    async def enter(self, *_: Any) -> None: ...

    claim_reference = enter


class PromptBookings(Bookings):
    def _ways(self, record: SessionRecord) -> Any:
        return {}


class Orders:
    """Each is one request to the API; whoever asks repeats it until it was answered."""

    def __init__(self, processes: Processes, sessions: Sessions) -> None:
        self._processes, self._sessions = processes, sessions
        self._world, self._script = processes.world, processes.script
        sessions.directory = NoDirectory()  # type: ignore[assignment]
        self._bookings = PromptBookings(sessions, open_payment=payments.opened)

    async def create(self) -> None:
        """`Sessions.create` without references and listings, of which there are none in a world of one session."""
        if self._script.booking is not None:
            await self._bookings.create(self._script.booking, account=ACCOUNT, livemode=False, booking_id=BOOKING)
            return
        now, sessions = self._world.redis_ms(), self._sessions
        step = core.opened(
            self._script.terms, id=SESSION, account=ACCOUNT, livemode=False, now=now, cap_ms=self._script.cap_ms,
            expires_ms=DAY_MS,
        )  # fmt: skip
        if (await sessions.journal.read(SESSION, "session"))["session"] is not None:
            return
        try:
            await sessions._open(step, people_of(self._script.terms), now)
        except use_cases._AlreadyThere:
            return

    async def cancel(self, meeting: int | None, by: Any) -> None:
        """Meetings are called off, if they can be."""
        await self._bookings.cancel(ACCOUNT, False, BOOKING, meeting, by, request=f"{by}_{meeting}")

    async def other_card(self) -> None:
        if self._script.booking is not None:
            await self._bookings.pay(ACCOUNT, False, BOOKING, "pm_2")
            return
        for _ in range(100 if self._script.other_card_once_lost else 0):
            if (await self._sessions.get(ACCOUNT, SESSION)).payment["status"] != "held":
                break
            await sleep(20)
        await self._sessions.pay(ACCOUNT, SESSION, "pm_2")

    async def waive_due(self) -> None:
        """The expert lets off a bill that is due, once it is."""
        payment = (await self._sessions.get(ACCOUNT, SESSION)).payment
        if payment["status"] != "due" and not payment["settled"] and self._world.now < START + DAY_MS:
            raise StoreUnavailable("Nothing is due yet; the expert looks again later.")
        if payment["status"] == "due":
            await self.waive()

    async def pay_due(self, method: str) -> None:
        """The client pays a bill that is due, once it is."""
        payment = (await self._sessions.get(ACCOUNT, SESSION)).payment
        if payment["status"] != "due":
            if payment["settled"] or self._world.now > START + DAY_MS:
                return
            raise StoreUnavailable("Nothing is due yet; the client looks again later.")
        await self._sessions.pay(ACCOUNT, SESSION, method)

    async def waive(self) -> None:
        await self._sessions.waive(ACCOUNT, SESSION)

    async def refund(self, number: int, percent: int | None, bearer: Any) -> None:
        """A part of what was captured, or all that is left of it."""
        payment = (await self._sessions.get(ACCOUNT, SESSION)).payment
        if payment["status"] in ("held", "capturing", "disputed") and self._world.now < START + DAY_MS:
            raise StoreUnavailable("The marketplace asks again once the money is there.")
        amount = None if percent is None else max(1, payment["amount_captured"] * percent // 100)
        new = refunds.NewRefund(f"ref_{number}", amount, "requested_by_customer", bearer)
        await self._sessions.refund(ACCOUNT, SESSION, new)

    async def end(self) -> None:
        await self._sessions.end(ACCOUNT, SESSION, "canceled" if self._script.story == "canceled" else None)
