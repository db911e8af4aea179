"""What lensmount makes of several broken installations, in one process: `python plugin_overlays.py JOBS ANSWERS`.

Each job is a folder that is put before all others on `sys.path` for its turn, so that the distribution in it shadows
the installed one. Between jobs everything that plugins brought is forgotten, as in a new process; starting one for
each job would take minutes, and so would building the command line anew for each.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import warnings
from pathlib import Path

from lensmount import registry
from lensmount.cli import catalogue, main
from lensmount.specs import to_dict


def forget() -> None:
    """As if nothing of a plugin had been imported or discovered yet."""
    for name in [name for name in sys.modules if name.startswith("lensmount_")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    registry.refresh()


def answer(arguments: list[str] | None) -> dict[str, object]:
    """Statuses, ids, warnings, what `lensmount plugins` prints, and what a command says where one is given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        statuses = [to_dict(status) for status in registry.plugins()]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        catalogue.plugins(as_json=False)
    return {
        "statuses": statuses,
        "models": [card.id for card in registry.models()],
        "warnings": [f"{w.category.__name__}: {w.message}" for w in caught],
        "shown": shown.getvalue(),
        "said": None if arguments is None else command(arguments),
    }


def command(arguments: list[str]) -> dict[str, object]:
    out, err, status = io.StringIO(), io.StringIO(), 0
    sys.argv = ["lensmount", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def run(jobs: Path, answers: Path) -> None:
    found = []
    for job in json.loads(jobs.read_text(encoding="utf-8")):
        before = list(sys.path)
        sys.path[:0] = [job["overlay"]] if job["overlay"] else []
        forget()
        found.append(answer(job["command"]))
        sys.path[:] = before
    answers.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
