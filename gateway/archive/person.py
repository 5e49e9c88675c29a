"""Somebody as an account names them, on either side of its sessions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.session import ROLES, Role


@dataclass(frozen=True, slots=True)
class Person:
    account: str
    livemode: bool
    id: str


def person_in(record: Mapping[str, Any], role: Role) -> Person:
    """Who is on that side of a session, by its `session` document."""
    return Person(record["account"], record["livemode"], record[role]["id"])


def roles_in(record: Mapping[str, Any], person: Person) -> list[Role]:
    """On which sides of a session somebody is."""
    return [role for role in ROLES if person_in(record, role) == person]
