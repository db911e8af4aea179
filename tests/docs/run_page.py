"""Runs the blocks of one page in order, in the current folder: `python run_page.py BLOCKS.json RESULTS.json`.

A process of its own for each page, so that pages cannot lean on one another. Python blocks share one namespace. The
results are rewritten after each block: what a crash leaves unanswered, the reader knows to have failed.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import shutil
import subprocess
import sys
import traceback
from pathlib import Path


def run_python(code: str, where: str, line: int, namespace: dict[str, object]) -> str:
    if code.lstrip().startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(code, namespace, where, where, line)
        said = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        failed = runner.run(test, out=said.write, clear_globs=False).failed
        namespace.update(test.globs)
        return said.getvalue() if failed else ""
    try:
        # the blank lines make tracebacks name the page's own lines
        exec(compile("\n" * line + code, where, "exec"), namespace)
    except BaseException:  # also SystemExit: a snippet that leaves is a snippet that failed
        return traceback.format_exc()
    return ""


def run_shell(script: str) -> str:
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return "" if done.returncode == 0 else f"exit status {done.returncode}\n$ {script}\n{done.stdout[-4000:]}"


def main() -> None:
    blocks = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    namespace: dict[str, object] = {"__name__": "__main__"}
    results: dict[str, str] = {}
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()):
            if block["kind"] == "python":
                problem = run_python(block["code"], block["where"], block["line"], namespace)
            else:
                problem = run_shell(block["code"])
        results[str(block["line"])] = problem
        Path(sys.argv[2]).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
