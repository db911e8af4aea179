"""Links and pictures in the documentation lead somewhere, also to headings and the API; the nav has each page."""

from __future__ import annotations

import pkgutil
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
        *ROOT.glob("libraries/*/*.md"),
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


def named_objects(page: Path) -> list[str]:
    """What links into the API reference name: `[text][lensmount.module.name]`, and what its pages show."""
    return re.findall(r"\]\[(lensmount[\w.]*)\]|^::: ([\w.]+)", prose(page), re.M)


def missing_objects(page: Path) -> list[str]:
    missing = []
    for path in ("".join(pair) for pair in named_objects(page)):
        try:
            pkgutil.resolve_name(path)
        except (ImportError, AttributeError):
            missing.append(path)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_references_to_the_api(page: Path) -> None:
    assert missing_objects(page) == []


def left_out(nav: str, pages: set[str]) -> set[str]:
    """Pages that no entry of the nav names, be it as `folder/*`."""
    entries = re.findall(r"([\w./-]+(?:\.md|/\*))\s*$", nav, re.M)
    return {page for page in pages if page not in entries and f"{page.rpartition('/')[0]}/*" not in entries}


def test_the_nav_has_every_page() -> None:
    nav = re.split(r"^nav:\n|^validation:", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M)[1]
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")}
    assert "models/yolo.md" in pages
    assert left_out(nav, pages) == set()


def test_what_the_nav_misses_is_found(tmp_path: Path) -> None:
    nav = "  - Start:\n      - One: one.md\n  - Rest: rest/*\n"
    assert left_out(nav, {"one.md", "two.md", "rest/a.md", "rest/deeper/b.md"}) == {"two.md", "rest/deeper/b.md"}
    page = tmp_path / "page.md"
    page.write_text(
        "[a][lensmount_vision.results.Masks] [b][lensmount_vision.results.Nothing]\n\n::: lensmount.nowhere\n"
    )
    assert missing_objects(page) == ["lensmount_vision.results.Nothing", "lensmount.nowhere"]


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
