"""Redis was lost and an older record came back: what our lost steps did at Stripe is found, and done once."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing_bridge.calls import KEY_LIFE_MS
from gateway.billing_bridge.record import Payment
from tests.billing_bridge.settling import Settling, differences, news, order_refund
from tests.billing_bridge.test_refunds import AMBASSADOR, EXPERT, paid, shares_close

DAY_MS = KEY_LIFE_MS + 2 * 3_600_000


class Older:
    """A session's records as they were kept, to be brought back later."""

    def __init__(self, settling: Settling) -> None:
        self.disk, self.refunds = settling.disk, copy.deepcopy(settling.session.get("refunds", []))

    def restored(self, settling: Settling, after_ms: int = 0) -> Payment:
        """As `gateway restore` brings it back: Stripe is asked about everything."""
        settling.disk, settling.session["refunds"] = self.disk, copy.deepcopy(self.refunds)
        settling.now += after_ms
        settling.account.outlived_us = True
        for topic in ("refunds", "lost", "disputes"):
            news(settling.session, topic)
        return settling.run()


@pytest.mark.parametrize("after_ms", [0, DAY_MS])
def test_law5_a_refund_that_redis_lost_is_found_and_nothing_of_it_is_done_twice(after_ms: int) -> None:
    settling = paid()
    older = Older(settling)
    order_refund(settling.session, 1500)
    before = settling.run()
    payment = older.restored(settling, after_ms)
    assert (payment.status, payment.amount_refunded) == ("partially_refunded", 1500)
    assert payment.transfers == before.transfers
    assert [(refund.id, refund.amount, refund.charge_to) for refund in payment.refunds] == [("ref_1", 1500, "shares")]
    shares_close(settling)
    settling.session["refunds"] = [{"number": 1, "id": "ref_new", "amount": 3000, "reason": "r", "charge_to": "shares"}]
    assert settling.run().status == "refunded", "the next order has a key of its own"
    assert (settling.account.refunded(), settling.account.net(EXPERT), settling.account.net(AMBASSADOR)) == (4500, 0, 0)
    assert differences(settling) == []


def test_a_lost_refund_that_the_platform_bore_is_borne_by_it_again() -> None:
    settling = paid()
    older = Older(settling)
    order_refund(settling.session, 1500, "platform")
    settling.run()
    assert [refund.charge_to for refund in older.restored(settling).refunds] == ["platform"]
    assert settling.account.reversals == []


def test_law5_what_a_lost_dispute_took_back_is_not_taken_back_again_by_an_older_record() -> None:
    settling = paid()
    older = Older(settling)
    settling.account.dispute("lost", 2000)
    news(settling.session, "disputes")
    settling.run()
    older.restored(settling, DAY_MS)
    shares_close(settling)


def test_a_key_that_a_lost_refusal_took_is_passed_over() -> None:
    settling = paid()
    older = Older(settling)
    settling.account.refusing = {"refunds.create": "charge_disputed"}
    order_refund(settling.session, 1000)
    settling.run()
    settling.account.refusing = {}
    older.restored(settling)
    settling.session["refunds"] = [{"number": 1, "id": "ref_new", "amount": 700, "reason": "r", "charge_to": "shares"}]
    assert settling.run().amount_refunded == 700
    shares_close(settling)


def test_nothing_is_taken_back_while_stripe_does_not_say_what_was() -> None:
    settling = paid()
    older = Older(settling)
    order_refund(settling.session, 1500)
    settling.run()
    settling.account.refusing = {"transfers.list": "api_error"}
    settling.disk, settling.session["refunds"] = older.disk, []
    settling.now += DAY_MS
    news(settling.session, "refunds")
    for _ in range(5):
        settling.now = settling.look() or settling.now
    assert [reversal["amount"] for reversal in settling.account.reversals] == [1350, 30]
    settling.account.refusing = {}
    settling.run()
    assert [reversal["amount"] for reversal in settling.account.reversals] == [1350, 30]
    shares_close(settling)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_law6_any_refunds_around_a_loss_leave_the_shares_of_what_is_left(data: st.DataObject) -> None:
    settling, some = paid(), st.lists(st.integers(1, 500), max_size=3)
    kept, lost, later = data.draw(some), data.draw(some), data.draw(some)
    returned, empty = data.draw(st.booleans()), data.draw(st.booleans())
    for amount in kept:
        order_refund(settling.session, amount)
        settling.run()
    older = Older(settling)
    for amount in lost:
        order_refund(settling.session, amount)
        settling.run()
    if returned and lost:
        settling.account.return_refund()
        news(settling.session, "refunds")
        settling.run()
    settling.account.empty = frozenset({EXPERT}) if empty else frozenset()
    older.restored(settling, data.draw(st.sampled_from([0, DAY_MS])))
    settling.account.empty = frozenset()
    for number, amount in enumerate(later):
        order_refund(settling.session, amount)
        settling.session["refunds"][-1]["id"] = f"ref_later_{number}"
        settling.run()
    gone = sum(kept) + sum(lost) + sum(later) - (lost[-1] if returned and lost else 0)
    assert settling.payment.amount_refunded == settling.account.refunded() == gone
    shares_close(settling)
    assert json.loads(settling.disk)["settled"]
    assert differences(settling) == []
