"""The store: all or nothing, kept on disk, and forgetting what may be forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dev.sandbox.store import SavedAnswer, Store


def test_an_exception_takes_everything_back() -> None:
    store = Store(None)

    def fail_halfway() -> None:
        with store.transaction():
            store.put({"id": "cus_1", "object": "customer", "created": 1})
            store.enter("txn_1", "", "usd", 100, 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert store.get("customer", "cus_1") is None
    assert store.balance("", 1) == {}
    store.close()


def test_a_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    store = Store(path)
    store.put({"id": "cus_1", "object": "customer", "created": 1, "email": "a@example.com"})
    store.close()
    again = Store(path)
    assert [doc["id"] for doc in again.find("customer", where={"email": "a@example.com"})] == ["cus_1"]
    again.close()


def test_objects_stay_in_their_account_and_kind() -> None:
    store = Store(None)
    store.put({"id": "ch_1", "object": "charge", "created": 1}, "acct_1")
    assert store.get("charge", "ch_1") is None
    assert store.get("refund", "ch_1", None) is None
    assert store.get("charge", "ch_1", None) == store.get("charge", "ch_1", "acct_1")
    store.close()


def test_a_change_keeps_the_place_in_the_list() -> None:
    store = Store(None)
    for ident in ("cus_1", "cus_2"):
        store.put({"id": ident, "object": "customer", "created": 1})
    store.put({"id": "cus_1", "object": "customer", "created": 1, "email": "b@example.com"})
    assert [doc["id"] for doc in store.find("customer")] == ["cus_2", "cus_1"]
    store.close()


def test_old_keys_and_events_are_forgotten() -> None:
    store = Store(None)
    now = 1_700_000_000
    store.save("", "old", SavedAnswer("POST /", "x", 200, b"", "req_1", now - 3 * 86_400))
    store.save("", "new", SavedAnswer("POST /", "x", 200, b"", "req_2", now - 86_400))
    store.put({"id": "evt_1", "object": "event", "created": now - 31 * 86_400})
    store.put({"id": "ch_1", "object": "charge", "created": now - 31 * 86_400})
    store.prune(now)
    assert store.saved("", "old") is None
    assert store.saved("", "new") is not None
    assert (store.count("event"), store.count("charge")) == (0, 1)
    store.close()
