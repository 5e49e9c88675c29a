"""A session in three parts: the one for bookkeeping holds no personal data, and all make the session again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.archive.snapshot import BLANK_PERSON, Snapshot, divided, erased, joined, mark

# Words that occur nowhere else in a record, so that one that is found has leaked.
words = st.text("äöüQXZ#", min_size=6, max_size=12)
people = st.fixed_dictionaries({"name": words, "email": words, "locale": st.just("en"), "timezone": st.none()})
ratings = st.fixed_dictionaries({"stars": st.integers(1, 5), "comment": st.none() | words})


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    rated = draw(st.dictionaries(st.sampled_from(["client", "expert"]), ratings))
    events: list[dict[str, Any]] = [{"id": "evt_1", "type": "session.created", "data": {}, "sequence": 1}]
    events += [
        {"id": f"evt_{role}", "type": "session.rated", "data": {"by": role, **rating}, "sequence": n + 2}
        for n, (role, rating) in enumerate(rated.items())
    ]
    steps = [{"params": draw(st.sampled_from([{}, {"amount": 1}])) | extra} for extra in draw(st.lists(_suffixes()))]
    docs = {
        "session": (draw(st.integers(1, 9)), {"id": "ses_1", "ratings": rated}),
        "payment": (3, {"steps": steps}),
        "people": (1, {"schema": 1, "client": draw(people), "expert": draw(people)}),
    }
    rows = draw(st.dictionaries(st.sampled_from(["1:a:1", "1:a:2"]), st.just("0:1")))
    return Snapshot("ses_1", docs, tuple(events), {"epoch": "1"}, rows, {"c:whe_1": "3"})


def _suffixes() -> st.SearchStrategy[dict[str, Any]]:
    return st.just({}) | st.fixed_dictionaries({"statement_descriptor_suffix": words})


@given(snapshots())
def test_the_parts_make_the_session_again(snapshot: Snapshot) -> None:
    parts = divided(snapshot)
    assert joined("ses_1", parts.money, parts.personal, parts.ticks) == snapshot


@given(snapshots())
def test_r22_no_personal_word_stands_in_the_money_part(snapshot: Snapshot) -> None:
    parts = divided(snapshot)
    told = json.dumps([parts.money, parts.ticks], ensure_ascii=False)
    assert not set("äöüQXZ#") & set(told)
    assert all(parts.personal.values()), "each side's personal data stand by themselves"


@given(snapshots(), st.sampled_from(["client", "expert"]))
def test_r22_erasing_one_side_leaves_the_other_and_all_figures(snapshot: Snapshot, role: Any) -> None:
    after, other = erased(snapshot, role), "expert" if role == "client" else "client"
    assert divided(after).personal[role] == {}
    assert divided(after).personal[other] == divided(snapshot).personal[other]  # type: ignore[index]
    assert divided(after).money["docs"]["session"] == divided(snapshot).money["docs"]["session"]
    assert after.docs["people"][1][role] == BLANK_PERSON
    assert after.versions == snapshot.versions
    assert erased(after, role) == after


@given(snapshots())
def test_rows_that_are_gone_are_remembered_as_gone(snapshot: Snapshot) -> None:
    parts = divided(snapshot)
    later = joined("ses_1", parts.money, parts.personal, None)
    assert (later.rows_dropped, snapshot.rows_dropped, later.usage) == (True, False, {})
    assert later.docs == snapshot.docs


def test_a_mark_shows_a_change_and_hides_the_rest() -> None:
    assert mark("salt", {"a": 1}) == mark("salt", {"a": 1})
    assert len({mark("salt", {"a": 1}), mark("salt", {"a": 2}), mark("other", {"a": 1})}) == 3
