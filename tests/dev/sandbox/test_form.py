"""Stripe's form encoding (docs.stripe.com/api)."""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dev.sandbox import form
from gateway.dev.sandbox.refusals import Refusal
from tests.dev.sandbox.conftest import flat

NAMES = st.text("abcdefghij_", min_size=1, max_size=8)
VALUES = st.text(max_size=12)
TREES = st.recursive(VALUES, lambda children: st.dictionaries(NAMES, children, min_size=1, max_size=3), max_leaves=8)


@settings(deadline=None)
@given(st.dictionaries(NAMES, TREES, max_size=4))
def test_what_the_sdk_encodes_is_read_back(tree: dict[str, object]) -> None:
    assert form.decode(urlencode(flat(tree))) == tree


def test_lists_count_their_places_with_and_without_numbers() -> None:
    assert form.decode("expand[0]=a&expand[1]=b") == {"expand": {"0": "a", "1": "b"}}
    assert form.decode("expand[]=a&expand[]=b") == {"expand": {"0": "a", "1": "b"}}


@pytest.mark.parametrize("text", ["a[b=1", "[x]=1", "a]b=1", "a[b]c=1"])
def test_ill_formed_names_are_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        form.decode(text)
    assert caught.value.stripe_code == "parameter_unknown"


def test_a_value_and_an_object_under_one_name_are_refused() -> None:
    with pytest.raises(Refusal):
        form.decode("metadata=x&metadata[a]=y")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_body_can_do_worse_than_be_refused(text: str) -> None:
    with contextlib.suppress(Refusal):
        assert isinstance(form.decode(text), dict)
