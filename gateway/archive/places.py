"""Where an archive can be: a directory, or a bucket at AWS or whoever speaks its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.archive.directory import Directory
from gateway.archive.store import Store
from gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """Where a bucket is. Without an endpoint it is at AWS; without a region, in `AWS_REGION` or us-east-1."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + (f" at {self.endpoint}" if self.endpoint else "")


def store_at(place: Path | BucketPlace) -> Store:
    """Raises GatewayError for a bucket when its library is not installed; nothing is asked of the place yet."""
    if isinstance(place, Path):
        return Directory(place)
    try:
        from gateway.archive.bucket import Bucket
    except ImportError:
        raise GatewayError("An archive in a bucket needs obstore: pip install 'parley-gateway[bucket]'") from None
    return Bucket(place)
