"""The pickle opcodes of protocols 0 to 5, each as a step of `machine.Machine`; `pickletools` documents them."""

from __future__ import annotations

from collections.abc import Callable

from lensmount_reading import limits
from lensmount_reading.machine import Machine
from lensmount_reading.opcodes_values import VALUE_STEPS, text
from lensmount_reading.records import GlobalName

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
    made: frozenset[object] = frozenset()
    with m.rebuilder.leniently():
        for item in items:
            m.rebuilder.check_key(item)
        made = frozenset(items)
    m.rebuilder.count_container()
    m.stack.append(made)


def _append(m: Machine) -> None:
    _extend(m, [m.stack.pop()])


def _appends(m: Machine) -> None:
    _extend(m, m.pop_mark())


def _extend(m: Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is list:
        target.extend(items)
        return
    with m.rebuilder.leniently():
        m.rebuilder.unsafe("it appends to what is not a list")


def _setitem(m: Machine) -> None:
    value = m.stack.pop()
    _set_items(m, [m.stack.pop(), value])


def _setitems(m: Machine) -> None:
    _set_items(m, m.pop_mark())


def _set_items(m: Machine, items: list[object]) -> None:
    target = m.stack[-1]
    check = m.rebuilder.check_key
    with m.rebuilder.leniently():
        if type(target) is not dict:
            m.rebuilder.unsafe("it sets items of what is not a dict")
        if len(items) % 2:
            m.rebuilder.malformed("a key has no value")
        for index in range(0, len(items), 2):
            key = items[index]
            if type(key) is not str:
                check(key)
            target[key] = items[index + 1]


def _additems(m: Machine) -> None:
    items = m.pop_mark()
    target = m.stack[-1]
    with m.rebuilder.leniently():
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
    module = text(m.take_line())
    m.stack.append(m.find_global(module, text(m.take_line())))


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
    if keywords and type(args) is tuple:
        args = (*args, keywords)
    m.stack[-1] = m.rebuilder.call(m.stack[-1], args)


def _inst(m: Machine) -> None:
    module = text(m.take_line())
    target = m.find_global(module, text(m.take_line()))
    args = tuple(m.pop_mark())
    m.stack.append(m.rebuilder.call(target, args))


def _obj(m: Machine) -> None:
    items = m.pop_mark()
    m.stack.append(m.rebuilder.call(items[0], tuple(items[1:])))


def _build(m: Machine) -> None:
    state = m.stack.pop()
    m.rebuilder.build(m.stack[-1], state)


def _persid(m: Machine) -> None:
    m.stack.append(m.find_persistent(text(m.take_line())))


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
    **VALUE_STEPS,
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
