"""The page behind a receipt's link that opens nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.noreceipt import WORDS, page, preferred


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("*", "en"),
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("en;q=0.3, de-CH;q=0.7", "de"),
        ("it-IT, es;q=0.5", "es"),
        ("fr;q=0, es;q=0.1", "es"),
        ("fr;q=x", "en"),
    ],
)
def test_the_reader_is_answered_in_the_language_that_the_browser_prefers(header: str, language: str) -> None:
    assert preferred(header) == language
    assert f'<html lang="{language}">' in page(header)
    assert WORDS[language][0] in page(header)


@given(st.text())
def test_whatever_the_header_says_there_is_a_page(header: str) -> None:
    assert preferred(header) in WORDS
