"""`errors`: the page of the documentation on an error, without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lensmount.cli.output import out
from lensmount.errors import InputError, PluginError


def errors(
    name: Annotated[str, typer.Argument(help="Class of the error: ImageError; none for the list.")] = "",
) -> None:
    """Explain an error: what it means, what causes it, how to fix it."""
    text = read(name or "index")
    console = out()
    if not console.is_terminal:
        print(text, end="")
        return
    from rich.markdown import Markdown

    console.print(Markdown(text))


def read(name: str) -> str:
    """The page of that name, in Markdown.

    Raises:
        InputError: There is no such page.
        PluginError: This installation holds no pages.
    """
    pages = {path.stem.lower(): path for path in folder().glob("*.md")}
    found = pages.get(name.rpartition(".")[2].lower())
    if found is None and not pages:
        raise PluginError(
            "this installation of lensmount lacks its pages", fix="pip install --force-reinstall lensmount"
        )
    if found is None:
        import difflib

        near = difflib.get_close_matches(name.lower(), pages, 1, 0.5)
        hint = f"lensmount errors {pages[near[0]].stem}" if near else "lensmount errors"
        known = ", ".join(sorted(path.stem for path in pages.values() if path.stem != "index"))
        raise InputError(f"there is no error {name!r}", expected=known, fix=hint)
    text = found.read_text(encoding="utf-8")
    return re.sub(r"<!--.*?-->\n*", "", text, flags=re.S)  # what an example needs to run, and no reader to see


def folder() -> Path:
    """Where the pages lie: in the package, or in the checkout that an editable install leads to."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "error_pages"
    return shipped if shipped.is_dir() else package.parents[2] / "docs" / "errors"
