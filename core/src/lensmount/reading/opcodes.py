"""The pickle opcodes of protocols 0 to 5, each as a step of `pickles.Machine`; `pickletools` documents them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from lensmount.reading import limits
from lensmount.reading.records import GlobalName

if TYPE_CHECKING:
    from lensmount.reading.pickles import Machine

STOP = ord(".")

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


def _text(data: bytes) -> str:
    # Lone surrogates (undecodable file names) and bad bytes become visible escapes: such text can always be printed.
    return str(data, "utf-8", "backslashreplace")


def _unicode_of(width: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        m.stack.append(_text(m.take_sized(width)))

    return step


def _bytes_of(width: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        m.stack.append(m.take_sized(width))

    return step


def _bytearray8(m: Machine) -> None:
    m.rebuilder.count_container()
    m.stack.append(bytearray(m.take_sized(8)))


def _binstring(m: Machine) -> None:
    m.stack.append(_text(m.take_sized(4)))


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

    m.stack.append(_text(_ESCAPE.sub(plain, line[1:-1])))


# --- containers -------------------------------------------------------------------------------------------------------


def _empty_tuple(m: Machine) -> None:
    m.stack.append(())


def _empty_list(m: Machine) -> None:
    m.rebuilder.count_container()
    m.stack.append([])


def _empty_dict(m: Machine) -> None:
    m.rebuilder.count_container()
    m.stack.append({})


def _empty_set(m: Machine) -> None:
    m.rebuilder.count_container()
    m.stack.append(set())


def _tuple1(m: Machine) -> None:
    m.stack[-1] = (m.stack[-1],)


def _tuple2(m: Machine) -> None:
    second = m.stack.pop()
    m.stack[-1] = (m.stack[-1], second)


def _tuple3(m: Machine) -> None:
    third = m.stack.pop()
    second = m.stack.pop()
    m.stack[-1] = (m.stack[-1], second, third)


def _tuple(m: Machine) -> None:
    items = tuple(m.pop_mark())
    m.stack.append(items)


def _list(m: Machine) -> None:
    m.rebuilder.count_container()
    items = m.pop_mark()
    m.stack.append(items)


def _dict(m: Machine) -> None:
    items = m.pop_mark()
    _empty_dict(m)
    _set_items(m, items)


def _frozenset(m: Machine) -> None:
    items = m.pop_mark()
    for item in items:
        m.rebuilder.check_key(item)
    m.rebuilder.count_container()
    m.stack.append(frozenset(items))


def _append(m: Machine) -> None:
    _extend(m, [m.stack.pop()])


def _appends(m: Machine) -> None:
    _extend(m, m.pop_mark())


def _extend(m: Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is not list:
        m.rebuilder.unsafe("it appends to what is not a list")
    target.extend(items)


def _setitem(m: Machine) -> None:
    value = m.stack.pop()
    _set_items(m, [m.stack.pop(), value])


def _setitems(m: Machine) -> None:
    _set_items(m, m.pop_mark())


def _set_items(m: Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is not dict:
        m.rebuilder.unsafe("it sets items of what is not a dict")
    if len(items) % 2:
        m.rebuilder.malformed("a key has no value")
    check = m.rebuilder.check_key
    for index in range(0, len(items), 2):
        key = items[index]
        if type(key) is not str:
            check(key)
        target[key] = items[index + 1]


def _additems(m: Machine) -> None:
    items = m.pop_mark()
    target = m.stack[-1]
    if type(target) is not set:
        m.rebuilder.unsafe("it adds to what is not a set")
    for item in items:
        m.rebuilder.check_key(item)
    target.update(items)


# --- stack and memo ---------------------------------------------------------------------------------------------------


def _mark(m: Machine) -> None:
    if len(m.marks) >= limits.MAX_MARKS:
        m.rebuilder.unsafe(f"more than {limits.MAX_MARKS} containers are begun and not ended")
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _pop_mark(m: Machine) -> None:
    m.pop_mark()


def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _get(m: Machine) -> None:
    m.stack.append(m.memo[m.decimal(m.take_line())])


def _binget(m: Machine) -> None:
    m.stack.append(m.memo[m.take(1)[0]])


def _long_binget(m: Machine) -> None:
    m.stack.append(m.memo[int.from_bytes(m.take(4), "little")])


def _put(m: Machine) -> None:
    index = m.decimal(m.take_line())
    if not 0 <= index < 1 << 32:
        m.rebuilder.malformed("a memo index is out of range")
    m.remember(index)


def _binput(m: Machine) -> None:
    m.remember(m.take(1)[0])


def _long_binput(m: Machine) -> None:
    m.remember(int.from_bytes(m.take(4), "little"))


def _memoize(m: Machine) -> None:
    m.remember(len(m.memo))


# --- objects ----------------------------------------------------------------------------------------------------------


def _global(m: Machine) -> None:
    module = _text(m.take_line())
    m.stack.append(m.find_global(module, _text(m.take_line())))


def _stack_global(m: Machine) -> None:
    name = m.stack.pop()
    m.stack.append(m.find_global(m.stack.pop(), name))


def _extension_of(width: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        code = int.from_bytes(m.take(width), "little")
        name = f"extension {code} of the copyreg registry"
        m.note_refused(name)
        m.stack.append(GlobalName("copyreg", name, "refused"))

    return step


def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.rebuilder.call(m.stack[-1], args)


def _newobj_ex(m: Machine) -> None:
    keywords = m.stack.pop()
    args = m.stack.pop()
    if type(keywords) is not dict:
        m.rebuilder.malformed("keyword arguments are not a dict")
    if keywords:
        if type(args) is not tuple:
            m.rebuilder.malformed("arguments are not a tuple")
        args = (*args, keywords)
    m.stack[-1] = m.rebuilder.call(m.stack[-1], args)


def _inst(m: Machine) -> None:
    module = _text(m.take_line())
    target = m.find_global(module, _text(m.take_line()))
    args = tuple(m.pop_mark())
    m.stack.append(m.rebuilder.call(target, args))


def _obj(m: Machine) -> None:
    items = m.pop_mark()
    m.stack.append(m.rebuilder.call(items[0], tuple(items[1:])))


def _build(m: Machine) -> None:
    state = m.stack.pop()
    m.rebuilder.build(m.stack[-1], state)


def _persid(m: Machine) -> None:
    m.stack.append(m.find_persistent(_text(m.take_line())))


def _binpersid(m: Machine) -> None:
    m.stack[-1] = m.find_persistent(m.stack[-1])


# --- the stream itself ------------------------------------------------------------------------------------------------


def _proto(m: Machine) -> None:
    version = m.take(1)[0]
    if version > 5:
        m.rebuilder.malformed(f"it claims protocol {version}; 5 is the highest there is")


def _frame(m: Machine) -> None:
    size = int.from_bytes(m.take(8), "little")
    if size > m.end - m.position:
        m.truncated()


def _out_of_band(m: Machine) -> None:
    m.rebuilder.unsafe("it refers to buffers outside it")


def _unknown(m: Machine) -> None:
    m.rebuilder.malformed(f"byte {m.position - 1} is no opcode")


_STEPS: dict[bytes, Callable[[Machine], None]] = {
    b"N": _none, b"\x88": _true, b"\x89": _false,
    b"J": _binint, b"K": _binint1, b"M": _binint2, b"I": _int, b"L": _long, b"\x8a": _long1, b"\x8b": _long4,
    b"G": _binfloat, b"F": _float,
    b"X": _unicode_of(4), b"\x8c": _unicode_of(1), b"\x8d": _unicode_of(8), b"V": _unicode,
    b"B": _bytes_of(4), b"C": _bytes_of(1), b"\x8e": _bytes_of(8), b"\x96": _bytearray8,
    b"S": _string, b"T": _binstring, b"U": _unicode_of(1),
    b")": _empty_tuple, b"]": _empty_list, b"}": _empty_dict, b"\x8f": _empty_set,
    b"\x85": _tuple1, b"\x86": _tuple2, b"\x87": _tuple3, b"t": _tuple, b"l": _list, b"d": _dict, b"\x91": _frozenset,
    b"a": _append, b"e": _appends, b"s": _setitem, b"u": _setitems, b"\x90": _additems,
    b"(": _mark, b"0": _pop, b"1": _pop_mark, b"2": _dup,
    b"g": _get, b"h": _binget, b"j": _long_binget, b"p": _put, b"q": _binput, b"r": _long_binput, b"\x94": _memoize,
    b"c": _global, b"\x93": _stack_global, b"i": _inst, b"o": _obj,
    b"\x82": _extension_of(1), b"\x83": _extension_of(2), b"\x84": _extension_of(4),
    b"R": _reduce, b"\x81": _reduce, b"\x92": _newobj_ex, b"b": _build, b"P": _persid, b"Q": _binpersid,
    b"\x80": _proto, b"\x95": _frame, b"\x97": _out_of_band, b"\x98": _out_of_band,
}  # fmt: skip

HANDLERS: list[Callable[[Machine], None]] = [_STEPS.get(bytes([code]), _unknown) for code in range(256)]
"""The step of each opcode, by its byte. `NEWOBJ` does the same as `REDUCE`: both make an object from a global."""
