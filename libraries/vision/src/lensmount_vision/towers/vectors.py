"""Files of embeddings and the names of their images: `.npz`, `.npy` with a `.json` of the same name, `.parquet`.

A long run writes parts into a folder next to the file, so that a run that was killed can be continued. Files and parts
are whole or absent.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "lensmount-vectors"
SUFFIXES = (".npz", ".npy", ".parquet")


@dataclass(frozen=True, slots=True, eq=False)
class VectorTable:
    """Vectors and where they came from.

    Attributes:
        vectors: float32 `(N, D)`, of length 1.
        paths: Absolute paths or addresses of the pictures.
        stamps: int64 `(N, 2)`: size in bytes and time of change in nanoseconds of each file; 0 for what is no file.
        model: What was loaded: an id, path or address.
        fingerprint: Of the model's files.
    """

    vectors: NDArray[np.float32]
    paths: tuple[str, ...]
    stamps: NDArray[np.int64]
    model: str
    fingerprint: str

    def __post_init__(self) -> None:
        count = len(self.paths)
        if self.vectors.ndim != 2 or len(self.vectors) != count or self.stamps.shape != (count, 2):
            raise InputError(
                "a table of vectors contradicts itself",
                found=f"{self.vectors.shape} vectors, {count} paths, {self.stamps.shape} stamps",
                expected="as many of each",
            )

    def rows(self, keep: NDArray[Any]) -> VectorTable:
        """The rows of an index or bool array."""
        chosen = np.arange(len(self.paths))[keep]
        paths = tuple(self.paths[i] for i in chosen)
        return replace(self, vectors=self.vectors[chosen], stamps=self.stamps[chosen], paths=paths)


def stamp(path: str) -> tuple[int, int]:
    """Size and time of change of a file; zeros for an address, or where there is none."""
    if "://" in path or path.startswith("data:"):
        return 0, 0
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def join(tables: list[VectorTable]) -> VectorTable:
    """Several tables of one model as one; of rows with the same path the last one counts.

    Raises:
        InputError: They are of different models, or of vectors of different lengths.
    """
    first = tables[0]
    for other in tables[1:]:
        if other.fingerprint != first.fingerprint or other.vectors.shape[1] != first.vectors.shape[1]:
            raise InputError(
                "these vectors are of different models",
                found=f"{first.model} {first.fingerprint[:12]} and {other.model} {other.fingerprint[:12]}",
                fix="write to another file",
            )
    vectors, stamps = (np.concatenate([getattr(t, name) for t in tables]) for name in ("vectors", "stamps"))
    paths = [path for t in tables for path in t.paths]
    last = {path: i for i, path in enumerate(paths)}
    every = replace(tables[-1], vectors=vectors, stamps=stamps, paths=tuple(paths))
    return every if len(last) == len(paths) else every.rows(np.array(sorted(last.values()), np.int64))


def check_suffix(path: Path) -> None:
    """Refuses a file whose kind is not known, or cannot be written here.

    Raises:
        InputError: The ending is not one of `SUFFIXES`.
        MissingDependencyError: Parquet without pyarrow.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} has no ending that is known", found=path.suffix, expected=", ".join(SUFFIXES))
    if path.suffix == ".parquet":
        _pyarrow()


