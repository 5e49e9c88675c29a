"""Client and expert with their pages, the marketplace with its orders, and the receiver of our webhooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gateway.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from gateway.outbox.delivery import Answer
from gateway.signaling.messages import Close
from tests.simulation import faults
from tests.simulation.world import World, sleep

if TYPE_CHECKING:
    from tests.simulation.gateway import Node, Processes

LINES = {"client": 0, "expert": 1}


class Page:
    """One side's browser: joins, is heard, loses its network, comes back, hangs up. Also the socket that it holds."""

    def __init__(self, processes: Processes, role: str) -> None:
        self.processes, self.world, self.role, self.number = processes, processes.world, role, LINES[role]
        self.node: Node | None = None
        self.over = self.gone = False
        self.online = True
        self.turn = 0
        self.cost: int | None = None
        self.warned: list[int] = []
        self.sent_to: Node | None = None

    # --- as a socket of the gateway

    def send(self, message: Any) -> None:
        kind = message.type
        if kind == "meter":
            self.cost = message.cost if self.number == 0 else message.earnings
        elif kind == "warning":
            self.warned.append(message.remaining)
        elif kind == "ended" and not self.over:
            self.over = True
            self.world.at(self.world.now + 100, self._leave)

    def close(self, code: int) -> None:
        if code == Close.ENDED:
            self.over = True
        self.lost_node(200 + self.world.rng.randrange(1_500))

    # --- as a person

    def join(self) -> None:
        if self.over or self.gone or self.node is not None:
            return
        node = self.processes.node_for(self)
        if node is None or not self.online:
            self.world.at(self.world.now + 1_000, self.join)
            return
        node.enter(self)

    def refused(self, ended: bool) -> None:
        if ended:
            self.over = True
        else:
            self.world.at(self.world.now + 1_000, self.join)

    def seated(self, node: Node) -> None:
        self.node = node
        self.turn += 1
        if self.gone:  # left while the door was opening
            self.world.at(self.world.now + 100, self._leave)
        self.world.say(f"{self.role} seated at {node.process.name}")
        self.world.at(self.world.now + 150 + self.world.rng.randrange(400), self._connected, self.turn)

    def _connected(self, turn: int) -> None:
        if turn == self.turn and self.node is not None and self.online:
            self.node.leg(self.number, True)

    def lost_node(self, after: int) -> None:
        """The socket broke; go and find a gateway again."""
        if self.node is not None:
            self.node.leg(self.number, False)
        self.node = None
        self.turn += 1
        self.world.at(self.world.now + after, self.join)

    def _leave(self) -> None:
        """The socket is closed; who is gone has closed every one."""
        node, self.node = self.node, None
        for one in self.processes.nodes if self.gone else (node,) if node is not None else ():
            one.left(self)

    def hang_up(self) -> None:
        if self.over or self.gone:
            return
        self.gone = True
        if self.node is None:
            self.world.at(self.world.now + 1_500, self._leave)
            return
        node = self.node
        if self.processes.script.vanishes:
            node.leg(self.number, False)
            self.world.at(self.world.now + 20_000 + self.world.rng.randrange(20_000), self._leave)
        else:
            node.hang_up(self)
            node.leg(self.number, False)
            self.world.at(self.world.now + 500, self._leave)

    def drop(self, ms: int) -> None:
        """No network for a while; the socket may be found dead meanwhile, or live on."""
        if self.gone or not self.online:
            return
        self.online = False
        self.world.say(f"{self.role} loses the network")
        if self.node is not None:
            self.node.leg(self.number, False)
            if self.world.rng.random() < 0.5:
                self.world.at(self.world.now + ms // 2, self._leave)
        self.world.at(self.world.now + ms, self._back)

    def _back(self) -> None:
        self.online = True
        if self.gone:
            return
        if self.node is None:
            self.join()
        else:
            self.node.leg(self.number, True)


class Market:
    """The marketplace's backend: creates the session, does what the script says, tries again until it was heard."""

    def __init__(self, processes: Processes) -> None:
        self.processes, self.world = processes, processes.world
        self.received: list[tuple[str, int]] = []
        self.outstanding: dict[int, Callable[[], Awaitable[Any]]] = {}
        self.number = 0
        self.down_until = self.refusals = 0

    def order(self, action: Callable[[], Awaitable[Any]]) -> None:
        self.number += 1
        self.outstanding[self.number] = action
        self._ask(self.number)

    def serve_again(self) -> None:
        for number in list(self.outstanding):
            self._ask(number)

    def _ask(self, number: int) -> None:
        api = self.processes.api
        if api.alive and number in self.outstanding:
            api.spawn(self._insist(number))

    async def _insist(self, number: int) -> None:
        pause = 2_000
        while True:
            try:
                await self.outstanding[number]()
            except (StoreUnavailable, NotFound):
                await sleep(pause)
                pause = min(2 * pause, 600_000)
                continue
            except (Conflict, InvalidRequest):
                self.refusals += 1
            del self.outstanding[number]
            return

    def post(self, event: dict[str, Any]) -> Answer:
        """Our webhook arrives (or not)."""
        world = self.world
        fault = world.faults.take(world.rng, faults.RECEIVER)
        if world.now < self.down_until:
            return Answer(status=503)
        if fault == "webhook_refused":
            return Answer(status=500)
        if fault == "webhook_hangs":
            return Answer(fault="timeout")
        self.received.append((event["id"], event["sequence"]))
        return Answer(fault="timeout") if fault == "webhook_unanswered" else Answer(status=200)


# What the sweep finds should the event of it never come.
SWEPT = ("charge.dispute.", "refund.created")


def deliver(
    world: World, send: Callable[[dict[str, Any]], None], lost: Callable[[], None], event: dict[str, Any]
) -> None:
    """Stripe's event sets out: once, twice, late or never."""
    fault = world.faults.take(world.rng, faults.EVENT)
    if fault is not None:
        world.say(f"FAULT {fault}: {event['type']}")
    if fault == "event_lost" and event["type"].startswith("payment_intent."):
        return None  # these are asked for, too
    if fault == "event_lost" and event["type"].startswith(SWEPT):
        return lost()
    delay = 20 + world.rng.getrandbits(9)
    if fault in ("event_late", "event_lost"):  # those that only Stripe can tell, which repeats them for three days
        delay = world.rng.choice((3_000, 30_000, 3_600_000))
    world.at(world.now + delay, send, event)
    if fault == "event_twice":
        world.at(world.now + delay + world.rng.choice((0, 5, 5_000)), send, event)
    return None
