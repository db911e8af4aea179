"""Every fenced block of the documentation: Python and shell blocks run, data blocks parse.

A page's blocks run in order, offline, in a process and folder of their own with `scene.jpg`, `clip.mp4` and the folder
`pictures`. A block that cannot run so carries a comment on the line before it:

    <!-- snippet: hub -->               runs against a hub on this machine, which has small seeded weights under the
                                        catalogues' ids, and nothing else; so does then the whole page, beside the
                                        files `best.pt` and `yolo11n.onnx`; see local_hub.py

or one of these, and is then checked without being run:

    <!-- snippet: gpu -->               runs with LENSMOUNT_DOCS_GPU=1
    <!-- snippet: network -->           runs with LENSMOUNT_DOCS_NETWORK=1
    <!-- snippet: skip reason="..." --> one of pip-install, dev-command, gpu, network, fragment
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from local_hub import LocalHub

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("run_page.py")
SCENE = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"
PAGES = sorted(
    {
        *ROOT.glob("README.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("core/README.md"),
        *ROOT.glob("libraries/*/README.md"),
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("examples/*/README.md"),
    }
)
PYTHON = {"python", "py", "pycon"}
SHELL = {"console", "bash", "sh", "shell"}
DATA = {"toml", "json"}
INERT = {"", "text", "yaml", "diff", "mermaid", "dockerfile", "ini", "html", "xml", "powershell", "markdown"}
REASONS = {"pip-install", "dev-command", "gpu", "network", "fragment"}
MOST_FRAGMENTS = 4  # in the whole documentation: a fragment is a promise that nothing tests
REACHES_OUT = re.compile(
    r"(?:^|[\s;&|(])(?:pipx?3?|uv|conda|apt|apt-get|brew|curl|wget|git|docker|dev\.py)(?=\s)", re.M
)
PAGE_SECONDS = 600


@dataclass(frozen=True)
class Block:
    """One fenced block: where it begins (line of the fence, from 1), its language, its text, and its marker."""

    page: Path
    line: int
    language: str
    code: str
    marker: str | None = None
    reason: str | None = None

    @property
    def where(self) -> str:
        page = self.page.relative_to(ROOT).as_posix() if self.page.is_relative_to(ROOT) else self.page.name
        return f"{page}:{self.line}"

    @property
    def runs(self) -> bool:
        if self.language not in PYTHON | SHELL:
            return False
        return self.marker in (None, "hub") or (
            self.marker != "skip" and os.environ.get(f"LENSMOUNT_DOCS_{self.marker.upper()}") == "1"
        )


def parse(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    fence = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*\{?\.?(?P<language>[\w+-]*)")
    comment = re.compile(r'^\s*<!--\s*snippet:\s*(?P<marker>[\w-]+)(?:\s+reason="(?P<reason>[^"]*)")?\s*-->\s*$')
    blocks, opened, marked, body = [], None, None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is not None:
            start, match, comment_above = opened
            if line.strip().startswith(match["ticks"]) and not line.strip().strip(match["ticks"][0]):
                marker, reason = (comment_above["marker"], comment_above["reason"]) if comment_above else (None, None)
                code = textwrap.dedent("\n".join(body)) + "\n"
                blocks.append(Block(page, start, match["language"].lower(), code, marker, reason))
                opened, body = None, []
            else:
                body.append(line)
        elif match := fence.match(line):
            opened, marked = (number, match, marked), None
        elif line.strip():
            marked = comment.match(line)
            assert marked or "<!-- snippet" not in line, (
                f"{page.name}:{number}: a snippet comment that is not understood"
            )
    assert opened is None, f"{page.name}:{opened[0] if opened else 0}: the block is not closed"
    return blocks


def commands(block: Block) -> str:
    """The script of a shell block: what follows `$ `, where it has prompts, else all of it."""
    lines = block.code.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return block.code
    script, going_on = [], False
    for line in lines:
        if line.startswith("$ ") or going_on:
            script.append(line[2:] if line.startswith(("$ ", "> ")) else line)
            going_on = line.rstrip().endswith("\\")
    return "\n".join(script) + "\n"


def check(block: Block) -> None:
    """What can be said of a block without running it."""
    if block.language in DATA:
        (tomllib.loads if block.language == "toml" else json.loads)(block.code)
        return
    if block.language in INERT:
        return
    assert block.language in PYTHON | SHELL, f"language {block.language!r} is not one this test knows"
    assert block.marker in (None, "hub", "gpu", "network", "skip"), f"unknown marker {block.marker!r}"
    if block.marker == "skip":
        assert block.reason in REASONS, f"reason {block.reason!r} is none of {sorted(REASONS)}"
    if block.language in PYTHON:
        if not block.code.lstrip().startswith(">>>"):
            ast.parse(block.code, block.where)
        return
    script = commands(block)
    shlex.split(script, comments=True)
    if block.marker in (None, "hub"):
        assert not REACHES_OUT.search(script), "it installs, fetches or sets up something: it needs a snippet comment"
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "pip" in words and "install" in words:
            check_requirements(words[words.index("install") + 1 :])
        if "dev.py" in words:
            check_dev_command(words[words.index("dev.py") + 1 :])


def check_requirements(words: list[str]) -> None:
    """Names of ours that a page asks pip to install have to exist, and so have their extras."""
    projects = {}
    for path in [
        ROOT / "core/pyproject.toml",
        *ROOT.glob("plugins/*/pyproject.toml"),
        *ROOT.glob("examples/*/pyproject.toml"),
    ]:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        projects[project["name"]] = set(project.get("optional-dependencies", {}))
    tables = tomllib.loads((ROOT / "core/src/lensmount/first_party.toml").read_text(encoding="utf-8"))
    announced = tables["models"] | tables["commands"]
    for word in words:
        match = re.match(r"^(lensmount[a-z0-9-]*)(?:\[([^\]]*)\])?", word)
        if not match:
            continue
        name, extras = match[1], {extra.strip() for extra in (match[2] or "").split(",") if extra.strip()}
        assert name in projects or name in announced, f"there is no distribution {name}"
        assert name not in projects or extras <= projects[name], (
            f"{name} has no extra {extras - projects.get(name, set())}"
        )


def check_dev_command(words: list[str]) -> None:
    help_text = subprocess.run([sys.executable, ROOT / "dev.py", "--help"], capture_output=True, text=True, check=True)
    assert words, "dev.py needs a subcommand"
    assert re.search(rf"^ +{re.escape(words[0])} ", help_text.stdout, re.M), f"dev.py has no subcommand {words[0]!r}"


def make_clip(path: Path) -> None:
    """Twelve frames of the scene, which moves to the left."""
    import cv2
    import numpy as np

    scene = cv2.imread(str(SCENE))
    height, width = scene.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12, (width, height))
    for frame in range(12):
        writer.write(np.roll(scene, -8 * frame, axis=1))
    writer.release()


def run_warm(address: str, arguments: list[str], environ: dict[str, str], work: Path) -> str:
    """Lets the warm process run a page; gives what to say of a block that was not reached."""
    from warm import hand_over

    with tempfile.TemporaryFile() as said, open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), said.fileno(), said.fileno())
        status = hand_over(address, arguments[0], arguments, environ, str(work), streams, PAGE_SECONDS)
        said.seek(0)
        return f"the page's process ended here, with status {status}\n{said.read()[-2000:].decode(errors='replace')}"


def run_page(blocks: list[Block], folder: Path, hub: LocalHub | None = None) -> dict[int, str]:
    """Runs what runs of one page; gives, for each such block's line, what went wrong, or an empty string."""
    runnable = [block for block in blocks if block.runs]
    if not runnable:
        return {}
    work, home = folder / "work", folder / "home"
    (work / "pictures").mkdir(parents=True)
    home.mkdir()
    if SCENE.is_file():
        for name in ("scene.jpg", "pictures/one.jpg", "pictures/two.jpg"):
            shutil.copy(SCENE, work / name)
        make_clip(work / "clip.mp4")
    for name, file in (hub.files if hub else {}).items():
        shutil.copy(file, work / name)
    jobs = [
        {
            "kind": "python" if block.language in PYTHON else "shell",
            "code": block.code if block.language in PYTHON else commands(block),
            "where": block.where.rpartition(":")[0],
            "line": block.line,
        }
        for block in runnable
    ]
    (folder / "blocks.json").write_text(json.dumps(jobs), encoding="utf-8")
    results = folder / "results.json"
    environ = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "HOME": str(home),  # a model that this machine happens to have in its store must not make a page pass
        "USERPROFILE": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "HF_HOME": str(home / "huggingface"),
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
    }
    if hub is not None:
        environ |= hub.environ
        environ["PATH"] = os.pathsep.join([environ.pop("FIRST_IN_PATH", ""), environ["PATH"]]).lstrip(os.pathsep)
    elif os.environ.get("LENSMOUNT_DOCS_NETWORK") != "1":
        environ |= {"LENSMOUNT_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    ended = "it was not reached"
    try:
        if hub is not None and hub.warm is not None:
            ended = run_warm(hub.warm, [str(RUNNER), str(folder / "blocks.json"), str(results)], environ, work)
        else:
            done = subprocess.run(
                [sys.executable, RUNNER, folder / "blocks.json", results],
                cwd=work, env=environ, capture_output=True, text=True, timeout=PAGE_SECONDS, check=False,
            )  # fmt: skip
            ended = f"the page's process ended here, with status {done.returncode}\n{done.stderr[-2000:]}"
    except (subprocess.TimeoutExpired, TimeoutError):
        ended = f"the page did not end within {PAGE_SECONDS} s"
    found = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    return {block.line: found.get(str(block.line), ended) for block in runnable}


BLOCKS = [block for page in PAGES for block in parse(page)]


@pytest.fixture(scope="session")
def local_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], LocalHub]]:
    """The hub, started when the first page asks for it."""
    sys.path.insert(0, str(Path(__file__).parent))
    from local_hub import start

    started: list[LocalHub] = []

    def get() -> LocalHub:
        if not started:
            started.append(start(tmp_path_factory.mktemp("hub")))
        return started[0]

    yield get
    for hub in started:
        hub.close()


