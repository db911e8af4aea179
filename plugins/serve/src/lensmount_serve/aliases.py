"""The protocol's names of public models, as lensmount's."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@cache
def aliases() -> dict[str, str]:
    """`coco/3` to `yolov8n-640`, and so on; see `aliases.toml`."""
    tables = tomllib.loads(Path(__file__).with_name("aliases.toml").read_text(encoding="utf-8"))
    return {f"{project}/{version}": name for project, table in tables.items() for version, name in table.items()}
