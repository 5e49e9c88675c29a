"""The places that an archive can be in; what must hold in one must hold in the other."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from gateway.archive.archive import Archive
from gateway.archive.places import BucketPlace, store_at
from tests.s3 import S3Service


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | BucketPlace:
    if request.param == "directory":
        return tmp_path / "archive"
    return cast(S3Service, request.getfixturevalue("s3_service")).place()


@pytest.fixture
async def archive(place: Path | BucketPlace) -> Archive:
    archive = Archive(store_at(place))
    await archive.made()
    return archive
