"""Descriptions are refused for what breaks the seal, and rewritten in their transport lines only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sfu.port import Candidate, Credentials
from gateway.signaling import sdp
from gateway.signaling.sdp import Kind, SdpError, rewrite, transport_of, validate

DATA = Path(__file__).parents[1] / "data" / "sdp"
RECORDED = {path.stem: path.read_bytes().decode() for path in sorted(DATA.glob("*.sdp"))}
# aiortc offers its certificate under three hashes, which a page could not tell from three certificates.
ACCEPTED = {name: text for name, text in RECORDED.items() if not name.startswith("aiortc")}
OURS = Credentials("gateUfrag", "gatePasswordOf26Characters")
CANDIDATES = (
    Candidate("203.0.113.5", 3478),
    Candidate("2001:db8::5", 3478, priority=2130706175),
    Candidate("203.0.113.5", 3478, "tcp", priority=1671430143),
)
AUDIO = RECORDED["chromium-audio-offer"]
VIDEO = RECORDED["chromium-audio-video-offer"]
ANSWER = RECORDED["chromium-audio-video-answer"]
OTHER_PRINT = "sha-256 " + ":".join(["0A"] * 32)


def kind_of(name: str) -> Kind:
    return "offer" if name.endswith("offer") else "answer"


def refused(text: str, kind: Kind = "offer") -> str:
    with pytest.raises(SdpError) as error:
        validate(text, kind)
    return error.value.code


def attributes(text: str, name: str) -> list[str]:
    return re.findall(rf"^a={name}(?::(.*?))?\r?$", text, re.MULTILINE)


def sections(text: str) -> list[str]:
    return re.split(r"^(?=m=)", text, flags=re.MULTILINE)


def untouched(text: str) -> list[str]:
    """The lines that no rewriting may touch, with their ends; of those it edits, what has to stay."""
    kept = []
    for line in text.splitlines(keepends=True):
        if re.match(r"a=(candidate|remote-candidates|rtcp|end-of-candidates|ice-lite|ice-options)[:\r\n]", line):
            continue
        line = re.sub(r"^(o=\S+ \S+ \S+) .*\S", r"\1", line)
        line = re.sub(r"^c=.*\S", "c=", line)
        line = re.sub(r"^(m=\w+) [1-9]\d* ", r"\1 * ", line)
        kept.append(re.sub(r"^(a=ice-(?:ufrag|pwd):).*\S", r"\1", line))
    return kept


@pytest.mark.parametrize("name", ACCEPTED)
def test_descriptions_of_browsers_are_valid(name: str) -> None:
    validate(ACCEPTED[name], kind_of(name))


@pytest.mark.parametrize("name", RECORDED)
def test_only_transport_lines_differ(name: str) -> None:
    before, after = RECORDED[name], rewrite(RECORDED[name], OURS, CANDIDATES)
    assert untouched(before) == untouched(after)


@pytest.mark.parametrize("name", ACCEPTED)
def test_law7_nothing_of_the_callers_network_passes(name: str) -> None:
    before, after = ACCEPTED[name], rewrite(ACCEPTED[name], OURS, CANDIDATES)
    theirs = transport_of(before)
    assert theirs.ufrag not in attributes(after, "ice-ufrag")
    assert theirs.pwd not in after
    for candidate in attributes(before, "candidate"):
        assert candidate not in after
    addresses = {candidate.address for candidate in CANDIDATES}
    assert {line.split()[4] for line in attributes(after, "candidate")} <= addresses
    assert set(re.findall(r"^c=IN IP\d (\S+)", after, re.MULTILINE)) <= {CANDIDATES[0].address}
    assert re.findall(r"^o=.* IN (IP4 \S+)\r?$", after, re.MULTILINE) == ["IP4 0.0.0.0"]
    assert not attributes(after, "rtcp")
    assert not attributes(after, "remote-candidates")


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_other_side_finds_us_and_the_callers_certificate(name: str) -> None:
    before, after = ACCEPTED[name], rewrite(ACCEPTED[name], OURS, CANDIDATES)
    assert transport_of(after).credentials == OURS
    assert transport_of(after).fingerprint == transport_of(before).fingerprint
    assert transport_of(after).setup == transport_of(before).setup
    assert attributes(sections(after)[0], "ice-lite") == [""]


@pytest.mark.parametrize("name", ACCEPTED)
def test_rewriting_twice_is_rewriting_once(name: str) -> None:
    once = rewrite(ACCEPTED[name], OURS, CANDIDATES)
    assert rewrite(once, OURS, CANDIDATES) == once


def test_our_candidates_stand_in_every_live_section_and_are_complete() -> None:
    after = rewrite(RECORDED["chromium-rejected-stopped-offer"], OURS, CANDIDATES)
    _, audio, stopped = sections(after)
    assert attributes(audio, "candidate") == [candidate.line()[len("candidate:") :] for candidate in CANDIDATES]
    assert audio.endswith("a=end-of-candidates\r\n")
    assert stopped.startswith("m=video 0 ")
    assert not attributes(stopped, "candidate")


def test_bundle_only_sections_keep_port_0_and_are_live() -> None:
    after = rewrite(RECORDED["firefox-max-bundle-offer"], OURS, CANDIDATES)
    _, audio, video, data = sections(after)
    assert [part.split()[1] for part in (audio, video, data)] == ["3478", "0", "0"]
    assert all(len(attributes(part, "candidate")) == 3 for part in (audio, video, data))


def test_ports_and_addresses_follow_the_first_candidate() -> None:
    after = rewrite(AUDIO, OURS, [Candidate("2001:db8::9", 443)])
    assert "m=audio 443 " in after
    assert "\r\nc=IN IP6 2001:db8::9\r\n" in after


def test_without_candidates_nothing_is_promised() -> None:
    after = rewrite(AUDIO, OURS, [])
    assert "m=audio 9 " in after
    assert "\r\nc=IN IP4 0.0.0.0\r\n" in after


def test_only_known_ice_options_pass() -> None:
    after = rewrite(RECORDED["libwebrtc-app-handwritten-answer"], OURS, CANDIDATES)
    assert attributes(after, "ice-options") == ["trickle"]
    assert attributes(after, "tls-id") == ["91bbf309c0990a6bec11e38ba2933cee"]
    alone = AUDIO.replace("a=ice-options:trickle", "a=ice-options:renomination")
    assert not attributes(rewrite(alone, OURS, CANDIDATES), "ice-options")
    both = AUDIO.replace("a=ice-options:trickle", "a=ice-options:ice2 trickle")
    assert attributes(rewrite(both, OURS, CANDIDATES), "ice-options") == ["ice2 trickle"]


def test_line_ends_stay_as_they_are() -> None:
    assert "\r" not in rewrite(AUDIO.replace("\r\n", "\n"), OURS, CANDIDATES)
    assert rewrite(AUDIO.removesuffix("\r\n"), OURS, CANDIDATES) == rewrite(AUDIO, OURS, CANDIDATES)


def test_transport_of_takes_session_level_attributes_where_the_section_has_none() -> None:
    transport = transport_of(RECORDED["firefox-audio-offer"])
    assert transport.fingerprint == attributes(RECORDED["firefox-audio-offer"], "fingerprint")[0][8:]
    assert transport.setup == "actpass"
    assert repr(transport).count(transport.pwd) == 0


def test_fingerprints_compare_without_regard_to_case() -> None:
    lower = transport_of(RECORDED["libwebrtc-app-handwritten-answer"]).fingerprint
    assert lower == transport_of(RECORDED["safari-handwritten-offer"]).fingerprint


@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("aiortc")])
def test_aiortc_has_to_leave_out_its_other_hashes(name: str) -> None:
    assert refused(RECORDED[name], kind_of(name)) == "bad_fingerprint"
    validate(re.sub(r"a=fingerprint:sha-(384|512) .*\r\n", "", RECORDED[name]), kind_of(name))


def without(text: str, pattern: str) -> str:
    return re.sub(rf"^{pattern}.*\r\n", "", text, flags=re.MULTILINE)


PRINT_LINE = "a=fingerprint:" + attributes(VIDEO, "fingerprint")[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("", "bad_sdp", id="empty"),
        pytest.param("hello", "bad_sdp", id="no sdp"),
        pytest.param("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "bad_sdp", id="no media"),
        pytest.param(VIDEO.replace("v=0", "v=1"), "bad_sdp", id="version"),
        pytest.param(without(VIDEO, "o="), "bad_sdp", id="no origin"),
        pytest.param(VIDEO.replace("m=video 9", "m=text 9"), "bad_sdp", id="unknown media"),
        pytest.param(VIDEO.replace("m=video 9", "m=video 70000"), "bad_sdp", id="port"),
        pytest.param(VIDEO.replace("m=video 9", "m=video 9/2"), "bad_sdp", id="port count"),
        pytest.param(VIDEO.replace("UDP/TLS/RTP/SAVPF", "RTP/AVPF"), "bad_sdp", id="plain RTP"),
        pytest.param(without(VIDEO, "a=ice-ufrag"), "bad_sdp", id="no ufrag"),
        pytest.param(without(VIDEO, "a=ice-pwd"), "bad_sdp", id="no password"),
        pytest.param(without(VIDEO, "a=setup"), "bad_sdp", id="no setup"),
        pytest.param(VIDEO.replace("a=setup:actpass", "a=setup:holdconn"), "bad_sdp", id="setup"),
        pytest.param(re.sub("a=ice-ufrag:.*", "a=ice-ufrag:a b", VIDEO), "bad_sdp", id="ufrag"),
        pytest.param(re.sub("a=ice-pwd:.*\r", "a=ice-pwd:short\r", VIDEO), "bad_sdp", id="password"),
        pytest.param(re.sub("a=ice-ufrag:.*\r", "a=ice-ufrag:other\r", VIDEO, count=1), "bad_sdp", id="two ufrags"),
        pytest.param(VIDEO.replace("a=mid:1", "a=mid:0"), "bad_sdp", id="two sections of one name"),
        pytest.param(VIDEO.replace("a=sendrecv", "a=\x00sendrecv"), "bad_sdp", id="NUL"),
        pytest.param(VIDEO.replace("a=rtcp-rsize", "a=rtcp-rsize\ra=x"), "bad_sdp", id="lone CR"),
        pytest.param(VIDEO.replace("a=rtcp-rsize", "a=x\u2028a=y"), "bad_sdp", id="line separator"),
        pytest.param(VIDEO.replace("a=rtcp-rsize", " a=rtcp-rsize"), "bad_sdp", id="indented line"),
        pytest.param(VIDEO.replace("a=candidate", "a=Candidate"), "bad_sdp", id="disguised candidate"),
        pytest.param(VIDEO.replace("a=fmtp:111", "a=fmtp:55"), "bad_sdp", id="format without map"),
        pytest.param(VIDEO + "a=x:" + "y" * 3000 + "\r\n", "bad_sdp", id="long line"),
        pytest.param(VIDEO + "a=x\r\n" * 2000, "bad_sdp", id="many lines"),
        pytest.param(VIDEO + ("a=x:" + "y" * 2000 + "\r\n") * 30, "bad_sdp", id="large"),
        pytest.param(VIDEO + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n" * 20, "bad_sdp", id="many sections"),
        pytest.param(without(VIDEO, "a=group"), "no_bundle", id="no group"),
        pytest.param(VIDEO.replace("BUNDLE 0 1", "BUNDLE 0"), "no_bundle", id="section outside"),
        pytest.param(VIDEO.replace("BUNDLE 0 1", "BUNDLE 0 1 2"), "no_bundle", id="unknown section"),
        pytest.param(VIDEO.replace("BUNDLE 0 1", "LS 0 1"), "no_bundle", id="other group"),
        pytest.param(VIDEO.replace("t=0 0", "t=0 0\r\na=group:BUNDLE 0"), "no_bundle", id="two groups"),
        pytest.param(without(VIDEO, "a=mid"), "no_bundle", id="no mid"),
        pytest.param(re.sub("^m=(.*?) 9", r"m=\1 0", VIDEO, flags=re.M), "no_bundle", id="nothing live"),
        pytest.param(without(VIDEO, "a=rtcp-mux"), "no_rtcp_mux", id="no mux"),
        pytest.param(VIDEO.replace("a=rtcp-mux", "a=rtcp-mux-not", 1), "no_rtcp_mux", id="mux in one section only"),
        pytest.param(without(VIDEO, "a=fingerprint"), "bad_fingerprint", id="no fingerprint"),
        pytest.param(VIDEO.replace("fingerprint:sha-256", "fingerprint:sha-1"), "bad_fingerprint", id="sha-1"),
        pytest.param(VIDEO.replace("fingerprint:sha-256 ", "fingerprint:sha-256  "), "bad_fingerprint", id="blanks"),
        pytest.param(re.sub(r"(fingerprint:.*):..\r", r"\1\r", VIDEO), "bad_fingerprint", id="31 bytes"),
        pytest.param(VIDEO.replace(PRINT_LINE, f"a=fingerprint:{OTHER_PRINT}", 1), "bad_fingerprint", id="swapped"),
        pytest.param(
            VIDEO.replace(PRINT_LINE, f"a=fingerprint:{OTHER_PRINT}\r\n{PRINT_LINE}"), "bad_fingerprint", id="before"
        ),
        pytest.param(
            VIDEO.replace(PRINT_LINE, f"{PRINT_LINE}\r\na=fingerprint:{OTHER_PRINT}"), "bad_fingerprint", id="after"
        ),
        pytest.param(
            VIDEO.replace("t=0 0", f"t=0 0\r\na=fingerprint:{OTHER_PRINT}"), "bad_fingerprint", id="levels differ"
        ),
        pytest.param(VIDEO.replace("a=mid:1", "a=mid:1\r\na=Fingerprint:sha-256 0A"), "bad_sdp", id="disguised print"),
        pytest.param(
            VIDEO.replace("a=mid:0", "a=mid:0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc"),
            "sdes_refused",
            id="SDES",
        ),
        pytest.param(VIDEO.replace("a=mid:0", "a=mid:0\r\na=CRYPTO:1 x"), "sdes_refused", id="SDES disguised"),
        pytest.param(VIDEO.replace("a=mid:0", "a=mid:0\r\na=key-mgmt:mikey AQ"), "sdes_refused", id="MIKEY"),
        pytest.param(VIDEO.replace("t=0 0", "t=0 0\r\nk=clear:abc"), "sdes_refused", id="k line"),
        pytest.param(VIDEO.replace("t=0 0", "t=0 0\r\na=ice-lite"), "ice_lite_refused", id="ice-lite"),
    ],
)
def test_r09_what_breaks_the_seal_is_refused_with_a_code(text: str, code: str) -> None:
    assert refused(text) == code


def test_an_offer_is_no_answer() -> None:
    assert refused(VIDEO, "answer") == "bad_sdp"
    validate(ANSWER, "answer")


@pytest.mark.parametrize("text", ["", "x", "m=", "v=0\r\n", "v=0\r\nm=audio\r\n", "m=audio 9\n" * 3, AUDIO[:100]])
def test_transport_of_broken_text_is_refused(text: str) -> None:
    with pytest.raises(SdpError):
        transport_of(text)


def test_media_is_the_same_after_an_ice_restart_only() -> None:
    restart = RECORDED["chromium-audio-restart-offer"]
    assert sdp.same_media(AUDIO, restart)
    assert not sdp.same_media(AUDIO, RECORDED["chromium-switch-video-offer"])
    assert not sdp.same_media(restart, restart.replace("a=sendrecv", "a=recvonly"))
    stopped = RECORDED["chromium-rejected-stopped-offer"]
    assert not sdp.same_media(stopped, stopped)


def test_an_offer_in_answer_form_has_the_running_role_and_real_ports() -> None:
    offer = RECORDED["firefox-max-bundle-offer"]
    answer = sdp.as_answer(offer, "passive", offer)
    validate(answer, "answer")
    assert set(attributes(answer, "setup")) == {"passive"}
    assert not attributes(answer, "bundle-only")
    assert [part.split()[1] for part in sections(answer)[1:]] == ["9", "9", "9"]


def test_an_answer_form_is_no_wider_than_the_offer() -> None:
    asked = VIDEO.replace("a=sendrecv", "a=recvonly", 1).replace("a=sendrecv", "a=sendonly", 1)
    asked = without(asked, "a=extmap:3 ")
    answer = sdp.as_answer(VIDEO, "active", asked)
    _, audio, video = sections(answer)
    assert ("a=sendonly" in audio, "a=recvonly" in video) == (True, True)
    assert "transport-wide-cc" in VIDEO
    assert "transport-wide-cc" not in answer
    opposed = sdp.as_answer(asked, "active", asked)
    assert [line for line in opposed.splitlines() if line.endswith(("only", "inactive"))] == ["a=inactive"] * 2


NASTY = st.sampled_from(
    [
        "m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=audio", "m= ", "m=video 0 UDP/TLS/RTP/SAVPF 96", "a=mid:0", "a=mid",
        "a=group:BUNDLE", "a=group:", "a=ice-ufrag:", "a=ice-ufrag", "a=fingerprint:", "a=fingerprint", "a=setup",
        "a=candidate:", "a=candidate:1 1 udp x y z", "a=rtcp:x", "a=extmap:x y", "a=fmtp:1", "a=ssrc:1", "a=rtpmap:96",
        "a=bundle-only", "a=ice-lite", "c=IN IP4", "c=", "o=-", "v=", "k=", "a=sctp-port:x", "a=rtcp-fb:*", "a=", "",
    ]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["delete", "double", "swap", "insert", "garble"]),
        st.integers(0, 10_000),
        st.one_of(NASTY, st.text(max_size=30)),
    ),
    min_size=1,
    max_size=4,
)


def mutated(text: str, edits: list[tuple[str, int, str]]) -> str:
    lines = text.splitlines(keepends=True)
    for how, where, extra in edits:
        at = where % max(1, len(lines))
        if how == "delete":
            del lines[at : at + 1]
        elif how == "double":
            lines[at:at] = lines[at : at + 1]
        elif how == "swap":
            lines[at : at + 2] = reversed(lines[at : at + 2])
        elif how == "insert":
            lines.insert(at, extra + "\r\n")
        elif lines:
            cut = where % max(1, len(lines[at]))
            lines[at] = lines[at][:cut] + extra + lines[at][cut:]
    return "".join(lines)


@settings(deadline=None)
@given(st.sampled_from(sorted(ACCEPTED)), EDITS)
def test_law7_mutated_descriptions_are_refused_or_sealed(name: str, edits: list[tuple[str, int, str]]) -> None:
    text = mutated(ACCEPTED[name], edits)
    try:
        validate(text, kind_of(name))
    except SdpError:
        return
    after = rewrite(text, OURS, CANDIDATES)
    assert untouched(text.removesuffix("\n").removesuffix("\r") + "\r\n") == untouched(after)
    assert transport_of(after).credentials == OURS
    assert transport_of(after).fingerprint == transport_of(text).fingerprint
    assert {line.split()[4] for line in attributes(after, "candidate")} <= {one.address for one in CANDIDATES}
    assert rewrite(after, OURS, CANDIDATES) == after


@given(st.text())
def test_any_text_is_refused_with_a_code(text: str) -> None:
    assert refused(text) in {"bad_sdp", "sdes_refused"}
