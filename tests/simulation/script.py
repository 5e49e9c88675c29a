"""What a session is about: its terms, its cards and what its people do, drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from gateway.bookings.booking import NewBooking
from gateway.session import Ambassador, NewClient, NewExpert, NewSession
from tests.simulation.world import START

# How likely each story is; most are calls that somebody pays for.
STORIES = {
    "call": 480, "limit": 130, "declined_then_paid": 30, "declined": 10, "3ds": 35, "3ds_abandoned": 10,
    "3ds_failed_then_paid": 12, "tried_again": 56, "two_cards": 24, "at_join": 34, "at_join_never": 10,
    "at_join_other_card": 14, "free": 12, "waived": 20, "waived_early": 20, "no_show": 12, "canceled": 20,
    "too_short": 12, "hold_lost": 40, "hold_lost_late": 14, "due_then_paid": 50, "meddled": 22, "too_small": 10,
    "disputed": 55, "booked": 100, "made_free": 16,
}  # fmt: skip
_NAMES, _WEIGHTS = tuple(STORIES), tuple(STORIES.values())
RATES = {"usd": 1000, "gbp": 1270, "eur": 1080, "cad": 730, "chf": 1120}
MINUTE = 60_000


@dataclass(slots=True)
class Script:
    """Times are ms from the session's creation, or from when both talk (`talk_ms`, drops)."""

    story: str
    terms: NewSession
    cards: dict[str, str]
    other_card_at: int | None = None
    other_card_once_lost: bool = False
    waive_at: int | None = None
    end_at: int | None = None
    client_at: int | None = 1_000
    expert_at: int | None = 1_500
    talk_ms: int | None = None
    hangs_up: str = "client"
    vanishes: bool = False
    cap_ms: int = 90 * MINUTE
    tick_ms: int = 2_000
    calm_tick_ms: int = 2_000  # of a call that nothing befalls
    lose_hold_at: int | None = None
    meddle: str | None = None
    hold_ms: int = 7 * 86_400_000
    balance_late_ms: int = 0
    restricted: bool = False
    short_of_balance: int = 0
    receiver_down_ms: int = 0
    refunds: list[tuple[int, int | None, str]] = field(default_factory=list)  # when, how many percent, who bears it
    empty: bool = False
    pays_due: list[tuple[int, str]] = field(default_factory=list)  # when, with which card
    waives_due_at: int | None = None
    locked: tuple[int, int] | None = None  # when Stripe takes our key no more, and for how long
    disputes: list[tuple[int, str, int]] = field(default_factory=list)  # when, its status then, how many percent
    refund_returns_at: int | None = None
    refund_by_hand: tuple[int, int] | None = None  # when somebody makes one in Stripe's dashboard, how many percent
    booking: NewBooking | None = None
    cancels: list[tuple[int, int | None, str]] = field(default_factory=list)  # when, which meeting, by whom
    unable_at: int | None = None  # from when nobody may be charged for the expert
    able_at: int | None = None  # when a restricted account may receive again
    debt: int = 0  # what the expert owes from before
    minimum: int = 50
    skews: tuple[int, int, int] = (0, 0, 0)
    drops: list[tuple[str, int, int]] = field(default_factory=list)
    long: bool = False
    lingers: bool = False  # the session stays hosted after its end, for a page that comes back