@pytest.fixture(scope="session")
def page_results(tmp_path_factory: pytest.TempPathFactory, local_hub: Callable[[], LocalHub]) -> Any:
    """Runs each page once, when its first block asks."""
    done: dict[Path, dict[int, str]] = {}

    def results(page: Path) -> dict[int, str]:
        if page not in done:
            blocks = [block for block in BLOCKS if block.page == page]
            needs_hub = any(block.marker == "hub" for block in blocks)
            done[page] = run_page(blocks, tmp_path_factory.mktemp("page"), local_hub() if needs_hub else None)
        return done[page]

    return results


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_snippet(block: Block, page_results: Any) -> None:
    check(block)
    if block.runs:
        problem = page_results(block.page)[block.line]
        assert not problem, f"{block.where}\n{problem}"


def test_few_snippets_are_fragments(record_property: Any) -> None:
    fragments = [block.where for block in BLOCKS if block.reason == "fragment"]
    record_property("snippets run", sum(block.runs for block in BLOCKS))
    record_property("snippets run against the local hub", sum(block.marker == "hub" for block in BLOCKS))
    record_property("snippets checked only", sum(block.marker not in (None, "hub") for block in BLOCKS))
    assert len(fragments) <= MOST_FRAGMENTS, fragments


# --- the test, tested -------------------------------------------------------------------------------------------------


