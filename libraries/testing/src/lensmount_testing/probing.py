"""Asks `discovery_probe` in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

LIGHT = frozenset({"lensmount", "lensmount_reading", "packaging", "platformdirs", "pluggy", "tomli"})
"""Besides the standard library and the plugin's own packages, what a hook module or probe may import."""

_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Seen:
    """What a fresh process saw.

    Attributes:
        modules: Modules that were imported on top of what discovery itself needs.
        sockets: Sockets and names that were asked for.
        writes: Files and folders that were altered.
        processes: Programs that were started.
        error: What was raised, or None.
    """

    modules: tuple[str, ...]
    sockets: tuple[str, ...]
    writes: tuple[str, ...]
    processes: tuple[str, ...]
    error: str | None

    def foreign(self, own: Iterable[str], light: Iterable[str] = LIGHT) -> list[str]:
        """Top-level names of what was imported, and is neither the standard library's, nor `own`, nor `light`."""
        allowed = {*own, *light, *sys.stdlib_module_names}
        return sorted({top for name in self.modules if (top := name.partition(".")[0]) not in allowed})

    def of_the_core(self) -> list[str]:
        """Modules of lensmount that discovery itself does not need."""
        return [name for name in self.modules if name.partition(".")[0] == "lensmount"]


def see(**job: Any) -> Seen:
    """Runs the probe.

    Args:
        **job: `modules=[…]` to import as discovery does, or `probe="module:attribute"` of a backend.
    """
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        done = subprocess.run(
            [sys.executable, "-B", "-m", "lensmount_testing.discovery_probe", str(answer)],
            input=json.dumps(job),
            env=environ,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if not answer.is_file():
            raise AssertionError(f"the process of discovery ended with status {done.returncode}\n{done.stderr[-3000:]}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    return Seen(
        modules=tuple(found["modules"]),
        sockets=tuple(found["socket"]),
        writes=tuple(found["write"]),
        processes=tuple(found["process"]),
        error=found["error"],
    )


def packages_of(distribution: metadata.Distribution) -> set[str]:
    """Top-level import names that a distribution installs, as far as its metadata tell; always those it points to."""
    names = {
        point.value.partition(":")[0].partition(".")[0].strip()
        for point in distribution.entry_points
        if point.group == "lensmount"
    }
    for file in distribution.files or ():
        if len(file.parts) > 1 and file.parts[0].isidentifier():
            names.add(file.parts[0])
    return names
