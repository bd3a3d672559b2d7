"""Fixtures of the unit tests."""

import zipfile
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def put_wheel(tmp_path: Path) -> Any:
    """Return a function that puts a wheel of the given members into a downloads folder, and returns the folder."""

    def put(requirement: str, members: dict[str, bytes], downloads: Path | None = None) -> Path:
        downloads = downloads or tmp_path / "downloads"
        name, _, version = requirement.partition("==")
        folder = downloads / requirement
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            for member, content in members.items():
                wheel.writestr(member, content)
        return downloads

    return put
