"""What can go wrong, and where: a plan drawn from the seed before the session begins, so that a replay is exact."""

from __future__ import annotations

from collections import Counter
from random import Random

# At a call of a process: its kind and the kind of call, the how-manieth, then what befalls it.
STORE = ("crash_before", "crash_during", "crash_after", "store_lost", "store_unanswered", "store_slow")
STRIPE = (
    "crash_before", "crash_during", "crash_after", "stripe_timeout", "stripe_timeout_after_commit", "stripe_late",
    "stripe_unreachable", "stripe_429", "stripe_409", "stripe_500", "stripe_500_kept", "stripe_500_after_commit",
)  # fmt: skip
EVENT = ("event_twice", "event_lost", "event_late")  # Stripe's webhooks to us
RECEIVER = ("webhook_refused", "webhook_unanswered", "webhook_hangs")  # ours to the marketplace
# At an instant.
TIMED = (
    "store_outage", "store_restart", "store_power_loss", "store_cut_off", "node_crash", "bridge_crash", "two_owners",
    "node_pause", "clock_forward", "clock_back", "wakeup_lost", "report_lost", "network_lost", "client_vanishes",
)  # fmt: skip
KINDS = tuple(dict.fromkeys((*STORE, *STRIPE, *EVENT, *RECEIVER, *TIMED)))
_DRAWN = (*KINDS, "two_owners", "two_owners", "client_vanishes")  # some find less often what they befall

# Where calls are made, how often a session makes them at the most (roughly), and how likely one of them is hit.
_PLACES = (
    ("bridge", "write", 10, 6), ("bridge", "read", 14, 2), ("node", "write", 12, 4), ("node", "read", 20, 2),
    ("api", "write", 2, 1), ("hooks", "write", 3, 1), ("sender", "write", 8, 1), ("sender", "read", 10, 1),
)  # fmt: skip
_WEIGHTS = [place[3] for place in _PLACES]


class Faults:
    """The plan of one session. `money_open` is asked at each fault: only those count that could cost something."""

    __slots__ = ("armed", "calls", "happened_open", "happened_total", "money_open", "timed", "waiting")

    def __init__(self) -> None:
        self.armed: dict[tuple[str, str, int], str] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.timed: list[str] = []
        self.waiting: Counter[str] = Counter()
        self.happened_total: Counter[str] = Counter()
        self.happened_open: Counter[str] = Counter()
        self.money_open = lambda: True

    def draw(self, rng: Random, number: int) -> None:
        for _ in range(number):
            self.plan(rng, rng.choice(_DRAWN))

    def plan(self, rng: Random, kind: str) -> None:
        if kind in TIMED:
            self.timed.append(kind)
        elif kind in EVENT or kind in RECEIVER:
            self.waiting[kind] += 1
        elif kind in STRIPE and (kind not in STORE or rng.random() < 0.5):
            self.armed["bridge", "stripe", 1 + min(rng.randrange(5), rng.randrange(5))] = kind
        else:
            process, call, most, _ = rng.choices(_PLACES, _WEIGHTS)[0]
            self.armed[process, call, 1 + rng.randrange(most)] = kind

    @property
    def befalls_the_store(self) -> bool:
        """Whether usage may have to wait for the store."""
        planned = (*self.timed, *self.armed.values())
        return any(kind.startswith("store_") for kind in planned)

    @property
    def befalls_the_call(self) -> bool:
        """Whether something is planned for the time of the call, and not for its money alone."""
        return bool(self.timed) or any(process == "node" for process, _, _ in self.armed)

    def of(self, process: str, call: str) -> str | None:
        self.calls[process, call] += 1
        return self.armed.pop((process, call, self.calls[process, call]), None)

    def take(self, rng: Random, kinds: tuple[str, ...]) -> str | None:
        """One of these kinds if the plan has it, at most of the chances."""
        for kind in kinds:
            if self.waiting[kind] and rng.random() < 0.6:
                self.waiting[kind] -= 1
                self.happened(kind)
                return kind
        return None

    def happened(self, kind: str) -> None:
        self.happened_total[kind] += 1
        if self.money_open():
            self.happened_open[kind] += 1