def write_vectors(table: VectorTable, path: Path) -> None:
    """Writes a table, whole or not at all; the ending says how.

    Raises:
        InputError: The ending is not known, or the file cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    check_suffix(path)
    facts = {"format": FORMAT, "version": 1, "model": table.model, "fingerprint": table.fingerprint, "normalized": True}
    if path.suffix == ".npz":
        meta = np.array(json.dumps(facts))
        _atomic(path, lambda file: np.savez(
            file, vectors=table.vectors, paths=np.array(table.paths, np.str_), stamps=table.stamps, meta=meta
        ))  # fmt: skip
    elif path.suffix == ".npy":
        facts_of_rows = json.dumps({**facts, "paths": table.paths, "stamps": table.stamps.tolist()}, ensure_ascii=False)
        _atomic(path, lambda file: np.save(file, table.vectors))
        _atomic(path.with_suffix(".json"), lambda file: file.write(facts_of_rows.encode()))
    else:
        arrow, parquet = _pyarrow()
        columns = {
            "path": arrow.array(table.paths, arrow.string()),
            "vector": arrow.FixedSizeListArray.from_arrays(
                arrow.array(table.vectors.reshape(-1)), table.vectors.shape[1]
            ),
            "size": arrow.array(table.stamps[:, 0]),
            "changed_ns": arrow.array(table.stamps[:, 1]),
        }
        made = arrow.table(columns).replace_schema_metadata({FORMAT: json.dumps(facts)})
        _atomic(path, lambda file: parquet.write_table(made, file))


def read_vectors(path: Path) -> VectorTable:
    """Reads what `write_vectors` wrote; nothing is unpickled.

    Raises:
        InputError: It is missing or something else.
        MissingDependencyError: Parquet without pyarrow.
    """
    check_suffix(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(str(file["meta"]))
                parts = file["vectors"], file["paths"].tolist(), file["stamps"]
        elif path.suffix == ".npy":
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            parts = (
                np.load(path, allow_pickle=False),
                facts["paths"],
                np.array(facts["stamps"], np.int64).reshape(-1, 2),
            )
        else:
            _, parquet = _pyarrow()
            found = parquet.read_table(path)
            facts = json.loads(found.schema.metadata[FORMAT.encode()])
            column = found["vector"].combine_chunks()
            vectors = column.flatten().to_numpy().reshape(len(found), column.type.list_size)
            stamps = np.stack([found["size"].to_numpy(), found["changed_ns"].to_numpy()], axis=1)
            parts = vectors, found["path"].to_pylist(), stamps
        if facts.get("format") != FORMAT:
            raise ValueError(f"its format is {facts.get('format')!r}")
        vectors, paths, stamps = parts
        return VectorTable(
            vectors.astype(np.float32, copy=False),
            tuple(map(str, paths)),
            stamps.astype(np.int64, copy=False),
            str(facts["model"]),
            str(facts["fingerprint"]),
        )
    except FileNotFoundError as error:
        raise InputError(f"there is no {error.filename}", expected="a file that lensmount embed wrote") from error
    except MissingDependencyError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is no file of vectors", found=str(error)[:120], expected="a file that lensmount embed wrote"
        ) from error
    except Exception as error:  # pyarrow's own errors, which share no base with ours
        if type(error).__module__.startswith("pyarrow"):
            raise InputError(
                f"{path} is no file of vectors", found=str(error)[:120], expected="a file that lensmount embed wrote"
            ) from error
        raise


class Journal:
    """Parts of a table that is being made, in a folder next to its file.

    Args:
        path: The file that the parts are for.
        every: Vectors in a part.
    """

    def __init__(self, path: Path, every: int = 2048) -> None:
        self.folder = path.with_name(f".{path.name}.parts")
        self._every = every
        self._held: list[VectorTable] = []
        self._count = 0

    def parts(self) -> list[VectorTable]:
        """The parts that an earlier run wrote; damaged ones are deleted, so that their rows are embedded again."""
        found = []
        for part in sorted(self.folder.glob("*.npz")):
            try:
                found.append(read_vectors(part))
            except InputError:
                part.unlink(missing_ok=True)
        return found

    def add(self, table: VectorTable) -> None:
        """Takes some rows; writes a part when there are enough."""
        self._held.append(table)
        self._count += len(table.paths)
        if self._count >= self._every:
            self.flush()

    def flush(self) -> None:
        """Writes what is held."""
        if self._held:
            number = len(list(self.folder.glob("*.npz")))
            write_vectors(join(self._held), self.folder / f"{number:06d}.npz")
            self._held, self._count = [], 0

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _atomic(path: Path, write: Callable[[Any], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}",
            found=str(error),
            fix="check that the folder exists and may be written, and that there is room",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet needs pyarrow", found=str(error), fix="pip install pyarrow, or write .npz"
        ) from error
    return pyarrow, pyarrow.parquet
