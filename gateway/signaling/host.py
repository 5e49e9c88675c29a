"""The door of this node: finds or opens the session that a `hello` is for, and feeds all hosted sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Any, Final, get_args

import structlog
from prometheus_client import Gauge
from redis.exceptions import RedisError

from gateway import session as core
from gateway.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RelayUnavailable,
    StoreUnavailable,
    StripeUnavailable,
    Unauthorized,
)
from gateway.meter.flusher import Flusher
from gateway.meter.ledger import Ledger
from gateway.meter.usage_file import UsageFile
from gateway.nodes import Node
from gateway.session import Role
from gateway.sessions.sessions import Sessions
from gateway.sfu.port import Credentials, RelayPort
from gateway.signaling import messages as wire
from gateway.signaling.call import Timers
from gateway.signaling.hosted import Hosted
from gateway.signaling.messages import Close, SignalError
from gateway.signaling.orphans import Orphans
from gateway.signaling.resume import ResumeSecrets
from gateway.signaling.room import Room
from gateway.signaling.surroundings import Surroundings
from gateway.signaling.turn import Turn
from gateway.signaling.websocket import Socket
from gateway.tokens import Tokens

log = structlog.get_logger(__name__)

HOSTED = Gauge("gateway_sessions_hosted", "Sessions that this node hosts, by status.", ["status"])

FRAGMENT_CHARS: Final = 8
PASSWORD_CHARS: Final = 32


class Host:
    """Shell. `run` until cancelled, `enter` for each socket (it is `websocket.Door`), `stop` to leave."""

    def __init__(
        self, sessions: Sessions, ledger: Ledger, relay: RelayPort, node: Node, tokens: Tokens, timers: Timers,
        *, flush_ms: int = 500, file: UsageFile | None = None, turn: Turn | None = None,
    ) -> None:  # fmt: skip
        resume = ResumeSecrets(sessions.journal, node.clock)
        self._tokens = tokens
        self._flusher = Flusher(ledger, node.clock, flush_ms=flush_ms, file=file)
        self._with = Surroundings(sessions, ledger, relay, node, timers, resume, self._flusher, turn or Turn())
        self._orphans = Orphans(ledger)
        self._hosted: dict[str, Hosted] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        for status in get_args(core.Status):
            HOSTED.labels(status).set_function(partial(self._count, status))

    def _count(self, status: core.Status) -> float:
        return sum(hosted.record.status == status for hosted in self._hosted.values())

    async def _room(self, session: str) -> Room:
        """The session's room: new, or with the generations that its former owner kept; then both legs are renewed."""
        kept = await self._with.sessions.journal.redis.get(self._with.sessions.journal.keys.of(session, "room"))
        candidates = tuple(self._with.relay.candidates(session))
        if kept is None:
            return Room(candidates, new_credentials)
        room = Room.restored(json.loads(kept), candidates, new_credentials)
        room.restart("takeover", self._with.now())
        return room

    async def run(self) -> None:
        """Hand the relay's reports to their sessions, and the sessions' usage to the ledger, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            flushing = tasks.create_task(self._flusher.run())
            collecting = tasks.create_task(self._orphans.run())
            async for report in self._with.relay.reports():
                hosted = self._hosted.get(report.call)
                if hosted is not None:
                    hosted.metered(report)
                    hosted.turns.post(partial(hosted.heard, report))
                else:
                    self._orphans.heard(report)
            flushing.cancel()
            collecting.cancel()

    async def enter(self, hello: wire.Hello, socket: Socket) -> Guest:
        """Seat a socket. Raises SignalError."""
        if self._draining:
            raise SignalError("protocol", "This gateway is going away.", fatal=True, close=Close.GOING_AWAY)
        with _in_words_of_the_protocol():
            session, role, key, token = await self._admit(hello)
            hosted = await self._open(session)
            if role == "client" and hello.consent is not None:
                await self._with.sessions.before_consent(hosted.record)
            await hosted.turns.ask(partial(hosted.enter, role, hello, socket, key, token))
        return Guest(hosted, role, socket)

    async def _admit(self, hello: wire.Hello) -> tuple[str, Role, dict[str, Any] | None, str | None]:
        if hello.resume is not None:
            back = await self._with.resume.verify(hello.resume, hello.proof)
            return back.session, back.role, back.key, None
        grant = self._tokens.open("join", hello.token or "", now=self._with.now())
        if await self._with.sessions.doors.is_spent(grant.id):
            raise Unauthorized("This token was used; open your link again.", code="token_used")
        key = None if hello.key is None else hello.key.model_dump(include={"kty", "crv", "x", "y"})
        return grant.session, grant.role, key, grant.id

    async def _open(self, session: str) -> Hosted:
        async with self._opening.setdefault(session, asyncio.Lock()):
            hosted = self._hosted.get(session)
            if hosted is None:
                hosted = await self._claim(session)
                self._hosted[session] = hosted
                task = asyncio.create_task(self._hosting(hosted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return hosted

    async def _claim(self, session: str) -> Hosted:
        """Become the session's owner, if it still runs. Raises Conflict `held` while its owner lives."""
        docs = await self._with.sessions.records.read(session)
        meeting = docs.record.meeting
        if meeting is not None and self._with.now() < meeting.opens_at:
            raise Conflict("The meeting opens ten minutes before its time.", code="meeting_not_open")
        if not docs.record.open:
            return Hosted(self._with, docs, None, Room((), new_credentials))
        state = await self._with.ledger.state(session)
        gone = state is not None and state.owner != "" and await self._with.node.gone(state.owner)
        lease = await self._with.ledger.acquire(session, self._with.node.nonce, owner_gone=gone)
        await self._with.sessions.journal.schedule("watch", session, lease.now)
        await self._orphans.settle(session)
        self._orphans.adopted(session)
        earlier = (await self._with.ledger.usage(session)).intervals
        docs = await self._with.sessions.records.apply_payment(session)
        return Hosted(self._with, docs, lease, await self._room(session), earlier)

    async def _hosting(self, hosted: Hosted) -> None:
        try:
            await hosted.run()
        except Exception:
            # One session's bug must not take the others along; its lease runs out and the sweeper settles it.
            log.exception("session_crashed", session=hosted.session)
            with suppress(Exception):
                await self._with.relay.release(hosted.session)
        finally:
            hosted.shut()
            self._hosted.pop(hosted.session, None)
            self._opening.pop(hosted.session, None)

    async def stop(self) -> None:
        """Give every session up: flushed and released, so that another owner may claim them at once."""
        self._draining = True
        for hosted in list(self._hosted.values()):
            hosted.turns.post(hosted.give_up)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=5)
            for task in late:
                task.cancel()
        await self._flusher.stop()


