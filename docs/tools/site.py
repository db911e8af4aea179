"""What mkdocs does not do by itself: pages of the repository's root, links out of `docs/`, and a nav that grows.

mkdocs calls the functions named `on_…`; see its page on hooks.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
FROM_ROOT = {
    "contributing.md": "CONTRIBUTING.md",
    "releasing.md": "RELEASING.md",
    "security-policy.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site that are files of the root."""
INSTEAD = {"README.md": "index.md", "core/README.md": "index.md", "plugins/roboflow/README.md": "models/roboflow.md"}
"""Pages of the site that hold what a file outside `docs/` holds."""
LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(\s*<?([^)\s>]+)>?(\s+\"[^\"]*\")?\s*\)")
FENCE = re.compile(r"(^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\2[ \t]*$)", re.M | re.S)
COMMENT = re.compile(r"^[ \t]*<!--.*?-->[ \t]*\n", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the root's pages, and makes the nav of what is there."""
    for uri, name in FROM_ROOT.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    pages = {file.src_uri for file in files.documentation_pages()}
    config.nav = grown(config.nav or [], pages)
    return files


def grown(nav: list[Any], pages: set[str]) -> list[Any]:
    """The nav with `folder/*` as every page of the folder, its index first, and without pages that are not there.

    A page that the nav misses is mkdocs' own warning, and so an error: nothing gets lost by a misspelt name.
    """
    made: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            inner: list[Any] = grown(value, pages)
            made += [{title: inner}] if inner else []
        elif value.endswith("/*"):
            folder = value[:-1]
            found = sorted(page for page in pages if page.startswith(folder) and "/" not in page[len(folder) :])
            found.sort(key=lambda page: not page.endswith("/index.md"))
            made += [{title: found}] if title and found else found
        elif value in pages:
            made.append(entry)
    return made


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links at the site's own pages, and drops comments to the tools."""
    own = FROM_ROOT.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = FENCE.split(markdown)
    # FENCE has two groups: prose, block, ticks, prose, …
    for at in range(0, len(parts), 3):
        prose = COMMENT.sub("", parts[at])
        parts[at] = LINK.sub(lambda link: rewritten(link, own, page.file.src_uri, config, files), prose)
    return "".join(part for at, part in enumerate(parts) if at % 3 != 2)


def rewritten(link: re.Match[str], own: str, uri: str, config: MkDocsConfig, files: Files) -> str:
    """One link of the file `own` as it has to be on the page `uri`."""
    mark, text, target, title = link[1], link[2], link[3], link[4] or ""
    path, _, fragment = target.partition("#")
    if not path or re.match(r"^[a-z][a-z0-9+.-]*:", path, re.I):
        return link[0]
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(own), path))
    if not (ROOT / aim).exists():
        raise PluginError(f"{own}: the link {target!r} leads nowhere")
    here = site_page(aim, files)
    tail = f"#{fragment}" if fragment else ""
    if here is not None and here != uri:
        return f"{mark}[{text}]({posixpath.relpath(here, posixpath.dirname(uri) or '.')}{tail}{title})"
    if config.repo_url:
        return f"{mark}[{text}]({config.repo_url.rstrip('/')}/blob/main/{aim}{tail}{title})"
    return text if text.strip("`") == text and text != aim else f"`{aim}`"


def site_page(aim: str, files: Files) -> str | None:
    """The site's page or picture for a file of the repository, if it has one."""
    for uri, name in FROM_ROOT.items():
        if aim == name:
            return uri
    plugin = re.fullmatch(r"(?:plugins/(\w+)|examples/lensmount-(\w+))/README\.md", aim)
    guess = INSTEAD.get(aim) or (f"models/{(plugin[1] or plugin[2]).replace('_', '-')}.md" if plugin else None)
    guess = guess or aim.removeprefix("docs/") if aim.startswith("docs/") or guess else None
    return guess if guess and files.get_file_from_path(guess) else None
