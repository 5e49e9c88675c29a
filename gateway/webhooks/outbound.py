"""POST to addresses that strangers choose: no private networks, no redirects, no cookies, no patience beyond 15 s.

The name is resolved and judged at the moment of connecting, so that a name which changes its address between a check
and the connection gains nothing (SSRF by DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from gateway.clock import Clock
from gateway.outbox.delivery import Answer, retry_after_ms

TIMEOUT_S: Final = 15.0  # Standard Webhooks: 15 to 30 s; a receiver should store the event and answer
ANSWER_BYTES: Final = 16_384  # more of an answer is not read: the status is all we need
DRAIN_S: Final = 1.0
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Blocked(OSError):
    """The address belongs to a network that events may not be sent to."""


class Outbound:
    """An HTTP client for webhooks; `await close()` when done."""

    def __init__(self, clock: Clock, *, allow_private: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self._clock, self._allow_private = clock, allow_private
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        """One attempt; never raises for what the receiver or the network does."""
        try:
            judge(URL(url), self._allow_private)
            async with self._client().post(
                url, data=body.encode(), headers=headers, allow_redirects=False, timeout=self._timeout
            ) as response:
                await self._drain(response)
                wait = retry_after_ms(response.headers.get("Retry-After"), self._clock.wall_ms())
                return Answer(status=response.status, retry_after_ms=wait)
        except Blocked:
            return Answer(fault="blocked")
        except TimeoutError:
            return Answer(fault="timeout")
        except aiohttp.InvalidURL:
            return Answer(fault="bad_url")
        except aiohttp.ClientSSLError:
            return Answer(fault="tls")
        except aiohttp.ClientConnectorError as error:
            return Answer(fault="blocked" if isinstance(error.os_error, Blocked) else "connection")
        except (aiohttp.ClientError, ValueError, OSError):
            return Answer(fault="connection")

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read to the end, so that the connection serves the next event; who sends much or slowly loses it."""
        read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                async for chunk in response.content.iter_chunked(4096):
                    read += len(chunk)
                    if read > ANSWER_BYTES:
                        break
                else:
                    return
        response.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = ThreadedResolver() if self._allow_private else PublicResolver()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=resolver, ttl_dns_cache=10, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": "parley-gateway/1"},
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def judge(url: URL, allow_private: bool) -> None:
    """Addresses in the URL itself never reach the resolver. Plain http is for private networks only. Raises Blocked."""
    if allow_private:
        return
    if url.scheme != "https":
        raise Blocked("https only")
    try:
        address = ipaddress.ip_address(url.host or "")
    except ValueError:
        return
    if not public(address):
        raise Blocked("private address")


class PublicResolver(AbstractResolver):
    """Resolves to public addresses only; raises Blocked when a name has none."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [one for one in found if public(ipaddress.ip_address(one["host"].partition("%")[0]))]
        if not allowed:
            raise Blocked("private address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


def public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is of the public Internet, seen through the wrappings that IPv6 has for IPv4 ones."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
