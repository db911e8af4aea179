"""Relative links and pictures in the documentation lead somewhere, also those to a heading."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("core/*.md"),
        *ROOT.glob("plugins/*/*.md"),
        *ROOT.glob("examples/*/*.md"),
    }
)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.M)


def prose(page: Path) -> str:
    """A page's text without its code."""
    text = re.sub(r"^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\1[ \t]*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*\s*$", page.read_text(encoding="utf-8"), re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | {re.sub(r"-{2,}", "-", slug) for slug in slugs}


def broken(page: Path) -> list[str]:
    found = []
    for match in LINK.finditer(prose(page)):
        target = match[1] or match[2]
        if re.match(r"^[a-z][a-z0-9+.-]*:", target, re.I):  # http:, mailto:, …
            continue
        path, _, fragment = target.partition("#")
        aim = page if not path else (page.parent / unquote(path))
        missing = not aim.exists()
        if missing or path.startswith("/") or (fragment and aim.suffix == ".md" and fragment not in anchors(aim)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    assert broken(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Some `heading` here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#some-heading-here) [c](https://example.org/x) `[no](link)`\n"
        "[d](missing.md) ![e](missing.png) [f](other.md#nothing) [g](#nowhere) [h](/absolute.md)\n[i]: gone.md\n"
    )
    assert broken(page) == ["missing.md", "missing.png", "other.md#nothing", "#nowhere", "/absolute.md", "gone.md"]