def draw(rng: Random) -> Script:
    story = rng.choices(_NAMES, _WEIGHTS)[0]
    long = story in ("call", "limit") and rng.random() < 0.012
    script = Script(story, _terms(rng, story, long), {"pm_1": "ok", "pm_2": "ok"}, long=long)
    limit = min(script.terms.max_minutes * MINUTE, script.cap_ms)
    if story == "limit" and not long and rng.random() < 0.4:
        script.cap_ms = limit = rng.choice((35_000, 45_000, 50_000))
    if story != "limit":
        script.talk_ms = rng.randrange(25_000, 58_000) if limit == MINUTE else rng.randrange(limit // 2 + 10_000, limit)
    if long:
        script.talk_ms = None
    talk = script.talk_ms or limit
    script.tick_ms = 20_000 if long else min(15_000, max(500, talk // rng.choice((4, 6, 10))))
    script.calm_tick_ms = 20_000 if long else min(15_000, max(500, talk // 2))
    script.lingers = rng.random() < 0.1
    script.hangs_up = rng.choice(("client", "expert"))
    _people(rng, script)
    _money(rng, script)
    if story == "booked":
        _book(rng, script)
    return script


def _terms(rng: Random, story: str, long: bool) -> NewSession:
    free = story != "booked" and rng.random() < 0.2
    minutes = 90 if long else 2 if free else rng.choice((1, 1, 1, 1, 2))
    ambassador = Ambassador("acct_amb", rng.choice((1, 2_000, 5_000, 10_000))) if rng.random() < 0.3 else None
    return NewSession(
        client=NewClient("c1", "Client", "client@example.com", stripe_customer="cus_1", payment_method="pm_1"),
        expert=NewExpert("e1", "Expert", "expert@example.com", country="US",
                         stripe_account="acct_exp" if rng.random() < 0.97 else None),
        unit_amount=0 if story == "free" and rng.random() < 0.5 else rng.choice((240, 300, 301, 475, 777, 999, 1500)),
        currency=rng.choice(("usd", "usd", "usd", "usd", "gbp", "eur", "cad", "chf")),
        kind={"free": "free", "booked": "booked"}.get(story, "metered"),  # type: ignore[arg-type]
        hold="join" if story.startswith("at_join") or (story == "made_free" and rng.random() < 0.4) else "now",
        if_not_eligible="free" if story == "made_free" and rng.random() < 0.8 else "refuse",
        ambassador=ambassador, free_minutes=1 if free else 0, max_minutes=minutes,
        commission_bps=rng.choice((1000, 1000, 1000, 0, 333, 1550, 10_000)),
        expires_in_ms=600_000,
    )  # fmt: skip


def _book(rng: Random, script: Script) -> None:
    """A booking in the place of the session: its first meeting is held (or not), the others are not."""
    t, count = script.terms, rng.choice((1, 2, 2, 3))
    soon, later = START + 30_000, START + rng.choice((20, 40)) * 3_600_000
    script.booking = NewBooking(
        client=t.client, expert=t.expert, unit_amount=t.unit_amount, currency=t.currency, minutes=t.max_minutes,
        starts_at=(rng.choice((None, soon)), later, None)[:count], expires_at=START + 3 * 86_400_000,
        ambassador=t.ambassador, commission_bps=t.commission_bps,
    )  # fmt: skip
    for number in range(1, count + 1):
        if rng.random() < (0.15 if number == 1 else 0.5):
            script.cancels.append((rng.randrange(5_000, 90_000), number, rng.choice(("client", "expert", "platform"))))
    if rng.random() < 0.1:
        script.cancels.append((rng.randrange(0, 40_000), None, "client"))
    if rng.random() < 0.1:
        script.client_at, script.expert_at = rng.choice(((None, 1_000), (1_000, None), (None, None)))
    script.restricted, script.able_at, script.debt, script.empty = False, None, 0, False
    script.cards["pm_1"] = rng.choice(("ok",) * 12 + ("3ds_ok", "3ds_ok", "declined", "declined>ok", "3ds_abandoned"))
    if script.cards["pm_1"] == "declined":
        script.other_card_at = rng.randrange(2_000, 20_000)


def _people(rng: Random, script: Script) -> None:
    story = script.story
    script.client_at, script.expert_at = rng.randrange(300, 4_000), rng.randrange(300, 4_000)
    if story == "no_show":
        script.client_at, script.expert_at = rng.choice(((None, 1_000), (1_000, None), (None, None)))
    if story == "canceled":
        script.end_at = rng.randrange(100, 6_000)
    if story == "at_join_never":
        script.client_at = None
    if story == "too_short":
        script.talk_ms = rng.randrange(200, 9_000)
        script.tick_ms = 1_000
    if story == "waived":
        script.waive_at = rng.randrange(5_000, 60_000)
    if story == "waived_early":
        script.waive_at = rng.randrange(0, 3_000)
    if rng.random() < 0.05 and script.talk_ms:
        script.end_at = rng.randrange(10_000, 60_000)
    script.vanishes = rng.random() < 0.05
    if rng.random() < 0.1:
        script.drops.append(
            (rng.choice(("client", "expert")), rng.randrange(2_000, 40_000), rng.randrange(500, 25_000))
        )


def _money(rng: Random, script: Script) -> None:
    story, cards = script.story, script.cards
    if story in ("declined_then_paid", "declined"):
        cards["pm_1"] = rng.choice(("declined", "declined", "refused"))
    if story in ("canceled", "waived_early") and rng.random() < 0.3:
        cards["pm_1"] = "processing"
    if story.startswith("3ds"):
        cards["pm_1"] = {"3ds": "3ds_ok", "3ds_abandoned": "3ds_abandoned"}.get(story, "3ds_failed")
    if story in ("declined_then_paid", "3ds_failed_then_paid"):
        script.other_card_at = rng.randrange(4_000, 60_000)
        cards["pm_2"] = rng.choice(("ok", "ok", "3ds_ok"))
    if story == "tried_again":
        first, second = rng.choice(("declined", "3ds_failed")), rng.choice(("ok", "ok", "3ds_ok", "3ds_abandoned"))
        cards["pm_1"] = f"{first}>{second}"
    if story == "two_cards":
        cards["pm_1"] = rng.choice(("ok", "3ds_abandoned", "3ds_abandoned", "3ds_ok"))
        script.other_card_at = rng.randrange(0, 6_000)
    if story == "at_join_other_card" and script.client_at is not None:
        script.other_card_at = max(0, script.client_at + rng.randrange(-100, 500))
    if story == "made_free":
        cards["pm_1"] = rng.choice(("ok", "declined", "3ds_abandoned", "3ds_failed", "processing"))
        script.unable_at = rng.choice((0, rng.randrange(5_000)))
        script.other_card_at = rng.randrange(300, 20_000)
    _losses(rng, script)
    if rng.random() < 0.2:
        script.balance_late_ms = rng.choice((800, 20_000, 3_600_000))
    _afterwards(rng, script)
    script.restricted = rng.random() < 0.04
    if script.restricted and rng.random() < 0.5:
        script.able_at = rng.randrange(60_000, 600_000)
    if rng.random() < 0.006:  # for longer than it keeps the keys of what was sent before
        script.locked = (rng.randrange(25_000, 200_000), rng.randrange(25, 31) * 3_600_000)
    script.short_of_balance = rng.choice((0,) * 60 + (1,))
    script.debt = rng.choice((0,) * 30 + (7, 100_000))
    script.minimum = rng.randrange(100, 1_000) if story == "too_small" else 50
    script.receiver_down_ms = rng.choice((0,) * 30 + (60_000, 86_400_000, 4 * 86_400_000))
    script.skews = (rng.randrange(-4, 5), rng.randrange(-4, 5), rng.randrange(-4, 5))


def _losses(rng: Random, script: Script) -> None:
    """Holds that go, or are taken, behind our back; and what their clients pay later."""
    story = script.story
    if story in ("hold_lost", "due_then_paid"):
        if rng.random() < 0.5:
            script.lose_hold_at = rng.randrange(1_000, 70_000)
            if rng.random() < 0.6:
                script.other_card_once_lost = True
                script.other_card_at = script.lose_hold_at
        else:
            script.hold_ms = rng.randrange(5_000, 70_000)
    if story == "hold_lost" and rng.random() < 0.3:  # before the call, and another card is not held yet as it begins
        script.lose_hold_at = script.other_card_at = rng.randrange(1_500, 3_000)
        script.client_at, script.expert_at = rng.randrange(300, 2_000), rng.randrange(4_000, 8_000)
        script.other_card_once_lost = True
        script.cards["pm_2"] = rng.choice(("ok", "3ds_ok", "3ds_abandoned", "declined", "processing"))
    if story == "hold_lost_late":
        script.meddle = "cancel_at_the_end"
    if story == "meddled":
        script.lose_hold_at = rng.choice((rng.randrange(50, 500), rng.randrange(500, 70_000)))
        script.meddle = rng.choice(("capture", "capture", "cancel"))
    if story == "due_then_paid":
        tries = ("ok", "ok", "3ds_ok", "declined", "3ds_abandoned", "declined>ok", "declined>ok")
        script.cards["pm_2"] = rng.choice(tries)
        script.pays_due = [(rng.choice((100_000, 400_000)), "pm_2")]
        if rng.random() < 0.4:
            script.cards["pm_3"] = rng.choice(("ok", "3ds_ok"))
            script.pays_due.append((rng.choice((402_000, 4_200_000)), "pm_3"))
        if rng.random() < 0.3:
            script.waives_due_at = rng.choice((90_000, 100_000, 401_000))
            script.pays_due = script.pays_due[: rng.randrange(2)]


def _afterwards(rng: Random, script: Script) -> None:
    """Refunds, some of which the bank returns or somebody makes at Stripe itself, and disputes."""
    disputed = script.story == "disputed"
    if (script.story in ("call", "limit") and rng.random() < 0.1) or (disputed and rng.random() < 0.6):
        parts = rng.choice(((None,), (None,), (40,), (30, 20), (50, None)))
        bearer = rng.choice(("shares", "shares", "platform"))
        script.refunds = [(150_000 + n * rng.choice((10, 90_000)), part, bearer) for n, part in enumerate(parts)]
        script.empty = rng.random() < 0.2
        if rng.random() < 0.25:
            script.refund_returns_at = rng.choice((300_000, 86_400_000))
    if (script.story in ("call", "limit") and rng.random() < 0.05) or (disputed and rng.random() < 0.3):
        at = rng.choice((rng.randrange(30_000, 150_000), 150_005, 400_000, 86_400_000))
        script.refund_by_hand = (at, rng.choice((100, 100, 40, 1)))
    if disputed:
        at = rng.choice((rng.randrange(20_000, 150_000), 151_000, 500_000, 30 * 86_400_000))
        percent = rng.choice((100, 100, 50, 20))
        script.disputes = [(at, "needs_response", percent)]
        if rng.random() < 0.9:
            script.disputes.append((at + rng.choice((50, 60_000, 86_400_000)), rng.choice(("won", "lost")), percent))


def aimed(rng: Random, story: str) -> list[tuple[str, int]]:
    """Faults without which a story rarely shows what it is there for: kind, and which call to Stripe they befall. The
    first call looks at the card, the second makes the hold, the third finds that it was lost."""
    if story in ("meddled", "canceled", "waived_early") and rng.random() < 0.5:
        return [(rng.choice(("stripe_timeout_after_commit", "stripe_500_after_commit", "stripe_timeout")), 2)]
    if story in ("canceled", "waived_early") and rng.random() < 0.6:
        return [(rng.choice(("stripe_429", "stripe_unreachable")), call) for call in (2, 3, 4)]
    if story in ("hold_lost", "due_then_paid") and rng.random() < 0.6:
        return [(rng.choice(("stripe_429", "stripe_unreachable")), call) for call in range(4, 10)]
    return []
