"""The pickle opcodes for constants, numbers and strings, each as a step of `machine.Machine`."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from lensmount_reading import limits
from lensmount_reading.machine import Machine

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.ASCII | re.DOTALL)
_PLAIN_ESCAPES = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_FLOAT = re.compile(rb"[-+]?(?:[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]{1,4})?|inf|nan)", re.ASCII)


# --- constants and numbers --------------------------------------------------------------------------------------------


def _none(m: Machine) -> None:
    m.stack.append(None)


def _true(m: Machine) -> None:
    m.stack.append(True)


def _false(m: Machine) -> None:
    m.stack.append(False)


def _binint(m: Machine) -> None:
    m.stack.append(int.from_bytes(m.take(4), "little", signed=True))


def _binint1(m: Machine) -> None:
    m.stack.append(m.take(1)[0])


def _binint2(m: Machine) -> None:
    m.stack.append(int.from_bytes(m.take(2), "little"))


def _int(m: Machine) -> None:
    line = m.take_line()
    # "00" and "01" are protocol 0's booleans.
    m.stack.append(line == b"01" if line in (b"00", b"01") else m.decimal(line))


def _long(m: Machine) -> None:
    line = m.take_line()
    m.stack.append(m.decimal(line.removesuffix(b"L")))  # the suffix is Python 2's


def _long_of(m: Machine, size: int) -> None:
    if size < 0 or size > limits.MAX_INTEGER_BYTES:
        m.rebuilder.unsafe(f"an integer of {size} bytes")
    m.stack.append(int.from_bytes(m.take(size), "little", signed=True))


def _long1(m: Machine) -> None:
    _long_of(m, m.take(1)[0])


def _long4(m: Machine) -> None:
    _long_of(m, int.from_bytes(m.take(4), "little", signed=True))


def _binfloat(m: Machine) -> None:
    m.stack.append(struct.unpack(">d", m.take(8))[0])


def _float(m: Machine) -> None:
    line = m.take_line()
    if not _FLOAT.fullmatch(line):
        m.rebuilder.malformed("a number is not one")
    m.stack.append(float(line))


# --- strings ----------------------------------------------------------------------------------------------------------


def text(data: bytes) -> str:
    """Decode UTF-8; nothing fails."""
    # Lone surrogates (undecodable file names) and bad bytes become visible escapes: such text can always be printed.
    return str(data, "utf-8", "backslashreplace")


def _unicode_of(width: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        m.stack.append(text(m.take_sized(width)))

    return step


def _bytes_of(width: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        m.stack.append(m.take_sized(width))

    return step


def _bytearray8(m: Machine) -> None:
    m.rebuilder.count_container()
    m.stack.append(bytearray(m.take_sized(8)))


def _binstring(m: Machine) -> None:
    m.stack.append(text(m.take_sized(4)))


def _unicode(m: Machine) -> None:
    m.stack.append(str(m.take_line(), "raw-unicode-escape", "backslashreplace"))


def _string(m: Machine) -> None:
    line = m.take_line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        m.rebuilder.malformed("a string has no quotes around it")

    def plain(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes([int(match[1], 16)])
        if match[2] not in _PLAIN_ESCAPES:
            m.rebuilder.malformed("a string has an unknown escape")
        return _PLAIN_ESCAPES[match[2]]

    m.stack.append(text(_ESCAPE.sub(plain, line[1:-1])))


VALUE_STEPS: dict[bytes, Callable[[Machine], None]] = {
    b"N": _none, b"\x88": _true, b"\x89": _false,
    b"J": _binint, b"K": _binint1, b"M": _binint2, b"I": _int, b"L": _long, b"\x8a": _long1, b"\x8b": _long4,
    b"G": _binfloat, b"F": _float,
    b"X": _unicode_of(4), b"\x8c": _unicode_of(1), b"\x8d": _unicode_of(8), b"V": _unicode,
    b"B": _bytes_of(4), b"C": _bytes_of(1), b"\x8e": _bytes_of(8), b"\x96": _bytearray8,
    b"S": _string, b"T": _binstring, b"U": _unicode_of(1),
}  # fmt: skip
"""The step of each of these opcodes."""
