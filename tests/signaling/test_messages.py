"""Messages: strict towards clients, bounded, and described by an AsyncAPI document of the same models."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.signaling.messages import (
    CLIENT_MESSAGES,
    MAX_MESSAGE_BYTES,
    SERVER_MESSAGES,
    BadMessage,
    Close,
    Description,
    Ended,
    Hello,
    Meter,
    Peer,
    Ping,
    Stats,
    Summary,
    asyncapi,
    parse,
)

ON = {"audio": True, "video": False}
GENERATION = {"mine": 1, "peer": 1, "transport": 1}
JWK = {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "B" * 43}
HELLO: dict[str, Any] = {"type": "hello", "token": "t", "media": ON}
DESCRIPTION: dict[str, Any] = {"type": "description", "sdp": "v=0\r\n", "kind": "offer", "generation": GENERATION}
GOOD: list[dict[str, Any]] = [
    HELLO,
    {
        "type": "hello", "token": "t", "resume": None, "proof": None, "key": JWK, "sdk": "parley-js/1",
        "capabilities": ["sas"], "media": ON, "generation": None,
        "consent": {"text_version": "1", "locale": "en", "amount_max": 25500},
    },
    {"type": "hello", "resume": "r", "proof": "A" * 86, "media": ON, "generation": GENERATION, "consent": None},
    DESCRIPTION,
    {**DESCRIPTION, "kind": "answer", "number": 3},
    {"type": "rollback", "generation": GENERATION},
    {"type": "sas", "step": "commit", "value": "A" * 128},
    {"type": "media", **ON},
    {"type": "stats"},
    {"type": "stats", "rtt": 0.02, "lost": 3, "jitter": None},
    {"type": "leave"},
    {"type": "rate", "stars": 5},
    {"type": "rate", "stars": 1, "comment": "Thanks", "parameters": {"clarity": 4}},
    {"type": "continue"},
    {"type": "ping", "t": 1},
    {"type": "ping", "t": 12.5},
]  # fmt: skip
BAD: list[Any] = [
    None,
    [],
    "ping",
    {},
    {"type": "nope"},
    {"type": "welcome"},
    {"type": "leave", "now": True},
    {"type": "hello", "media": ON},
    {**HELLO, "resume": "r"},
    {"type": "hello", "resume": "r", "key": JWK, "media": ON},
    {**HELLO, "key": {**JWK, "d": "C" * 43}},
    {**HELLO, "key": {**JWK, "crv": "P-384"}},
    {**HELLO, "token": "t" * 2049},
    {**HELLO, "media": {"audio": 1, "video": 0}},
    {**HELLO, "capabilities": ["x"] * 17},
    {**HELLO, "capabilities": ["<script>"]},
    {**HELLO, "consent": {"text_version": "1", "locale": "en", "amount_max": -1}},
    {**DESCRIPTION, "kind": "pranswer"},
    {**DESCRIPTION, "sdp": ""},
    {**DESCRIPTION, "generation": None},
    {**DESCRIPTION, "generation": {**GENERATION, "mine": -1}},
    {**DESCRIPTION, "generation": {**GENERATION, "mine": 1.5}},
    {**DESCRIPTION, "generation": {**GENERATION, "mine": 10**12}},
    {**DESCRIPTION, "number": "1"},
    {"type": "sas", "step": "commit", "value": "A" * 129},
    {"type": "sas", "step": "commit", "value": "chat message!"},
    {"type": "sas", "step": "chat", "value": "AAAA"},
    {"type": "stats", "rtt": "fast"},
    {"type": "stats", "rtt": {"a": 1}},
    {"type": "stats", "rtt": True},
    {"type": "stats", **{f"n{number}": 0.123456789 for number in range(200)}},
    {"type": "rate", "stars": 6},
    {"type": "rate", "stars": 5, "comment": "x" * 2001},
    {"type": "rate", "stars": 5, "parameters": {"clarity": 9}},
    {"type": "ping"},
    {"type": "ping", "t": "1"},
    {"type": "ping", "t": 10**400},
]


def bad(text: str) -> BadMessage:
    with pytest.raises(BadMessage) as error:
        parse(text)
    return error.value


@pytest.mark.parametrize("message", GOOD, ids=json.dumps)
def test_messages_of_the_protocol_are_taken(message: dict[str, Any]) -> None:
    assert parse(json.dumps(message)).type == message["type"]


@pytest.mark.parametrize("message", BAD, ids=lambda message: json.dumps(message)[:60])
def test_all_else_is_bad_and_not_fatal(message: Any) -> None:
    error = bad(json.dumps(message))
    assert (error.code, error.fatal) == ("bad_message", False)


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"type":"ping","t":NaN}', '{"type":"ping","t":1}x', "[" * 60_000])
def test_broken_json_is_bad(text: str) -> None:
    assert bad(text).code == "bad_message"


@given(st.text())
def test_any_text_is_a_message_or_bad(text: str) -> None:
    assert bad(text).code == "bad_message"


def test_errors_never_repeat_what_was_sent() -> None:
    secret = "s3cret" * 400
    assert "s3cret" not in bad(json.dumps({**HELLO, "token": secret})).message


@pytest.mark.parametrize("letter", ["x", "€"])
def test_64_kib_are_counted_in_bytes(letter: str) -> None:
    size = len(letter.encode())
    frame = json.dumps({**DESCRIPTION, "sdp": ""}, ensure_ascii=False)
    fitting = (MAX_MESSAGE_BYTES - len(frame)) // size
    text = json.dumps({**DESCRIPTION, "sdp": letter * fitting}, ensure_ascii=False)
    assert isinstance(parse(text), Description)
    error = bad(json.dumps({**DESCRIPTION, "sdp": letter * (fitting + 1)}, ensure_ascii=False))
    assert (error.code, error.fatal, error.close) == ("too_large", True, Close.REFUSED_FRAME)


def test_stats_are_flat_numbers() -> None:
    stats = parse('{"type":"stats","rtt":0.02,"lost":3,"jitter":null}')
    assert isinstance(stats, Stats)
    assert stats.numbers == {"rtt": 0.02, "lost": 3}


def test_a_ping_comes_back_as_it_was() -> None:
    ping = parse('{"type":"ping","t":1}')
    assert isinstance(ping, Ping)
    assert json.dumps(ping.t) == "1"


def test_secrets_of_hello_and_defaults() -> None:
    hello = parse(json.dumps(HELLO))
    assert isinstance(hello, Hello)
    assert (hello.generation, hello.capabilities, hello.key) == (None, [], None)


def test_fields_of_one_role_are_left_out_for_the_other() -> None:
    meter = Meter(elapsed=61, billable=1, remaining=5339, billing="running", currency="usd", cost=5)
    assert "earnings" not in json.loads(meter.text())
    peer = json.loads(Peer(state="absent", generation=parse_generation()).text())
    assert peer["media"] is None
    assert "replaced" not in peer


def parse_generation() -> Any:
    description = parse(json.dumps(DESCRIPTION))
    assert isinstance(description, Description)
    return description.generation


def test_the_summary_says_continue() -> None:
    summary = Summary(
        billable_seconds=60, free_seconds=300, duration_seconds=360, amount_total=300, currency="usd", may_continue=True
    )
    sent = json.loads(Ended(reason="client_left", summary=summary).text())
    assert sent["summary"]["continue"] is True
    assert sent["summary"]["receipt_url"] is None
    assert "amount_expert" not in sent["summary"]


def test_every_close_code_has_a_meaning() -> None:
    assert all(code.meaning for code in Close)
    assert {code.value for code in Close} == {1001, 1013, *range(4000, 4007)}


# The document


def resolved(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for part in value.values() for found in references(part)]
    return [found for part in value for found in references(part)] if isinstance(value, list) else []


def schema_of(document: dict[str, Any], name: str) -> Draft202012Validator:
    message = document["components"]["messages"][name]
    return Draft202012Validator({**message["payload"], "components": document["components"]})


def test_the_document_is_complete_json_and_refers_to_itself_only() -> None:
    document = asyncapi()
    assert json.loads(json.dumps(document)) == document
    assert document["asyncapi"] == "3.1.0"
    for reference in references(document):
        assert resolved(document, reference) is not None
    messages = {name: message["name"] for name, message in document["components"]["messages"].items()}
    for model in (*CLIENT_MESSAGES, *SERVER_MESSAGES):
        assert messages[model.__name__] == get_args(model.model_fields["type"].annotation)[0]
        assert document["components"]["messages"][model.__name__]["summary"]


@pytest.mark.parametrize("message", GOOD, ids=json.dumps)
def test_the_documents_schemas_take_what_we_take(message: dict[str, Any]) -> None:
    model = type(parse(json.dumps(message))).__name__
    schema_of(asyncapi(), model).validate(message)


def test_the_documents_schemas_fit_what_we_send() -> None:
    meter = Meter(elapsed=61, billable=1, remaining=5339, billing="running", currency="usd", cost=5)
    schema_of(asyncapi(), "Meter").validate(json.loads(meter.text()))
    schema_of(asyncapi(), "Peer").validate(json.loads(Peer(state="absent", generation=parse_generation()).text()))
