"""One session from a seed, and many of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

from gateway.sessions.records import UNFUNDED
from tests.simulation import faults as plan
from tests.simulation import script as scripts
from tests.simulation.gateway import Processes
from tests.simulation.laws import LOSSY, broken
from tests.simulation.node import Node
from tests.simulation.people import Page
from tests.simulation.quiet import REREAD_MS, Null, simulated
from tests.simulation.tally import Tally
from tests.simulation.world import START, Livelock, World

# How many faults a session gets: one in five none, as most bugs need one and some need three.
_NUMBERS = (0,) * 4 + (1,) * 3 + (2,) * 4 + (3,) * 4 + (4,) * 3 + (5, 6)


class Simulation:
    """One session. `run` gives the laws it broke."""

    def __init__(self, seed: str, *, trace: bool = False) -> None:
        self.seed = seed
        rng = Random(seed)
        self.script = scripts.draw(rng)
        self.faults = plan.Faults()
        self.faults.draw(rng, rng.choice(_NUMBERS))
        for kind, call in scripts.aimed(rng, self.script.story):
            self.faults.armed["bridge", "stripe", call] = kind
        if not self.faults.befalls_the_call:
            self.script.tick_ms = self.script.calm_tick_ms
        self.world = World(rng, self.faults)
        if trace:
            self.world.trace = []
        self.processes = Processes(self.world, self.script, through_json=rng.random() < 0.01)
        self.faults.money_open = self.money_open
        self._talked = False

    def money_open(self) -> bool:
        """Whether a money step is open: something was ordered, and it is not settled (5-money)."""
        docs = [rules.docs.get("payment") for rules in self.processes.streams.all.values()]
        ordered = [doc.body for doc in docs if doc is not None and (doc.body["attempt"] > 0 or doc.body["part"])]
        return any(not payment["settled"] for payment in ordered)

    def run(self) -> list[str]:
        p, world = self.processes, self.world
        Null.exceptions.clear()
        self._schedule()
        try:
            world.run()
        except Livelock:
            return ["law 5: the session never comes to rest"]
        except AssertionError as error:
            return [f"assertion: {error}"]
        return [*broken(p), *(f"bug: {text}" for text in Null.exceptions)]

    # --- what the script wants

    def _schedule(self) -> None:
        p, s, world = self.processes, self.script, self.world
        p.truth.opened = self._together
        world.at(START, p.market.order, p.orders.create)
        for page, at in zip(p.pages, (s.client_at, s.expert_at), strict=True):
            if at is not None:
                world.at(START + at, page.join)
        patience = 60_000 + world.rng.randrange(100_000)
        world.at(START + patience, self._give_up)
        o = p.orders
        asked = ((s.other_card_at, o.other_card), (s.waive_at, o.waive), (s.end_at, o.end),
                 (s.waives_due_at, o.waive_due))  # fmt: skip
        for at, action in asked:
            if at is not None:
                world.at(START + 50 + at, p.market.order, action)
        for number, (at, percent, bearer) in enumerate(s.refunds):
            world.at(START + at, p.market.order, partial(p.orders.refund, number, percent, bearer))
        for at, meeting, by in s.cancels:
            world.at(START + at, p.market.order, partial(o.cancel, meeting, by))
        for at, method in s.pays_due:
            world.at(START + at, p.market.order, partial(p.orders.pay_due, method))
        self._schedule_bank()
        length = self._length() + 15_000
        for kind in self.faults.timed:
            if kind == "store_power_loss":
                p.streams.watch()
            world.at(START + world.rng.randrange(length), self._strike, kind)

    def _schedule_bank(self) -> None:
        """What cardholder, bank and dashboard do by themselves."""
        stripe, s, world = self.processes.stripe, self.script, self.world
        if s.lose_hold_at is not None:
            world.at(START + s.lose_hold_at, stripe.meddle, s.meddle or "cancel")
        for at, status, percent in s.disputes:
            world.at(START + at, stripe.dispute, status, percent)
        if s.refund_returns_at is not None:
            world.at(START + s.refund_returns_at, stripe.return_refund)
        if s.refund_by_hand is not None:
            at, percent = s.refund_by_hand
            world.at(START + at, stripe.refund_by_hand, percent)
        if s.able_at is not None:
            world.at(START + s.able_at, stripe.enable, "acct_exp")

    def _together(self) -> None:
        record = self.processes.record
        if not self._held():
            if record is None or record.status == "created":
                self.world.bugs.append("law 2: forwarded before the money was held")
            patience = REREAD_MS + 2 * self.script.tick_ms + 1_000
            self.world.at(self.world.now + patience, self._still_together, len(self.processes.truth.stretches))
        if self._talked:
            return
        self._talked = True
        p, s, world = self.processes, self.script, self.world
        if s.talk_ms is not None:
            page = p.pages[0 if s.hangs_up == "client" else 1]
            world.at(world.now + s.talk_ms, page.hang_up)
        if s.meddle == "cancel_at_the_end":
            world.at(world.now + self._length() + world.rng.randrange(-200, 1_500), p.stripe.meddle, "cancel")
        for role, at, ms in s.drops:
            world.at(world.now + at, p.pages[0 if role == "client" else 1].drop, ms)

    def _held(self) -> bool:
        intents = self.processes.stripe.intents.values()
        return any(intent["status"] in ("requires_capture", "succeeded") for intent in intents)

    def _still_together(self, before: int) -> None:
        """A hold may go in the moment in which a call begins; no longer after than its owner needs to hear of it."""
        p = self.processes
        calm = LOSSY.isdisjoint(self.faults.happened_total) and len(p.truth.stretches) == before
        priced = p.record is not None and p.record.priced
        forwards = priced and any(gate.span_at is not None for node in p.nodes for gate in node.relay.gates.values())
        if calm and forwards and not self._held() and p.rules.docs["payment"].body["status"] in UNFUNDED:
            self.world.bugs.append("law 2: forwarded with nothing held")

    def _give_up(self, late: bool = False) -> None:
        """Nobody waits for ever for the other one, who may have left after what Redis never heard of."""
        if self._talked and not late:
            self.world.at(self.world.now + self._length() + 60_000, self._give_up, True)
            return
        for page in self.processes.pages:
            page.hang_up()

    def _length(self) -> int:
        return self.script.talk_ms or min(self.script.terms.max_minutes * 60_000, self.script.cap_ms)

    # --- faults at an instant

    def _strike(self, kind: str) -> None:
        strike: Callable[[], bool] = getattr(self, f"_{kind}")
        open_before = self.money_open()
        if strike():
            self.world.say(f"FAULT {kind}")
            self.faults.happened_total[kind] += 1
            self.faults.happened_open[kind] += open_before

    def _host(self) -> Node | None:
        return next((node for node in self.processes.nodes if node.process.alive and node.hosted is not None), None)

    def _store_outage(self) -> bool:
        self.world.away(self.world.rng.randrange(2_000, 25_000))
        return True

    def _store_restart(self) -> bool:
        self.world.away(self.world.rng.randrange(100, 1_500))
        return True

    def _store_power_loss(self) -> bool:
        """Takes the last moment of what was written and not confirmed; if there is nothing such, the next time."""
        if not self.processes.streams.lose(self.world.rng.randrange(1_000)):
            self.processes.rules.unconfirmed = self._power_is_about_to_fail
            return False
        self.world.away(self.world.rng.randrange(100, 3_000))
        return True

    def _power_is_about_to_fail(self) -> None:
        """At once, as a process is about to act upon its write; or soon."""
        rng = self.world.rng
        self.world.at(self.world.now + rng.choice((rng.randrange(1, 5), rng.randrange(1, 900))), self._strike,
                      "store_power_loss")  # fmt: skip

    def _store_cut_off(self) -> bool:
        p, rng = self.processes, self.world.rng
        host = self._host()
        process = rng.choice([*p.bridges, host.process if host else p.nodes[0].process])
        process.cut_until = self.world.now + rng.randrange(1_000, 30_000)
        return True

    def _node_crash(self) -> bool:
        host = self._host()
        if host is None:
            return False
        host.process.die(self.world.rng.choice((500, 4_000, 40_000, 200_000)))
        return True

    def _bridge_crash(self) -> bool:
        bridge = self.world.rng.choice(self.processes.bridges)
        bridge.die(self.world.rng.choice((500, 4_000, 90_000)))
        return True

    def _two_owners(self) -> bool:
        """The owner lives, but seems dead to the other node, and a page finds its way there."""
        host = self._host()
        if host is None:
            return False
        p = self.processes
        other = p.nodes[1 - p.nodes.index(host)]
        p.slandered.add(host.nonce)
        page = self.world.rng.choice(p.pages)
        if page.node is host and not page.over and not page.gone:
            page.sent_to = other
            page.lost_node(100)
            self._end_early(page, host)
        return True

    def _end_early(self, page: Page, former: Node) -> None:
        """The call ends with its new owner while the former still writes its usage; or when that has written it, and
        the store has left before the new one saw it."""
        world, rng = self.world, self.world.rng
        kind = rng.random()
        if kind < 0.6:
            world.at(world.now + rng.randrange(250, 900), page.hang_up)
            world.at(world.now + rng.randrange(250, 900), former._poke)
        elif kind < 0.8:
            away = world.now + rng.randrange(2_000, 9_500)
            world.at(away - rng.randrange(1, 1_000), former._poke)
            world.at(away, self._strike, "store_outage")
            world.at(away + rng.randrange(100, 2_000), page.hang_up)

    def _node_pause(self) -> bool:
        host = self._host()
        if host is None:
            return False
        host.paused_until = self.world.now + self.world.rng.randrange(1_000, 20_000)
        return True

    def _clock_forward(self) -> bool:
        return self._step(self.world.rng.randrange(100, 20_000))

    def _clock_back(self) -> bool:
        return self._step(-self.world.rng.randrange(100, 20_000))

    def _step(self, ms: int) -> bool:
        self.world.skew += ms
        self.processes.stepped_ms += abs(ms)
        for queue in self.processes.idle:
            self.processes.check(queue)
        return True

    def _wakeup_lost(self) -> bool:
        self.processes.lost_wakeups += self.world.rng.randrange(1, 4)
        return True

    def _report_lost(self) -> bool:
        self.processes.lost_reports += self.world.rng.randrange(1, 3)
        return True

    def _network_lost(self) -> bool:
        page = self.world.rng.choice(self.processes.pages)
        page.drop(self.world.rng.randrange(500, 30_000))
        return True

    def _client_vanishes(self) -> bool:
        page = self.world.rng.choice(self.processes.pages)
        if page.gone or page.node is None:
            return False
        node, page.gone = page.node, True
        node.leg(page.number, False)
        self.world.at(self.world.now + self.world.rng.randrange(1_000, 40_000), page._leave)
        return True


def simulate(
    sessions: int, seed: int, tally: Tally, *, first: int = 0, until: Callable[[], bool] | None = None
) -> None:
    """Run sessions `first` … of a seed into `tally`; ends early when `until` says so."""
    with simulated(), tally.counting(), _collected_in_heaps():
        for number in range(first, first + sessions):
            one = Simulation(f"{seed}:{number}")
            tally.add(one, one.run())
            if number % 25 == 24:
                gc.collect()
            if until is not None and until():
                return


@contextmanager
def _collected_in_heaps() -> Iterator[None]:
    """A world is thrown away as a whole: its cycles are collected with those of its neighbours, and what was there
    before is not looked at each time."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
