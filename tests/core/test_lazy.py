"""Lazy names of a package, and old names that still work, with a warning that says what to use."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lensmount.errors import LensmountDeprecationWarning
from lensmount.lazy import lazy_names


@pytest.fixture
def package() -> Iterator[types.ModuleType]:
    made = types.ModuleType("lazy_package")
    made.__path__ = []  # a package, so that `from … import` takes importlib's way
    sys.modules[made.__name__] = made
    made.__getattr__, made.__dir__ = lazy_names(  # type: ignore[method-assign]
        made.__name__,
        {"lensmount.errors": ("InputError",)},
        deprecated={"OldError": ("lensmount.errors:ImageError", "0.3")},
    )
    yield made
    del sys.modules[made.__name__]


def test_a_name_is_imported_on_first_use_and_kept(package: types.ModuleType) -> None:
    from lensmount.errors import InputError

    assert "InputError" not in vars(package)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert package.InputError is InputError
    assert vars(package)["InputError"] is InputError


def test_a_name_that_does_not_exist(package: types.ModuleType) -> None:
    with pytest.raises(AttributeError, match="module 'lazy_package' has no attribute 'Nothing'"):
        _ = package.Nothing


def test_an_old_name_works_and_says_what_to_use(package: types.ModuleType) -> None:
    from lensmount.errors import ImageError

    with pytest.warns(LensmountDeprecationWarning) as caught:
        assert package.OldError is ImageError
    (warning,) = caught
    assert str(warning.message) == (
        "lazy_package.OldError is deprecated and will be removed in lensmount 0.3; "
        "use lensmount.errors.ImageError instead"
    )


def test_the_warning_points_at_the_caller(package: types.ModuleType) -> None:
    with pytest.warns(LensmountDeprecationWarning) as caught:
        _ = package.OldError
        from lazy_package import OldError  # type: ignore[import-not-found]  # noqa: F401
    assert len(caught) >= 2  # `from … import` looks a name up twice
    assert {warning.filename for warning in caught} == {__file__}


def test_old_names_are_not_listed(package: types.ModuleType) -> None:
    assert "InputError" in dir(package)
    assert "OldError" not in dir(package)


def warnings_of(folder: Path, program: str) -> list[str]:
    """What a program says on stderr that uses the old name in a module of its own, under Python's own filters."""
    (folder / "face.py").write_text(
        "from lensmount.lazy import lazy_names\n"
        "deprecated = {'OldError': ('lensmount.errors:ImageError', '0.3')}\n"
        "__getattr__, __dir__ = lazy_names(__name__, {}, deprecated=deprecated)\n"
    )
    (folder / "library.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import library"],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
    )
    return [line for line in done.stderr.splitlines() if "LensmountDeprecationWarning" in line]


def test_users_see_it_once_for_each_place(tmp_path: Path) -> None:
    # In an imported module a plain DeprecationWarning would be hidden.
    said = warnings_of(tmp_path, "import face\n\nfor _ in range(3):\n    face.OldError\nface.OldError\n")
    assert [line.partition(": ")[0].rpartition("library.py:")[2] for line in said] == ["4", "5"]


def test_from_import_says_it_once(tmp_path: Path) -> None:
    (said,) = warnings_of(tmp_path, "from face import OldError\n\nOldError\n")
    assert "library.py:1:" in said
