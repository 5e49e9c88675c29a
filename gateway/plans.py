"""What the supervisor is to run for given settings. Light: imported by what starts before everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.settings import Settings
from gateway.supervisor import Plan


def relay_plan(settings: Settings) -> Plan:
    """The relay workers of a node."""
    media = settings.media
    return Plan(
        list(media.host), media.port, list(media.addresses), media.processes, tcp_port=media.tcp_port,
    )  # fmt: skip


def node_plan(settings: Settings, command: Sequence[str]) -> Plan:
    """The whole node: its workers, and `command` as the control process, on sockets that outlive it."""
    server = settings.server
    listen = {"public": (server.host, server.port), "private": (server.private_host, server.private_port)}
    if settings.pay.port:
        listen["pay"] = (settings.pay.host, settings.pay.port)
    return replace(relay_plan(settings), control=list(command), listen=listen)