@dataclass(slots=True)
class Guest:
    """A seated socket's counterpart (`websocket.Seat`)."""

    hosted: Hosted
    role: Role
    socket: Socket

    async def receive(self, message: wire.ClientMessage) -> None:
        """Raises SignalError."""
        with _in_words_of_the_protocol():
            await self.hosted.turns.ask(partial(self.hosted.receive, self.role, self.socket, message))

    async def closed(self) -> None:
        self.hosted.turns.post(partial(self.hosted.left, self.role, self.socket))


@contextmanager
def _in_words_of_the_protocol() -> Iterator[None]:
    """Errors of the session's keeper as the client is told them: come again, or not."""
    try:
        yield
    except Unauthorized as error:
        raise SignalError(error.code, error.detail, fatal=True, close=Close.UNAUTHORIZED) from error
    except NotFound as error:
        raise SignalError("token_invalid", error.detail, fatal=True, close=Close.UNAUTHORIZED) from error
    except Conflict as error:
        if error.code == "session_ended":
            raise SignalError("session_ended", error.detail, fatal=True, close=Close.ENDED) from error
        if error.code == "meeting_not_open":
            raise SignalError(error.code, error.detail, fatal=True) from error
        raise SignalError("protocol", "Another gateway has the call.", fatal=True, close=Close.TRY_AGAIN) from error
    except InvalidRequest as error:
        if error.code != "expert_not_payable":
            raise
        # Why is the expert's own business.
        raise SignalError(error.code, "The expert cannot be paid now; nothing was held.", fatal=True) from error
    except (RelayUnavailable, StripeUnavailable) as error:
        raise SignalError("protocol", error.detail, fatal=True, close=Close.TRY_AGAIN) from error
    except (StoreUnavailable, RedisError) as error:
        raise SignalError(
            "protocol", "The session store is away; try again.", fatal=True, close=Close.TRY_AGAIN
        ) from error


def new_credentials() -> Credentials:
    """At least 24 and 128 bits (RFC 8445 section 5.3), of ice-chars."""
    return Credentials(token_hex(FRAGMENT_CHARS // 2), token_hex(PASSWORD_CHARS // 2))
