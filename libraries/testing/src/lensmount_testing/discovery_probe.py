"""Runs in a process of its own: what discovery of a plugin, or a backend's probe, imports and does.

Reads a job as JSON from standard input, writes what it saw as JSON to the file that is its argument.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Does the job."""
    job = json.loads(sys.stdin.read())
    # What discovery itself needs is there beforehand: only what the plugin adds is seen.
    import lensmount.errors
    import lensmount.host.discovery
    import lensmount.machine.environment
    import lensmount.specs
    import lensmount.specs.catalog
    import lensmount.specs.imports
    from lensmount_testing.guards import kind_of

    environment = lensmount.machine.environment.detect() if "probe" in job else None
    before = set(sys.modules)
    seen: dict[str, list[str]] = {"socket": [], "write": [], "process": []}
    watching = True

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        kind = kind_of(event, arguments) if watching else None
        if kind in seen:
            seen[kind].append(f"{event} {arguments!r}"[:200])

    sys.addaudithook(audit)
    error = None
    try:
        if environment is not None:
            lensmount.specs.imports.import_string(job["probe"], "the backend")(environment)
        for module in job.get("modules", ()):
            _call_hooks(module)
    except BaseException as problem:  # whatever a plugin raises is part of the answer
        error = f"{type(problem).__name__}: {problem}"
    watching = False
    answer: dict[str, Any] = {"modules": sorted(set(sys.modules) - before), "error": error, **seen}
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


def _call_hooks(name: str) -> None:
    module_name, _, attribute = name.partition(":")
    plugin: Any = importlib.import_module(module_name)
    for part in filter(None, attribute.split(".")):
        plugin = getattr(plugin, part)
    for hook in dir(plugin):
        if hook.startswith("lensmount_") and callable(getattr(plugin, hook)):
            found = getattr(plugin, hook)()
            if found is not None:
                list(found)


if __name__ == "__main__":
    main()
