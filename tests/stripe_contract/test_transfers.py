"""Settlement, transfers, reversals and refunds, as the gateway relies on them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stripe_contract.conftest import Platform

pytestmark = pytest.mark.stripe


async def sent(platform: Platform, taken: Any, amount: int, **more: Any) -> Any:
    """A transfer out of a payment's charge, in the currency in which it settled."""
    currency = taken.latest_charge.balance_transaction.currency
    params = {"amount": amount, "currency": currency, "source_transaction": taken.latest_charge.id, **more}
    return await platform.v1.transfers.create_async({"destination": platform.may_receive(), **params})


async def test_the_balance_transaction_says_what_stripe_kept(platform: Platform) -> None:
    """docs.stripe.com/api/balance_transactions/object"""
    settled = (await platform.paid()).latest_charge.balance_transaction
    assert settled.amount - settled.fee == settled.net
    assert settled.fee > 0
    assert (settled.type, settled.reporting_category) == ("charge", "charge")


async def test_several_transfers_out_of_one_charge(platform: Platform) -> None:
    """docs.stripe.com/connect/separate-charges-and-transfers"""
    platform.may_receive()
    taken = await platform.paid(transfer_group=platform.mark)
    first = await sent(platform, taken, 4_000, transfer_group=platform.mark)
    second = await sent(platform, taken, 200)
    assert (first.transfer_group, second.transfer_group) == (platform.mark, platform.mark)
    assert first.source_transaction == taken.latest_charge.id
    listed = await platform.v1.transfers.list_async({"transfer_group": platform.mark})
    assert {each.id for each in listed.data} == {first.id, second.id}


async def test_transfers_never_exceed_their_charge(platform: Platform) -> None:
    """docs.stripe.com/connect/separate-charges-and-transfers#transfer-availability"""
    platform.may_receive()
    taken = await platform.paid()
    whole = taken.latest_charge.balance_transaction.amount
    error = await platform.refused(sent(platform, taken, whole + 1))
    assert "must not exceed the source amount" in str(error.user_message)
    await sent(platform, taken, whole - 100)
    error = await platform.refused(sent(platform, taken, 101))
    assert "already a transfer using this source" in str(error.user_message)


async def test_a_refused_transfer_is_kept_under_its_key(platform: Platform) -> None:
    """docs.stripe.com/api/idempotent_requests: the first answer again, also when it was a refusal"""
    params = {"amount": 99_999_999, "currency": "usd", "destination": platform.may_receive()}
    for replayed in (None, "true"):
        error = await platform.refused(
            platform.v1.transfers.create_async(params, {"idempotency_key": f"{platform.mark}:poor"})
        )
        headers = {name.lower(): value for name, value in error.headers.items()}
        assert (error.code, headers.get("idempotent-replayed")) == ("balance_insufficient", replayed)


async def test_a_transfer_is_in_the_settlement_currency(platform: Platform) -> None:
    """docs.stripe.com/connect/separate-charges-and-transfers (source_transaction and currency)"""
    platform.may_receive()
    taken = await platform.paid()
    other = "eur" if taken.latest_charge.balance_transaction.currency != "eur" else "gbp"
    error = await platform.refused(sent(platform, taken, 100, currency=other))
    assert "must be the same as the transfer currency" in str(error.user_message)


async def test_a_hold_cannot_be_transferred(platform: Platform) -> None:
    """docs.stripe.com/connect/separate-charges-and-transfers: the charge must have been captured"""
    held = await platform.hold()
    params = {
        "amount": 100,
        "currency": "usd",
        "source_transaction": held.latest_charge,
        "destination": platform.may_receive(),
    }
    assert (await platform.refused(platform.v1.transfers.create_async(params))).http_status == 400


async def test_the_destination_needs_the_transfers_capability(platform: Platform) -> None:
    """docs.stripe.com/connect/account-capabilities#transfers"""
    taken = await platform.paid()
    error = await platform.refused(sent(platform, taken, 100, destination=platform.may_not_receive()))
    assert (error.http_status, error.code) == (400, "insufficient_capabilities_for_transfer")


