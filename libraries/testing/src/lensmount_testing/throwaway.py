"""Distributions made up by a test: a package, an entry point and the metadata of an installed wheel."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Written:
    """A distribution that can be found.

    Attributes:
        distribution: Its name.
        package: Name of its import package.
        folder: Folder of that package.
        metadata: Its `.dist-info` folder.
    """

    distribution: str
    package: str
    folder: Path
    metadata: Path


class Throwaway:
    """A folder on the module search path that distributions are written into; gone when the context ends.

    Call it to write one: `tmp_plugin("lensmount-hello", hooks="…source of plugin.py…")`.

    Args:
        folder: Where; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packages: set[str] = set()

    def __enter__(self) -> Throwaway:
        self.folder.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if str(self.folder) in sys.path:
            sys.path.remove(str(self.folder))
        self._forget()

    def __call__(
        self,
        distribution: str,
        hooks: str,
        *,
        files: Mapping[str, str | bytes] | None = None,
        version: str = "1.0",
        requires: Sequence[str] | None = None,
        entry_point: str | None = None,
        group: str = "lensmount",
        typed: bool = True,
    ) -> Written:
        """Writes a distribution whose entry point names its module `plugin`.

        Args:
            distribution: Its name; the import package is called the same, with `_` for `-`.
            hooks: Source of `plugin.py`.
            files: Further files by path below the package.
            version: Its version.
            requires: `Requires-Dist` lines; None for the range of this lensmount, as a real plugin has it.
            entry_point: What the entry point names; None for `<package>.plugin`.
            group: The entry point's group.
            typed: Ship `py.typed`.

        Returns:
            Where things are.
        """
        package = distribution.replace("-", "_").replace(".", "_")
        self._packages.add(package)
        self._forget()
        folder = self.folder / package
        info = self.folder / f"{package}-{version}.dist-info"
        lines = [compatible()] if requires is None else list(requires)
        head = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        contents: dict[Path, str | bytes] = {
            folder / "__init__.py": "",
            folder / "plugin.py": hooks,
            **({folder / "py.typed": ""} if typed else {}),
            **{folder / name: content for name, content in (files or {}).items()},
            info / "METADATA": "\n".join([*head, *(f"Requires-Dist: {line}" for line in lines)]) + "\n",
            info / "entry_points.txt": f"[{group}]\n{package} = {entry_point or package + '.plugin'}\n",
        }
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        record = [path.relative_to(self.folder).as_posix() for path in (*contents, info / "RECORD")]
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in record), encoding="utf-8")
        importlib.invalidate_caches()
        return Written(distribution, package, folder, info)

    def _forget(self) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in self._packages:
                del sys.modules[name]
        importlib.invalidate_caches()


def compatible() -> str:
    """What a plugin that was written for this core requires: `lensmount>=0.1,<0.2`."""
    from lensmount import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    return f"lensmount>={major}.{minor},<{major}.{minor + 1}"
