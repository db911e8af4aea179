"""Puts the pages on errors into wheel and sdist: written once, below docs/ of the workspace, and read offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGES = "error_pages"


class ErrorPages(BuildHookInterface):  # type: ignore[misc, type-arg]  # hatchling is there in builds only
    """`docs/errors` becomes `lensmount/error_pages`; an editable install reads the checkout's own."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the folder to what is built."""
        if version == "editable":
            return
        pages, package = Path(self.root).parent / "docs/errors", "src/lensmount"
        if pages.is_dir():
            target = package if self.target_name == "sdist" else "lensmount"
            build_data["force_include"][str(pages)] = f"{target}/{PAGES}"
        elif not (Path(self.root) / package / PAGES).is_dir():  # neither a checkout nor an unpacked sdist
            raise FileNotFoundError(f"the pages on errors are neither in {pages} nor in {package}/{PAGES}")
