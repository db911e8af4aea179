"""Wheels in a folder that pip is told to look in, so that no test asks an index."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from pathlib import Path

import pytest


class Wheels:
    """Makes wheels, and is where pip finds them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, name: str, version: str, files: dict[str, bytes], *, tag: str = "py3-none-any", method: int = 8
    ) -> Path:
        """A wheel as a build tool writes it."""
        info = f"{name}-{version}.dist-info"
        whole = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        }
        record = io.StringIO()
        rows = csv.writer(record, lineterminator="\n")
        for path, content in whole.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.writerow([path, f"sha256={digest}", len(content)])
        rows.writerow([f"{info}/RECORD", "", ""])
        whole[f"{info}/RECORD"] = record.getvalue().encode()
        path = self.folder / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(path, "w", method) as archive:
            for inside, content in whole.items():
                archive.writestr(inside, content)
        return path


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return Wheels(folder)
