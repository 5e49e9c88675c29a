"""The room: incarnations, generations, credentials of two legs, and what lost sockets may not break."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.session import ROLES, Role
from gateway.sfu.port import Credentials, LegConfig
from gateway.signaling.leg import OVERLAP_MS
from gateway.signaling.messages import (
    Close,
    Description,
    ErrorMessage,
    Generation,
    Leave,
    Media,
    MediaState,
    Peer,
    Restart,
    Rollback,
    Sas,
)
from gateway.signaling.room import RESTART_AGAIN_MS, CloseSeat, LegsChanged, Output, Room, Send
from gateway.signaling.sdp import transport_of
from tests.signaling.pages import CANDIDATES, LEG, ON, Bench, describe, numbered

ROLE = st.sampled_from(ROLES)


T = TypeVar("T")
PRINT = ":".join(["AA"] * 32)
MUTED = MediaState(audio=False, video=True)


class Solo:
    """A room without pages: what goes in is written by hand, what comes out is looked at."""

    def __init__(self) -> None:
        ours = numbered("gate")
        self.room = Room(CANDIDATES, lambda: next(ours))
        self.theirs = numbered("page")
        self.credentials: dict[Role, Credentials] = {role: next(self.theirs) for role in ROLES}
        self.version = 0

    def join(self, role: Role, generation: Generation | None = None, now: int = 0) -> tuple[Output, ...]:
        return self.room.join(role, generation, ON, now).after

    def say(self, role: Role, kind: str, now: int = 0, **changed: object) -> Sequence[Output]:
        self.version += 1
        text = describe(kind, self.credentials[role], PRINT, self.version)
        fields = {"sdp": text, "kind": kind, "generation": self.room.generation(role), **changed}
        return self.room.receive(role, Description.model_validate(fields), now)

    def connect(self) -> None:
        self.join("client")
        self.join("expert")
        self.say("client", "offer")
        self.say("expert", "answer")


@pytest.fixture
def solo() -> Solo:
    return Solo()


@pytest.fixture
def connected() -> Solo:
    solo = Solo()
    solo.connect()
    return solo


def sent(outputs: Sequence[Output], role: Role, kind: type[T]) -> list[T]:
    found = [out.message for out in outputs if isinstance(out, Send) and out.role == role]
    return [message for message in found if isinstance(message, kind)]


def codes(outputs: Sequence[Output], role: Role) -> list[str]:
    return [message.code for message in sent(outputs, role, ErrorMessage)]


# Seats


def test_the_expert_is_polite_and_the_client_offers(solo: Solo) -> None:
    client, expert = (solo.room.join(role, None, ON, 0) for role in ROLES)
    assert (client.polite, client.offerer) == (False, True)
    assert (expert.polite, expert.offerer) == (True, False)
    assert client.generation == expert.generation == Generation(mine=1, peer=1, transport=1)


def test_both_are_told_that_the_other_is_here(solo: Solo) -> None:
    assert sent(solo.join("client"), "client", Peer) == []
    outputs = solo.join("expert")
    assert [peer.state for peer in sent(outputs, "client", Peer)] == ["joined"]
    assert [peer.state for peer in sent(outputs, "expert", Peer)] == ["joined"]


def test_the_newest_socket_wins_and_the_old_one_is_told(solo: Solo) -> None:
    solo.join("client")
    joined = solo.room.join("client", None, ON, 0)
    assert codes(joined.before, "client") == ["replaced"]
    assert CloseSeat("client", Close.REPLACED) in joined.before


def test_every_replacement_by_another_page_is_shown(connected: Solo) -> None:
    same = connected.join("client", connected.room.generation("client"))
    assert sent(same, "expert", Peer) == []
    fresh = connected.join("client")
    assert [peer.replaced for peer in sent(fresh, "expert", Peer)] == [True]


def test_nobody_may_offer_before_the_other_is_here(solo: Solo) -> None:
    solo.join("client")
    assert codes(solo.say("client", "offer"), "client") == ["protocol"]


def test_states_follow_socket_and_leg(solo: Solo) -> None:
    room = solo.room
    assert room.state("client") == "absent"
    solo.connect()
    assert room.state("client") == "joined"
    assert [peer.state for peer in sent(room.presence("client", True, 0), "expert", Peer)] == ["connected"]
    assert room.presence("client", True, 0) == []
    assert room.lost("client", 0) == []
    assert [peer.state for peer in sent(room.presence("client", False, 0), "expert", Peer)] == ["reconnecting"]
    assert [peer.state for peer in sent(room.leave("client", 0), "expert", Peer)] == ["left"]


def test_r08_media_is_remembered_and_passed_on(solo: Solo) -> None:
    solo.connect()
    outputs = solo.room.receive("client", Media(type="media", audio=False, video=True), 0)
    assert [peer.media for peer in sent(outputs, "expert", Peer)] == [MUTED]
    assert solo.room.join("expert", solo.room.generation("expert"), ON, 0).peer.media == MUTED


def test_other_messages_are_not_the_rooms(connected: Solo) -> None:
    assert connected.room.receive("client", Leave(type="leave"), 0) == ()


# Incarnations


def test_the_second_to_come_does_not_cost_the_first_its_connection(solo: Solo) -> None:
    solo.join("client")
    solo.join("expert")
    assert solo.room.incarnation == 1


@pytest.mark.parametrize("role", ROLES)
def test_a_reload_on_either_side_starts_the_next_incarnation_for_both(connected: Solo, role: Role) -> None:
    old = connected.room.legs
    outputs = connected.join(role)
    assert connected.room.incarnation == 2
    told = sent(outputs, "expert" if role == "client" else "client", Peer)
    assert [(peer.generation.mine, peer.generation.peer, peer.generation.transport) for peer in told] == [(2, 2, 2)]
    for before, after in zip(old, connected.room.legs, strict=True):
        assert not set(before.local) & set(after.local)
        assert after.remote is None


def test_the_same_page_on_a_new_socket_changes_nothing(connected: Solo) -> None:
    before = connected.room.snapshot(), connected.room.legs
    connected.room.lost("client", 0)
    outputs = connected.join("client", connected.room.generation("client"))
    assert (connected.room.snapshot(), connected.room.legs) == before
    assert sent(outputs, "client", Description) == []


def test_a_page_that_missed_the_reload_of_the_other_joins_the_present_incarnation(connected: Solo) -> None:
    old = connected.room.generation("expert")
    connected.room.lost("expert", 0)
    connected.join("client")
    connected.say("client", "offer")
    outputs = connected.join("expert", old)
    assert connected.room.incarnation == 2
    assert [offer.kind for offer in sent(outputs, "expert", Description)] == ["offer"]


def test_a_page_from_the_future_is_caught_up_with(solo: Solo) -> None:
    solo.join("client", Generation(mine=7, peer=7, transport=9))
    assert solo.room.incarnation == 8
    solo.join("client", Generation(mine=500_000_000, peer=1, transport=0))
    assert solo.room.incarnation == 8


def test_descriptions_of_a_former_incarnation_are_stale(connected: Solo) -> None:
    old = connected.room.generation("expert")
    connected.join("client")
    assert codes(connected.say("expert", "offer", generation=old), "expert") == ["stale"]
    assert codes(connected.say("expert", "answer", generation=old), "expert") == ["stale"]


def test_law1_a_certificate_cannot_change_within_an_incarnation(connected: Solo) -> None:
    text = describe("offer", connected.credentials["client"], ":".join(["BB"] * 32), 9)
    assert codes(connected.say("client", "offer", sdp=text), "client") == ["bad_fingerprint"]


def test_bad_descriptions_are_answered_with_their_code(connected: Solo) -> None:
    assert codes(connected.say("client", "offer", sdp="v=0\r\n"), "client") == ["bad_sdp"]


# Credentials


def test_law7_each_side_sees_its_own_legs_credentials_only(solo: Solo) -> None:
    solo.join("client")
    solo.join("expert")
    [offer] = sent(solo.say("client", "offer"), "expert", Description)
    [answer] = sent(solo.say("expert", "answer"), "client", Description)
    client, expert = solo.room.legs
    assert (transport_of(offer.sdp).credentials,) == expert.local
    assert (transport_of(answer.sdp).credentials,) == client.local
    assert client.remote == solo.credentials["client"]
    assert expert.remote == solo.credentials["expert"]
    for private in solo.credentials.values():
        assert private.password not in offer.sdp + answer.sdp


def test_a_restart_of_one_leg_leaves_the_other_as_it_was(connected: Solo) -> None:
    (old,), expert = connected.room.legs[0].local, connected.room.legs[1]
    connected.credentials["client"] = next(connected.theirs)
    [offer] = sent(connected.say("client", "offer", 1000), "expert", Description)
    assert (transport_of(offer.sdp).credentials,) == expert.local
    pending, current = connected.room.legs[0].local
    assert (current, connected.room.legs[0].remote != connected.credentials["client"]) == (old, True)
    [answer] = sent(connected.say("expert", "answer", 1000), "client", Description)
    assert transport_of(answer.sdp).credentials == pending
    assert answer.generation.transport == 2
    assert connected.room.legs == (LegConfig((pending, old), connected.credentials["client"]), expert)


def test_old_credentials_are_good_for_ten_seconds_more(connected: Solo) -> None:
    connected.credentials["client"] = next(connected.theirs)
    connected.say("client", "offer", 1000)
    connected.say("expert", "answer", 2000)
    assert connected.room.timer() == 2000 + OVERLAP_MS
    assert connected.room.handle_timer(1999 + OVERLAP_MS) == []
    assert connected.room.handle_timer(2000 + OVERLAP_MS) == [LegsChanged()]
    assert len(connected.room.legs[0].local) == 1
    assert connected.room.timer() is None


def test_rollback_discards_what_was_pending(connected: Solo) -> None:
    before = connected.room.legs
    connected.credentials["client"] = next(connected.theirs)
    connected.say("client", "offer")
    rollback = Rollback(type="rollback", generation=connected.room.generation("client"))
    assert connected.room.receive("client", rollback, 0) == [LegsChanged()]
    assert connected.room.legs == before
    assert codes(connected.say("expert", "answer"), "expert") == ["stale"]
    assert connected.room.receive("client", rollback, 0) == ()


def test_in_glare_the_answered_offer_counts_and_the_other_is_void(connected: Solo) -> None:
    before = connected.room.legs[1]
    connected.credentials["expert"] = next(connected.theirs)
    connected.say("expert", "offer")
    connected.credentials["expert"] = before.remote or next(connected.theirs)
    connected.say("client", "offer")
    assert len(sent(connected.say("expert", "answer"), "client", Description)) == 1
    assert connected.room.legs[1] == before
    assert codes(connected.say("client", "answer"), "client") == ["stale"]


def test_an_answer_to_an_offer_that_was_replaced_is_stale(connected: Solo) -> None:
    connected.say("client", "offer", number=1)
    connected.say("client", "offer", number=2)
    assert codes(connected.say("expert", "answer", number=1), "expert") == ["stale"]
    [answer] = sent(connected.say("expert", "answer", number=2), "client", Description)
    assert answer.number == 2


# Lost sockets


def test_an_offer_waits_for_a_socket_and_is_told_again_until_answered(connected: Solo) -> None:
    connected.room.lost("expert", 0)
    assert sent(connected.say("client", "offer"), "expert", Description) == []
    for _ in range(2):
        outputs = connected.join("expert", connected.room.generation("expert"))
        assert [offer.kind for offer in sent(outputs, "expert", Description)] == ["offer"]
        connected.room.lost("expert", 0)


def test_an_answer_waits_for_a_socket_and_old_credentials_with_it(connected: Solo) -> None:
    connected.credentials["client"] = next(connected.theirs)
    generation = connected.room.generation("client")
    connected.say("client", "offer")
    connected.room.lost("client", 0)
    connected.say("expert", "answer", 0)
    assert connected.room.timer() is None
    outputs = connected.join("client", generation, 60_000)
    assert [answer.kind for answer in sent(outputs, "client", Description)] == ["answer"]
    assert connected.room.timer() == 60_000 + OVERLAP_MS


def test_a_repeated_offer_gets_the_answer_that_was_lost(connected: Solo) -> None:
    text = describe("offer", connected.credentials["client"], PRINT, 50)
    connected.say("client", "offer", sdp=text)
    assert connected.say("client", "offer", sdp=text) == ()
    [answer] = sent(connected.say("expert", "answer"), "client", Description)
    again = connected.say("client", "offer", sdp=text)
    assert (sent(again, "client", Description), sent(again, "expert", Description)) == ([answer], [])


def test_a_restart_is_answered_for_an_absent_peer(connected: Solo) -> None:
    connected.room.lost("expert", 0)
    expert = connected.room.legs[1]
    connected.credentials["client"] = next(connected.theirs)
    [answer] = sent(connected.say("client", "offer", number=3), "client", Description)
    assert (answer.kind, answer.number) == ("answer", 3)
    transport = transport_of(answer.sdp)
    assert (transport.credentials, transport.setup) == (connected.room.legs[0].local[0], "active")
    assert connected.room.legs[0].remote == connected.credentials["client"]
    assert connected.room.legs[1] == expert
    assert sent(connected.join("expert", connected.room.generation("expert")), "expert", Description) == []


def test_the_absent_offerer_answers_in_the_running_role(connected: Solo) -> None:
    connected.room.lost("client", 0)
    connected.credentials["expert"] = next(connected.theirs)
    [answer] = sent(connected.say("expert", "offer"), "expert", Description)
    assert transport_of(answer.sdp).setup == "passive"


def test_an_offer_that_changes_media_waits_for_the_peer(connected: Solo) -> None:
    connected.room.lost("expert", 0)
    connected.credentials["client"] = next(connected.theirs)
    text = describe("offer", connected.credentials["client"], PRINT, 9).replace("a=sendrecv", "a=recvonly")
    assert sent(connected.say("client", "offer", sdp=text), "client", Description) == []


# Restart by order


def test_an_order_goes_to_one_side_and_its_offer_renews_both_legs(connected: Solo) -> None:
    outputs = connected.room.restart("drain", 0)
    [order] = sent(outputs, "client", Restart)
    assert (order.reason, order.generation.transport, sent(outputs, "expert", Restart)) == ("drain", 2, [])
    stale = connected.say("client", "offer", generation=Generation(mine=1, peer=1, transport=1))
    assert codes(stale, "client") == ["stale"]
    old = connected.room.legs
    connected.credentials["client"] = next(connected.theirs)
    [offer] = sent(connected.say("client", "offer", 100), "expert", Description)
    assert offer.generation.transport == 2
    connected.credentials["expert"] = next(connected.theirs)
    [answer] = sent(connected.say("expert", "answer", 200), "client", Description)
    answers: dict[Role, Description] = {"expert": offer, "client": answer}
    for role, description in answers.items():
        leg, before = connected.room.legs[LEG[role]], old[LEG[role]]
        assert leg.local == (transport_of(description.sdp).credentials, *before.local)
        assert leg.remote == connected.credentials[role]


def test_an_order_nobody_follows_goes_to_the_other_side(connected: Solo) -> None:
    connected.room.restart("drain", 0)
    at = connected.room.timer()
    assert at is not None
    assert sent(connected.room.handle_timer(at), "expert", Restart)
    connected.room.lost("client", at)
    again = connected.room.timer()
    assert again is not None
    assert sent(connected.room.handle_timer(again), "expert", Restart)


def test_an_offer_that_crosses_an_ordered_one_does_not_void_what_was_promised(connected: Solo) -> None:
    connected.room.restart("drain", 0)
    connected.credentials["client"] = next(connected.theirs)
    [offer] = sent(connected.say("client", "offer"), "expert", Description)
    connected.say("expert", "offer")
    connected.credentials["expert"] = next(connected.theirs)
    connected.say("expert", "answer")
    assert connected.room.legs[1].local[0] == transport_of(offer.sdp).credentials


def test_an_order_waits_for_a_socket(connected: Solo) -> None:
    for role in ROLES:
        connected.room.lost(role, 0)
    assert connected.room.restart("drain", 0) == ()
    assert sent(connected.join("expert", connected.room.generation("expert"), 2500), "expert", Restart)
    assert connected.room.timer() == 2500 + RESTART_AGAIN_MS
    assert not sent(connected.join("client", connected.room.generation("client")), "client", Restart)


def test_nothing_to_restart_before_the_first_agreement(solo: Solo) -> None:
    solo.join("client")
    assert solo.room.restart("drain", 0) == ()
    assert solo.room.timer() is None


def test_a_snapshot_holds_generations_and_no_secrets(connected: Solo) -> None:
    snapshot = connected.room.snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    assert snapshot == {
        "incarnation": 1,
        "client": {"page": 1, "transport": 1},
        "expert": {"page": 1, "transport": 1},
    }


def test_another_process_goes_on_with_a_restart() -> None:
    bench = Bench()
    bench.join_both()
    prints = [bench.connection(role).fingerprint for role in ROLES]
    bench.take_over()
    for role in ROLES:
        bench.connect(role)
    bench.settle()
    assert bench.is_up()
    assert bench.room.incarnation == 1
    assert [bench.connection(role).fingerprint for role in ROLES] == prints


def test_after_a_takeover_an_ordinary_offer_is_answered_by_an_order(connected: Solo) -> None:
    ours = numbered("next")
    connected.room = Room.restored(connected.room.snapshot(), CANDIDATES, lambda: next(ours))
    assert connected.room.legs == (LegConfig(), LegConfig())
    connected.join("client", connected.room.generation("client"))
    outputs = connected.say("client", "offer")
    assert codes(outputs, "client") == ["stale"]
    assert [order.generation.transport for order in sent(outputs, "client", Restart)] == [2]


def test_after_a_takeover_the_former_credentials_stay_valid_for_their_window(connected: Solo) -> None:
    ours, theirs = numbered("next"), connected.credentials
    connected.room = Room.restored(connected.room.snapshot(), CANDIDATES, lambda: next(ours))
    connected.room.restart("takeover", 0)
    for role in ROLES:
        connected.join(role, connected.room.generation(role))
    connected.credentials = {role: next(connected.theirs) for role in ROLES}
    connected.say("client", "offer", now=50)
    assert [(leg.inherits, len(leg.local)) for leg in connected.room.legs] == [(True, 1), (True, 1)]
    connected.say("expert", "answer", now=100)
    assert [leg.inherits for leg in connected.room.legs] == [True, True]
    assert [leg.remote for leg in connected.room.legs] == list(connected.credentials.values()) != list(theirs.values())
    assert connected.room.timer() == 100 + OVERLAP_MS
    assert LegsChanged() in connected.room.handle_timer(100 + OVERLAP_MS)
    assert [(leg.inherits, len(leg.local)) for leg in connected.room.legs] == [(False, 1), (False, 1)]


def test_a_fresh_page_after_a_takeover_inherits_nothing(connected: Solo) -> None:
    ours = numbered("next")
    connected.room = Room.restored(connected.room.snapshot(), CANDIDATES, lambda: next(ours))
    connected.join("client")
    assert [leg.inherits for leg in connected.room.legs] == [False, False]


# Verification


def sas(step: str, value: str = "AAAA") -> Sas:
    return Sas.model_validate({"type": "sas", "step": step, "value": value})


def test_law1_commitments_pass_as_they_are_and_again_after_a_lost_socket(connected: Solo) -> None:
    commit = sas("commit")
    assert sent(connected.room.receive("client", commit, 0), "expert", Sas) == [commit]
    connected.room.lost("expert", 0)
    reveal = sas("reveal", "BBBB")
    assert sent(connected.room.receive("client", reveal, 0), "expert", Sas) == []
    outputs = connected.join("expert", connected.room.generation("expert"))
    assert sent(outputs, "expert", Sas) == [commit, reveal]


def test_commitments_of_a_former_incarnation_are_stale(connected: Solo) -> None:
    connected.room.receive("client", sas("commit"), 0)
    outputs = connected.join("expert")
    assert sent(outputs, "expert", Sas) == []
    assert codes(connected.room.receive("client", sas("commit"), 0), "client") == ["stale"]
    connected.say("client", "offer")
    assert sent(connected.room.receive("client", sas("commit"), 0), "expert", Sas) == [sas("commit")]


# Any order of events


def test_two_pages_come_up() -> None:
    bench = Bench()
    bench.join_both()
    assert bench.is_up()


def test_who_was_away_gets_the_missed_answer_before_the_offer_that_followed_it() -> None:
    bench = Bench()
    bench.load("client")
    bench.load("expert")
    bench.take_over()
    bench.load("client")
    bench.settle()
    bench.drop("client")
    bench.load("expert")
    bench.settle()
    assert bench.connection("expert").state == "have-local-offer", "it answered, and then asked for something itself"
    bench.connect("client")
    bench.settle()
    assert bench.is_up()


def test_who_offers_past_an_order_that_it_missed_is_asked_again() -> None:
    bench = Bench()
    bench.join_both()
    bench.order()
    bench.drop("client")
    bench.order()
    bench.page("client").wanted = True
    bench.page("client").negotiate()
    bench.connect("client")
    bench.settle()
    assert bench.is_up()
    assert bench.room.timer() is not None, "former credentials expire"
    bench.advance(20_000)
    assert bench.room.timer() is None, "and the order was followed"


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
