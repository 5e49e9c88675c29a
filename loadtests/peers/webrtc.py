"""aiortc made to stay on one address and one SRTP profile, and its ORTC transports made of plain values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import aioice.ice
from aiortc import (
    RTCCertificate,
    RTCConfiguration,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
    RTCPeerConnection,
    rtcdtlstransport,
)

PROFILES: Final = {
    "SHA1": rtcdtlstransport.SRTP_AES128_CM_SHA1_80,
    "GCM": rtcdtlstransport.SRTP_AEAD_AES_128_GCM,
}


@contextlib.contextmanager
def only(address: str, profile: str) -> Iterator[None]:
    """Inside, aioice gathers this address alone (it leaves loopback out), and DTLS agrees on this SRTP profile."""
    gather, profiles = aioice.ice.get_host_addresses, rtcdtlstransport.SRTP_PROFILES
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [address]
    rtcdtlstransport.SRTP_PROFILES = [PROFILES[profile]]
    try:
        yield
    finally:
        aioice.ice.get_host_addresses, rtcdtlstransport.SRTP_PROFILES = gather, profiles


def peer_connection() -> RTCPeerConnection:
    """Without the STUN server that aiortc asks by default."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def gathered(certificate: RTCCertificate, controlling: bool) -> RTCDtlsTransport:
    """A DTLS transport with its candidates known, not started."""
    gatherer = RTCIceGatherer(iceServers=[])
    await gatherer.gather()
    ice = RTCIceTransport(gatherer)
    ice._connection.ice_controlling = controlling
    ice._role_set = True
    return RTCDtlsTransport(ice, [certificate])


def describe(dtls: RTCDtlsTransport) -> dict[str, Any]:
    """What the other end needs to know of it."""
    gatherer = dtls.transport.iceGatherer
    ice, candidate = gatherer.getLocalParameters(), gatherer.getLocalCandidates()[0]
    fingerprints = [[one.algorithm, one.value] for one in dtls.getLocalParameters().fingerprints]
    return {
        "ufrag": ice.usernameFragment, "password": ice.password, "ip": candidate.ip, "port": candidate.port,
        "fingerprints": fingerprints,
    }  # fmt: skip


async def begin(dtls: RTCDtlsTransport, other: dict[str, Any]) -> None:
    """ICE, then DTLS, with what `describe` said of the other end."""
    candidate = RTCIceCandidate(1, "1", other["ip"], other["port"], 2130706431, "udp", "host")
    await dtls.transport.addRemoteCandidate(candidate)
    await dtls.transport.addRemoteCandidate(None)
    await dtls.transport.start(RTCIceParameters(other["ufrag"], other["password"]))
    fingerprints = [RTCDtlsFingerprint(algorithm, value) for algorithm, value in other["fingerprints"]]
    await dtls.start(RTCDtlsParameters(fingerprints=fingerprints))