def page_of(tmp_path: Path, text: str) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text(textwrap.dedent(text), encoding="utf-8")
    return parse(page)


def outcome(tmp_path: Path, text: str) -> list[str]:
    blocks = page_of(tmp_path, text)
    for block in blocks:
        check(block)
    return list(run_page(blocks, tmp_path).values())


def test_a_sound_page_passes(tmp_path: Path) -> None:
    results = outcome(
        tmp_path,
        """
        ```python
        number = 41
        ```

        * in a list:

          ```console
          $ echo first \\
          >   second > said.txt
          first
          $ test -s said.txt
          ```

        ```python
        assert open("said.txt").read().split() == ["first", "second"] and number + 1 == 42
        ```

        ```pycon
        >>> number + 1
        42
        ```
        """,
    )
    assert results == ["", "", "", ""]


@pytest.mark.parametrize(
    ("language", "code", "said"),
    [
        ("python", "raise ValueError('broken')", "ValueError: broken"),
        ("python", "import sys; sys.exit(0)", "SystemExit"),
        ("python", "import os; os._exit(3)", "status 3"),
        ("python", ">>> 1 + 1\n3", "Expected"),
        ("python", "1 + undefined", 'page.md", line 2'),
        ("console", "$ false\n$ true", "exit status 1"),
        ("bash", "no-such-command-anywhere", "exit status 127"),
        ("sh", "false | true", "exit status 1"),
    ],
)
def test_a_broken_snippet_fails(language: str, code: str, said: str, tmp_path: Path) -> None:
    (problem,) = outcome(tmp_path, f"```{language}\n{code}\n```\n")
    assert said in problem


