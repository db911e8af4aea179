"""One member of an archive, copied out whole or not at all."""

from __future__ import annotations

import hashlib
import random
import zipfile

import pytest

from lensmount.errors import LensmountError, UnsafeFileError
from lensmount_reading import copy_member

CONTENT = bytes(random.Random(0).choices(b"abcdef", k=3_000_001))


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/stored.bin", CONTENT, zipfile.ZIP_STORED)
        made.writestr("a/deflated.bin", CONTENT, zipfile.ZIP_DEFLATED)
        made.writestr("a/empty.bin", b"", zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("name", ["stored", "deflated", "empty"])
def test_a_member_is_copied(name, archive, tmp_path):
    target = tmp_path / "out"
    size, digest = copy_member(archive, f"a/{name}.bin", target)
    whole = b"" if name == "empty" else CONTENT
    assert target.read_bytes() == whole
    assert (size, digest) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_another_name_lists_the_nearest(archive, tmp_path):
    with pytest.raises(KeyError, match=r"a/stored\.bin"):
        copy_member(archive, "a/store.bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_is_kept_before_anything_is_written(archive, tmp_path):
    with pytest.raises(UnsafeFileError, match="3,000,001"):
        copy_member(archive, "a/stored.bin", tmp_path / "out", limit=3_000_000)
    assert not (tmp_path / "out").exists()


def test_an_existing_file_stays(archive, tmp_path):
    target = tmp_path / "out"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        copy_member(archive, "a/stored.bin", target)
    assert target.read_bytes() == b"mine"


def test_damaged_archives_leave_no_file(archive, tmp_path):
    """Every kind of damage is a typed error, and the file is there only where it has the promised size."""
    whole = archive.read_bytes()
    rng = random.Random(1)
    wrong = 0
    for number in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(data)) if number % 2 else rng.randrange(len(data) - 250, len(data))
            data[at] = rng.randrange(256)
        if number % 10 == 0:
            del data[rng.randrange(len(data)) :]
        damaged, target = tmp_path / f"{number}.whl", tmp_path / f"{number}.out"
        damaged.write_bytes(data)
        try:
            size, digest = copy_member(damaged, "a/deflated.bin", target)
        except (LensmountError, KeyError):
            wrong += 1
            assert not target.exists()
        else:
            assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
            assert target.stat().st_size == size
        damaged.unlink()
    assert wrong > 50
