"""The room: incarnations, generations, credentials of two legs, and what lost sockets may not break."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.session import ROLES, Role
from tests.signaling.pages import Bench

ROLE = st.sampled_from(ROLES)


class Calls(RuleBasedStateMachine):
    """Pages load, lose sockets, restart and renegotiate in any order; once they are left alone, the call is up."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()

    @rule(role=ROLE)
    def load(self, role: Role) -> None:
        self.bench.load(role)

    @rule(role=ROLE)
    def reconnect(self, role: Role) -> None:
        if self.bench.pages[role] is not None:
            self.bench.connect(role)

    @rule(role=ROLE)
    def drop(self, role: Role) -> None:
        self.bench.drop(role)

    @rule(role=ROLE)
    def to_page(self, role: Role) -> None:
        self.bench.deliver_to_page(role)

    @rule(role=ROLE)
    def to_gateway(self, role: Role) -> None:
        self.bench.deliver_to_gateway(role)

    @rule()
    def settle(self) -> None:
        self.bench.settle()

    @rule(role=ROLE)
    def renegotiate(self, role: Role) -> None:
        if (page := self.bench.pages[role]) is not None:
            page.wanted = True
            page.negotiate()

    @rule(role=ROLE)
    def restart(self, role: Role) -> None:
        if (page := self.bench.pages[role]) is not None:
            page.restart()

    @rule()
    def order(self) -> None:
        self.bench.order()

    @rule()
    def take_over(self) -> None:
        self.bench.take_over()

    @rule(ms=st.integers(0, 20_000))
    def advance(self, ms: int) -> None:
        self.bench.advance(ms)

    @invariant()
    def few_credentials(self) -> None:
        assert all(len(leg.local) <= 4 for leg in self.bench.room.legs)

    def teardown(self) -> None:
        for role in ROLES:
            if self.bench.pages[role] is None:
                self.bench.load(role)
            elif self.bench.page(role).wire is None:
                self.bench.connect(role)
        for _ in range(4):
            self.bench.settle()
            self.bench.advance(4000)
        self.bench.settle()
        assert self.bench.is_up()


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
