"""SDP: `aiortc.sdp` validates, our own checks refuse what a sealed call cannot have, a line editor rewrites.

The rewriting touches the transport only (RFC 8839): a round trip through a parser would lose what it does not know.
Lines keep their order and bytes otherwise, so that fingerprints, `tls-id`, codecs, simulcast and data channels pass
as the browser wrote them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from aiortc.sdp import SessionDescription

from gateway.errors import CallerError
from gateway.sfu.port import Candidate, Credentials

Kind = Literal["offer", "answer"]

# A call has a handful of sections; Chromium writes about 150 lines and 6 KB for a video section, and lines (an fmtp,
# an ssrc-group) of some hundred characters. Larger numbers would only let a caller burn our time.
MAX_BYTES: Final = 60_000
MAX_LINES: Final = 2000
MAX_LINE: Final = 2048
MAX_SECTIONS: Final = 16

_LINE: Final = re.compile(r"[a-z]=\S.*")
_ORIGIN: Final = re.compile(r"o=\S+ \d+ \d+ IN IP[46] \S+")
# Any of these could be a line end to one parser and text to the next.
_UNCLEAN: Final = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_M_LINE: Final = re.compile(r"m=(audio|video|application) (\d{1,5}) (\S+) \S")
_PROFILES: Final = frozenset(
    {"UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF"}
    | {"UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"}
)
_UFRAG: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839 section 5.4
_PWD: Final = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT: Final = re.compile(r"sha-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})", re.IGNORECASE)
_SETUP: Final = {"offer": frozenset({"actpass", "active", "passive"}), "answer": frozenset({"active", "passive"})}
_DIRECTIONS: Final = frozenset({"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"})
_KEPT_ICE_OPTIONS: Final = frozenset({"trickle", "ice2"})
_NOWHERE: Final = "0.0.0.0"  # noqa: S104
_DROPPED: Final = ("candidate", "remote-candidates", "rtcp", "end-of-candidates", "ice-lite")

_OUR_NAMES: Final = frozenset(
    {
        *_DROPPED,
        "ice-options",
        "ice-ufrag",
        "ice-pwd",
        "fingerprint",
        "setup",
        "rtcp-mux",
        "group",
        "mid",
        "bundle-only",
    }
)

_REASONS: Final = {
    "bad_sdp": "The description is not valid.",
    "no_bundle": "All media has to be in one BUNDLE group.",
    "no_rtcp_mux": "RTCP has to be multiplexed with RTP (a=rtcp-mux).",
    "bad_fingerprint": "All fingerprints have to be there, equal, and sha-256.",
    "sdes_refused": "Keys in the description are refused; use DTLS-SRTP.",
    "ice_lite_refused": "A caller has to be a full ICE agent.",
}


class SdpError(CallerError):
    """A description that is refused; `code` is one of bad_sdp, no_bundle, no_rtcp_mux, bad_fingerprint, sdes_refused,
    ice_lite_refused."""

    code = "bad_sdp"

    def __init__(self, code: str = "bad_sdp") -> None:
        super().__init__(_REASONS[code], code=code)


@dataclass(frozen=True, slots=True)
class Transport:
    """The bundled transport of a description: ICE credentials, DTLS role, and certificate fingerprint (upper case)."""

    credentials: Credentials
    setup: str
    fingerprint: str

    @property
    def ufrag(self) -> str:
        return self.credentials.ufrag

    @property
    def pwd(self) -> str:
        return self.credentials.password


@dataclass(frozen=True, slots=True)
class _Section:
    """One m-section, or the session part (then `m_line` is empty). Lines without their ends."""

    m_line: str
    lines: tuple[str, ...] = field(repr=False)

    def all(self, name: str) -> list[str]:
        """The values of the attribute `name`, "" where it has none; names are case-sensitive (RFC 8866)."""
        flag, prefix = f"a={name}", f"a={name}:"
        return [line[len(prefix) :] for line in self.lines if line == flag or line.startswith(prefix)]

    def has(self, name: str) -> bool:
        return bool(self.all(name))

    @property
    def kind(self) -> str:
        return self.m_line[2:].split(" ", 1)[0]

    @property
    def rejected(self) -> bool:
        """Port 0, unless bundle-only (RFC 9143 section 6)."""
        return self.m_line.split(" ")[1] in ("0", "") and not self.has("bundle-only")

    @property
    def direction(self) -> str:
        """RFC 8866 section 6.7: sendrecv unless said otherwise."""
        return next((line[2:] for line in self.lines if line in _DIRECTIONS), "sendrecv")


def validate(sdp: str, kind: Kind) -> None:
    """Refuse what cannot become a sealed, bundled call. Raises SdpError and nothing else."""
    _check_text(sdp)
    session, media = _sections(sdp)
    _check_shape(session, media)
    _check_secrets((session, *media))
    _check_parses(sdp)
    if session.has("ice-lite") or any(section.has("ice-lite") for section in media):
        raise SdpError("ice_lite_refused")
    _check_bundle(session, media)
    _check_fingerprints((session, *media))
    active = [section for section in media if not section.rejected]
    if any(not section.has("rtcp-mux") for section in active if section.kind != "application"):
        raise SdpError("no_rtcp_mux")
    transport = _transport(session, media)
    _check_one_transport(transport, (session, *active))
    if any(setup not in _SETUP[kind] for section in active for setup in (transport.setup, *section.all("setup"))):
        raise SdpError


def transport_of(sdp: str) -> Transport:
    """The one transport of a bundled description. Raises SdpError if there is none."""
    _check_text(sdp)
    session, media = _sections(sdp)
    if any(len(section.m_line.split(" ")) < 4 for section in media):
        raise SdpError
    return _transport(session, media)


def rewrite(sdp: str, credentials: Credentials, candidates: Sequence[Candidate]) -> str:
    """The description as the other side gets it: its transport is `credentials` at `candidates`, the rest unchanged.

    Changed are the address of `o=` and `c=`, ports of live sections, `ice-ufrag`, `ice-pwd`; removed are candidates,
    `rtcp:`, and ICE options but trickle and ice2; added are `ice-lite` and our candidates, which are complete.
    """
    lines = sdp.splitlines(keepends=True)
    if lines:
        lines[-1] = lines[-1].rstrip("\r\n") + _end_of(lines[0])
    return "".join(_rewritten(lines, credentials, candidates))


def same_media(before: str, after: str) -> bool:
    """Whether two descriptions of one side ask for the same sections, directions and tracks, and none is rejected."""
    return _media(before) == _media(after) and not any(section.rejected for section in _sections(after)[1])


def as_answer(sdp: str, setup: Literal["active", "passive"], offer: str) -> str:
    """A side's last description in the form of an answer to `offer`, which asks for the same media.

    `setup` is the running role (RFC 8842 section 5.3), no section is bundle-only any more (RFC 9143 section 7.3),
    directions are no wider than the offer's (RFC 3264 section 6.1), header extensions no more (RFC 8285 section 6).
    """
    lines: list[str] = []
    sections = iter(zip(_sections(sdp)[1], _sections(offer)[1], strict=True))
    direction: str | None = None
    extensions: set[str] = set()
    for line in sdp.splitlines(keepends=True):
        if line.startswith("m="):
            mine, theirs = next(sections)
            direction = _narrowed(mine.direction, theirs.direction)
            extensions = {_uri(value) for value in theirs.all("extmap")}
            line = _with_port(line, 9) if mine.has("bundle-only") else line
        elif line.startswith("a=setup:"):
            line = f"a=setup:{setup}{_end_of(line)}"
        elif direction is not None and line.rstrip() in _DIRECTIONS:
            line = f"a={direction}{_end_of(line)}"
        unoffered = line.startswith("a=extmap:") and _uri(line) not in extensions
        if not unoffered and line.rstrip() != "a=bundle-only":
            lines.append(line)
    return "".join(lines)


def _uri(extmap: str) -> str:
    return "".join(extmap.split()[1:2])


def _narrowed(mine: str, theirs: str) -> str:
    sends = mine in ("sendrecv", "sendonly") and theirs in ("sendrecv", "recvonly")
    receives = mine in ("sendrecv", "recvonly") and theirs in ("sendrecv", "sendonly")
    return {(True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly"}.get(
        (sends, receives), "inactive"
    )


# Checks


def _check_text(sdp: str) -> None:
    if len(sdp) > MAX_BYTES or sdp.count("\n") > MAX_LINES or _UNCLEAN.search(sdp):
        raise SdpError


def _check_shape(session: _Section, media: Sequence[_Section]) -> None:
    lines = [*session.lines, *(line for section in media for line in (section.m_line, *section.lines))]
    if any(len(line) > MAX_LINE or not _LINE.fullmatch(line) or _is_disguised(line) for line in lines):
        raise SdpError
    if lines[:1] != ["v=0"] or [bool(_ORIGIN.fullmatch(line)) for line in lines if line[0] == "o"] != [True]:
        raise SdpError
    if not 1 <= len(media) <= MAX_SECTIONS:
        raise SdpError
    for section in media:
        matched = _M_LINE.match(section.m_line)
        if matched is None or int(matched[2]) > 65535 or matched[3] not in _PROFILES:
            raise SdpError


def _is_disguised(line: str) -> bool:
    """`a=Fingerprint:` and the like: Firefox reads names of attributes without regard to case, others do not."""
    name = _attribute(line)
    return name is not None and name not in _OUR_NAMES and name.lower() in _OUR_NAMES


def _check_secrets(sections: Iterable[_Section]) -> None:
    """Keys in the clear: SDES (RFC 4568), MIKEY (RFC 4567) and the old k= line; they would open the seal (law 1)."""
    for section in sections:
        for line in section.lines:
            if line.startswith("k=") or re.match(r"a=(crypto|key-mgmt)\b", line, re.IGNORECASE):
                raise SdpError("sdes_refused")


def _check_parses(sdp: str) -> None:
    try:
        SessionDescription.parse(sdp)
    except Exception:
        # The parser has no error of its own: AssertionError, KeyError, StopIteration and more are all "not SDP".
        raise SdpError from None


def _check_bundle(session: _Section, media: Sequence[_Section]) -> None:
    """Every live section is in the one BUNDLE group (RFC 9143): the relay has one transport a leg."""
    mids = [mid for section in media for mid in section.all("mid")]
    if len(set(mids)) != len(mids):
        raise SdpError
    bundles = [set(group.split()[1:]) for group in session.all("group") if group.split()[:1] == ["BUNDLE"]]
    live = [section for section in media if not section.rejected]
    if len(bundles) != 1 or not live:
        raise SdpError("no_bundle")
    if not bundles[0] <= set(mids) or any(set(section.all("mid")) - bundles[0] for section in live):
        raise SdpError("no_bundle")
    if any(len(section.all("mid")) != 1 for section in live):
        raise SdpError("no_bundle")


def _check_fingerprints(sections: Iterable[_Section]) -> None:
    """Of several lines Chromium obeys the last and Firefox any, so all have to be one (6-media, SAS)."""
    lines = [value for section in sections for value in section.all("fingerprint")]
    values = {matched[1].upper() if (matched := _FINGERPRINT.fullmatch(value)) else None for value in lines}
    if len(values) != 1 or None in values:
        raise SdpError("bad_fingerprint")


def _check_one_transport(transport: Transport, sections: Iterable[_Section]) -> None:
    """Bundled sections have to name the same credentials, so that it does not matter which one an answer makes the
    tagged one. Not so `setup`: Firefox answers a new section with the other role, and only the tagged one counts."""
    for section in sections:
        for name, value in (("ice-ufrag", transport.ufrag), ("ice-pwd", transport.pwd)):
            if any(other != value for other in section.all(name)):
                raise SdpError


def _transport(session: _Section, media: Sequence[_Section]) -> Transport:
    """The tagged section's attributes, or the session's where it has none (RFC 9143 section 7.1.3)."""
    tagged = _tagged(session, media)

    def value(name: str) -> str:
        found = tagged.all(name) or session.all(name)
        if not found:
            raise SdpError("bad_fingerprint" if name == "fingerprint" else "bad_sdp")
        return found[0]

    ufrag, pwd = value("ice-ufrag"), value("ice-pwd")
    if not _UFRAG.fullmatch(ufrag) or not _PWD.fullmatch(pwd):
        raise SdpError
    matched = _FINGERPRINT.fullmatch(value("fingerprint"))
    if matched is None:
        raise SdpError("bad_fingerprint")
    return Transport(Credentials(ufrag, pwd), value("setup"), matched[1].upper())


def _tagged(session: _Section, media: Sequence[_Section]) -> _Section:
    """The section whose transport the bundle uses: the first of the group that is live, bundle-only ones last."""
    order = [mid for group in session.all("group") for mid in group.split()[1:]]
    live = [section for section in media if not section.rejected and section.has("mid")]
    named = [section for mid in order for section in live if section.all("mid") == [mid]]
    for section in sorted(named or live, key=lambda section: section.has("bundle-only")):
        return section
    raise SdpError


def _sections(sdp: str) -> tuple[_Section, list[_Section]]:
    groups: list[list[str]] = [[]]
    for line in sdp.splitlines():
        if line.startswith("m="):
            groups.append([])
        groups[-1].append(line)
    return _Section("", tuple(groups[0])), [_Section(lines[0], tuple(lines[1:])) for lines in groups[1:]]


def _media(sdp: str) -> list[tuple[str, list[str], str, list[str]]]:
    """What the media of a description comes down to: kind, mid, direction and tracks of each section."""
    sections = _sections(sdp)[1]
    return [(section.kind, section.all("mid"), section.direction, sorted(section.all("msid"))) for section in sections]


# The line editor


def _rewritten(lines: Sequence[str], credentials: Credentials, candidates: Sequence[Candidate]) -> Iterator[str]:
    end = _end_of(lines[0]) if lines else "\r\n"
    starts = [number for number, line in enumerate(lines) if line.startswith("m=")]
    bounds = [0, *starts, len(lines)]
    for start, stop in pairwise(bounds):
        section = lines[start:stop]
        for line in section:
            yield from _edited(line, credentials, candidates)
        if start == 0:
            yield f"a=ice-lite{end}"
        elif not _is_rejected(section):
            yield from (f"a={candidate.line()}{end}" for candidate in candidates)
            yield f"a=end-of-candidates{end}"


def _edited(line: str, credentials: Credentials, candidates: Sequence[Candidate]) -> Iterator[str]:
    """The line as it goes on: none if it is dropped."""
    name = _attribute(line)
    if name in _DROPPED:
        return
    if name == "ice-options":
        yield from _ice_options(line)
    elif name == "ice-ufrag":
        yield f"a=ice-ufrag:{credentials.ufrag}{_end_of(line)}"
    elif name == "ice-pwd":
        yield f"a=ice-pwd:{credentials.password}{_end_of(line)}"
    elif line.startswith("m="):
        yield line if " 0 " in line[:20] else _with_port(line, candidates[0].port if candidates else 9)
    elif line.startswith("c="):
        yield f"c={_net(candidates[0].address if candidates else _NOWHERE)}{_end_of(line)}"
    elif line.startswith("o="):
        yield f"{' '.join(line.split()[:3])} {_net(_NOWHERE)}{_end_of(line)}"
    else:
        yield line


def _attribute(line: str) -> str | None:
    return line.rstrip()[2:].partition(":")[0] if line.startswith("a=") else None


def _ice_options(line: str) -> Iterator[str]:
    options = line.rstrip().partition(":")[2].split()
    kept = [option for option in options if option in _KEPT_ICE_OPTIONS]
    if kept == options:
        yield line
    elif kept:
        yield f"a=ice-options:{' '.join(kept)}{_end_of(line)}"


def _net(address: str) -> str:
    return f"IN IP{6 if ':' in address else 4} {address}"


def _with_port(line: str, port: int) -> str:
    kind, _, rest = line.split(" ", 2)
    return f"{kind} {port} {rest}"


def _end_of(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :] or "\r\n"


def _is_rejected(section: Sequence[str]) -> bool:
    return _Section(section[0].rstrip(), tuple(line.rstrip() for line in section[1:])).rejected
