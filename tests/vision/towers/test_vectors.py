"""Files of vectors: round trips, joins, journals, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lensmount.errors import InputError, LensmountError
from lensmount_vision.towers.vectors import Journal, VectorTable, join, read_vectors, stamp, write_vectors


def table(*paths: str, fingerprint: str = "f" * 64, value: float = 1.0) -> VectorTable:
    vectors = np.full((len(paths), 4), value, np.float32)
    stamps = np.arange(2 * len(paths), dtype=np.int64).reshape(-1, 2)
    return VectorTable(vectors, paths, stamps, "clip/ViT-B-32", fingerprint)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
@pytest.mark.parametrize("paths", [("/a.jpg", "/ü b.png"), ()])
def test_round_trip(suffix: str, paths: tuple[str, ...], tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    made = table(*paths)
    write_vectors(made, tmp_path / f"v{suffix}")
    found = read_vectors(tmp_path / f"v{suffix}")
    assert (found.paths, found.model, found.fingerprint) == (made.paths, made.model, made.fingerprint)
    assert np.array_equal(found.vectors, made.vectors) and found.vectors.dtype == np.float32
    assert np.array_equal(found.stamps, made.stamps)
    assert not list(tmp_path.glob(".*"))


def test_plain_numpy_reads_them(tmp_path: Path) -> None:
    write_vectors(table("/a.jpg"), tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz") as file:
        assert file["vectors"].shape == (1, 4) and file["paths"].tolist() == ["/a.jpg"]
    write_vectors(table("/a.jpg"), tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").shape == (1, 4)


def test_join_keeps_the_last_of_each_path() -> None:
    made = join([table("/a", "/b", value=1), table("/b", "/c", value=2)])
    assert made.paths == ("/a", "/b", "/c")
    assert made.vectors[:, 0].tolist() == [1, 2, 2]
    with pytest.raises(InputError, match="different models"):
        join([table("/a"), table("/b", fingerprint="0" * 64)])


def test_journal_outlives_a_killed_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "v.npz", every=2)
    journal.add(table("/a"))
    assert Journal(tmp_path / "v.npz").parts() == []  # held, not yet written
    journal.add(table("/b"))
    journal.add(table("/c"))
    journal.flush()
    (journal.folder / "000009.npz").write_bytes(b"PK\x03\x04 cut")
    again = Journal(tmp_path / "v.npz")
    assert [path for part in again.parts() for path in part.paths] == ["/a", "/b", "/c"]
    assert not (journal.folder / "000009.npz").exists()
    again.remove()
    assert not journal.folder.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"not"])
def test_what_is_no_such_file_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("v.npz", "v.npy"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "v.json").write_text("{}")
        with pytest.raises(LensmountError):
            read_vectors(tmp_path / name)


def test_foreign_and_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", vectors=np.zeros((1, 4)))
    np.savez(tmp_path / "p.npz", vectors=np.array([{}], object), meta=np.array('{"format": "lensmount-vectors"}'))
    for name in ("v.npz", "p.npz", "missing.npz", "v.csv"):
        with pytest.raises(InputError):
            read_vectors(tmp_path / name)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "v.npz").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_vectors(table("/a"), tmp_path / "v.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["v.npz"]
    with pytest.raises(InputError, match="contradicts"):
        VectorTable(np.zeros((2, 4), np.float32), ("/a",), np.zeros((1, 2), np.int64), "m", "f")


def test_stamps(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert stamp(str(tmp_path / "a"))[0] == 3
    assert stamp("https://host/a.jpg") == stamp(str(tmp_path / "none")) == (0, 0)