@pytest.mark.parametrize(
    "text",
    [
        "```python\nif:\n```\n",
        "```bash\necho 'open\n```\n",
        "```bash\npip install lensmount\n```\n",
        "```bash\npython3 dev.py test\n```\n",
        "```bash\ncurl -O x\n```\n",
        '<!-- snippet: skip reason="pip-install" -->\n```bash\npip install lensmount-nonsense\n```\n',
        '<!-- snippet: skip reason="pip-install" -->\n```bash\npip install "lensmount[nonsense]"\n```\n',
        '<!-- snippet: skip reason="dev-command" -->\n```bash\npython3 dev.py nonsense\n```\n',
        '<!-- snippet: skip reason="too hard" -->\n```python\npass\n```\n',
        "<!-- snippet: skip -->\n```python\npass\n```\n",
        "<!-- snippet: maybe -->\n```python\npass\n```\n",
        "<!-- snippet gpu -->\n```python\npass\n```\n",
        "```json\n{,}\n```\n",
        "```toml\na = \n```\n",
        "```pyhton\npass\n```\n",
        "```python\npass\n",
    ],
)
def test_a_page_that_breaks_the_rules_fails(text: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, SyntaxError, ValueError)):
        outcome(tmp_path, text)


def test_the_local_hub_serves_what_a_page_asks_for_and_nothing_else(
    tmp_path: Path, local_hub: Callable[[], LocalHub]
) -> None:
    hub = local_hub()
    before = len(hub.server.requests)
    text = """
        <!-- snippet: hub -->
        ```python
        from lensmount import registry

        model = registry.load("yolov8n-640")
        assert model("scene.jpg")[0].class_name.tolist() == ["person", "bus"]
        ```
        <!-- snippet: hub -->
        ```python
        registry.load("hf://someone/else/model.onnx")
        ```
        ```python
        import urllib.request

        urllib.request.urlopen("https://example.org", timeout=5)
        ```
        """
    blocks = page_of(tmp_path, text)
    for block in blocks:
        check(block)
    first, second, third = run_page(blocks, tmp_path, hub).values()
    assert first == ""
    assert "ArtifactNotFoundError" in second
    assert "URLError" in third
    asked = [path for _, path, _ in hub.server.requests[before:]]
    assert any("lensmount-docs/yolo" in path for path in asked)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```python\nimport os\nos._exit(3)\n```", "the page's process ended here"),
        ("```bash\nlensmount describe no-such-model\n```", "ModelNotFoundError"),
        ("```bash\nlensmount no-such-command\n```", "exit status 2"),
        ("```python\nimport sys\nassert 'lensmount' not in sys.modules, 'left over'\nraise OSError\n```", "OSError"),
    ],
)
def test_what_fails_on_the_local_hub_is_seen(
    block: str, said: str, tmp_path: Path, local_hub: Callable[[], LocalHub]
) -> None:
    (problem,) = run_page(page_of(tmp_path, f"<!-- snippet: hub -->\n{block}\n"), tmp_path, local_hub()).values()
    assert said in problem


def test_marked_snippets_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSMOUNT_DOCS_GPU", raising=False)
    text = "<!-- snippet: gpu -->\n\n```python\nraise ValueError\n```\n```python\npass\n```\n"
    assert outcome(tmp_path, text) == [""]  # the comment belongs to the next block alone
    monkeypatch.setenv("LENSMOUNT_DOCS_GPU", "1")
    again = tmp_path / "again"
    again.mkdir()
    assert "ValueError" in outcome(again, text)[0]