async def test_reversals_in_parts_and_never_more(platform: Platform) -> None:
    """docs.stripe.com/api/transfer_reversals/create"""
    platform.may_receive()
    transfer = await sent(platform, await platform.paid(), 4_000)
    first = await platform.v1.transfers.reversals.create_async(transfer.id, {"amount": 1_000})
    assert (first.amount, first.transfer) == (1_000, transfer.id)
    assert (
        await platform.refused(platform.v1.transfers.reversals.create_async(transfer.id, {"amount": 3_001}))
    ).http_status == 400
    await platform.v1.transfers.reversals.create_async(transfer.id)
    after = await platform.v1.transfers.retrieve_async(transfer.id)
    assert (after.reversed, after.amount_reversed) == (True, 4_000)


async def test_refunds_in_parts_and_never_more(platform: Platform) -> None:
    """docs.stripe.com/api/refunds/create"""
    taken = await platform.paid(9_000)
    part = await platform.v1.refunds.create_async({"payment_intent": taken.id, "amount": 2_000})
    assert (part.status, part.amount, part.charge) == ("succeeded", 2_000, taken.latest_charge.id)
    error = await platform.refused(platform.v1.refunds.create_async({"payment_intent": taken.id, "amount": 7_001}))
    assert "greater than unrefunded amount" in str(error.user_message)
    await platform.v1.refunds.create_async({"payment_intent": taken.id})
    error = await platform.refused(platform.v1.refunds.create_async({"payment_intent": taken.id}))
    assert error.code == "charge_already_refunded"


async def test_of_a_partial_capture_only_the_captured_part_comes_back(platform: Platform) -> None:
    """docs.stripe.com/changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow"""
    held = await platform.hold(25_500)
    await platform.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 9_000})
    assert (
        await platform.refused(platform.v1.refunds.create_async({"payment_intent": held.id, "amount": 9_001}))
    ).http_status == 400
    assert (await platform.v1.refunds.create_async({"payment_intent": held.id})).amount == 9_000


async def test_a_refund_does_not_reverse_the_transfer(platform: Platform) -> None:
    """docs.stripe.com/connect/separate-charges-and-transfers#issue-refunds"""
    platform.may_receive()
    taken = await platform.paid()
    transfer = await sent(platform, taken, 4_000)
    await platform.v1.refunds.create_async({"payment_intent": taken.id, "amount": 1_000})
    assert (await platform.v1.transfers.retrieve_async(transfer.id)).amount_reversed == 0


async def test_accounts_say_what_they_can_do(platform: Platform) -> None:
    """docs.stripe.com/api/accounts/object"""
    account = await platform.v1.accounts.retrieve_async(platform.may_receive())
    assert account.capabilities.transfers == "active"
    assert isinstance(account.payouts_enabled, bool)
    assert isinstance(account.requirements.currently_due, list)
    assert len(account.country) == 2


async def test_a_foreign_account_is_a_403(platform: Platform) -> None:
    """docs.stripe.com/error-codes#account-invalid"""
    error = await platform.refused(platform.v1.accounts.retrieve_async("acct_1032D82eZvKYlo2C"))
    assert error.http_status == 403


async def test_the_weekly_payout_schedule(platform: Platform) -> None:
    """docs.stripe.com/connect/manage-payout-schedule (Balance Settings)"""
    schedule = {"interval": "weekly", "weekly_payout_days": ["friday"]}
    options = {"stripe_account": platform.may_receive()}
    changed = await platform.v1.balance_settings.update_async(
        {"payments": {"payouts": {"schedule": schedule}}}, options
    )
    assert changed.payments.payouts.schedule.interval == "weekly"
    read = await platform.v1.balance_settings.retrieve_async({}, options)
    assert read.payments.payouts.schedule.weekly_payout_days == ["friday"]


async def test_payouts_are_read_from_the_connected_account(platform: Platform) -> None:
    """docs.stripe.com/connect/payouts-connected-accounts: the account's own objects, by its header"""
    options = {"stripe_account": platform.may_receive()}
    listed = await platform.v1.payouts.list_async({"limit": 3}, options)
    for each in listed.data:
        read = await platform.v1.payouts.retrieve_async(each.id, {}, options)
        assert (read.id, read.object) == (each.id, "payout")
        assert read.status in ("paid", "pending", "in_transit", "canceled", "failed")
    error = await platform.refused(platform.v1.payouts.retrieve_async("po_unknown", {}, options))
    assert (error.http_status, error.code) == (404, "resource_missing")
