"""What the allowed constructors of a pickle build: tensors, plain containers, numpy values.

Each method stands for one function or class that files name, and does that function's work on plain data. None of the
functions themselves is ever looked up or called.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.allowed import INTERPRETED
from lensmount_reading.dtypes import DTYPES
from lensmount_reading.numpy_values import ArrayRef, scalar
from lensmount_reading.records import GlobalName, Record, describe
from lensmount_reading.tensors import Storage, TensorRef
from lensmount_reading.text import printable

_ITEM_BYTES = 64  # of a set, the widest container
_KEY_TYPES = (str, bytes, type(None), bool)


class Rebuilder:
    """Interprets calls of one pickle.

    Args:
        where: The file and entry, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.declared_bytes = 0
        self.containers = 0
        self.calls = 0
        self.refused = False
        """Whether the pickle is refused already: it is then read on for its names alone, past what makes no sense."""
        self._unknown = Record("unknown", "unknown")
        self._copied = 0
        self._odd_keys = 0
        self._calls: dict[tuple[str, str], Callable[[tuple[object, ...]], object]] = {
            key: getattr(self, f"_{method}") for key, method in INTERPRETED.items()
        }

    # --- the three ways a pickle makes objects ---------------------------------------------------------------------

    def call(self, target: object, args: object) -> object:
        """Do what `REDUCE`, `NEWOBJ`, `OBJ` and `INST` ask for: make an object from a global and arguments."""
        self.calls += 1
        try:
            return self._call(target, args)
        except ModelFileError:
            if not self.refused:
                raise
            return self._unknown

    def _call(self, target: object, args: object) -> object:
        if type(target) is not GlobalName:
            self.unsafe(f"it calls {describe(target)}, which is data")
        if type(args) is not tuple:
            self.malformed(f"the arguments of {target.full_name} are {describe(args)}, not a tuple")
        if target.kind == "call":
            try:
                return self._calls[target.module, target.name](args)
            except (IndexError, TypeError, ValueError, OverflowError, struct.error) as error:
                if isinstance(error, ModelFileError):
                    raise
                self.malformed(f"{target.full_name} has arguments that it cannot have: {printable(error)}")
        if target.kind == "storage":
            self.malformed(f"{target.full_name} is called; storages lie outside the pickle")
        self.count_container()
        return Record(target.module, target.name, args)

    def build(self, target: object, state: object) -> None:
        """Do what `BUILD` asks for: give an object its state. Nothing is set on anything but a `Record`."""
        with self.leniently():
            self._build(target, state)

    @contextlib.contextmanager
    def leniently(self) -> Iterator[None]:
        """Where the pickle is refused already, pass over a step that cannot be done."""
        try:
            yield
        except ModelFileError:
            if not self.refused:
                raise

    def _build(self, target: object, state: object) -> None:
        if type(target) is Record:
            if target.state is not None:
                self.unsafe(f"it builds the same {target.full_name} twice")
            if type(state) is tuple and len(state) == 2 and all(type(part) in (dict, type(None)) for part in state):
                state = state[0] or state[1] if not (state[0] and state[1]) else state
            target.state = state
        elif type(target) is ArrayRef:
            try:
                target.fill(state)
            except (IndexError, TypeError, ValueError) as error:
                if isinstance(error, ModelFileError):
                    raise
                self.malformed(f"a numpy array has a state that it cannot have: {printable(error)}")
            self.declared_bytes += target.nbytes
        elif type(target) is not dict:
            # An ordered dict may carry attributes (`_metadata` of a state dict); they are dropped.
            self.unsafe(f"it sets the state of {describe(target)}")

    def check_key(self, key: object) -> None:
        """Refuse mapping keys and set members that cannot be hashed quickly and without surprises."""
        kind = type(key)
        if kind in _KEY_TYPES or (kind is int and -(1 << 32) < key < 1 << 32):  # type: ignore[operator]  # is an int
            return
        self._odd_keys += 1
        if self._odd_keys > limits.MAX_ODD_KEYS:
            self.unsafe("it has too many keys that are neither strings nor small integers")
        pending, seen = [key], 0
        while pending:
            part = pending.pop()
            seen += 1
            if seen > 1_000:
                self.unsafe("a mapping key has more than 1000 parts")
            if type(part) is tuple:
                pending.extend(part)
            elif type(part) not in (*_KEY_TYPES, int, float, complex):
                self.unsafe(f"a mapping key is {describe(part)}")

    def count_container(self) -> None:
        """Count one more mutable container or record."""
        self.containers += 1
        if self.containers > limits.MAX_CONTAINERS:
            self.unsafe(f"it makes more than {limits.MAX_CONTAINERS} containers")

    def unsafe(self, problem: str) -> NoReturn:
        """Raise `UnsafeFileError`."""
        raise UnsafeFileError(
            f"{self.where} is refused: {problem}",
            expected="tensors, numbers, strings and plain containers within bounds",
            fix="do not use this file; ask its maker for safetensors",
        )

    def malformed(self, problem: str) -> NoReturn:
        """Raise `ModelFileError`."""
        raise ModelFileError(f"{self.where} is malformed: {problem}", fix="download it again")

    # --- plain containers ------------------------------------------------------------------------------------------

    def _spend(self, amount: int) -> None:
        self._copied += amount
        if self._copied > limits.MAX_COPIED:
            self.unsafe("its constructors copy absurdly much data")

    def _items(self, args: tuple[object, ...]) -> Iterable[object]:
        self.count_container()
        if not args:
            return ()
        (source,) = args
        if not isinstance(source, (list, tuple, set, frozenset, dict)):
            self.malformed(f"a container is made from {describe(source)}")
        self._spend(_ITEM_BYTES * len(source))
        return source

    def _list(self, args: tuple[object, ...]) -> object:
        return list(self._items(args))

    def _tuple(self, args: tuple[object, ...]) -> object:
        return tuple(self._items(args))

    def _set(self, args: tuple[object, ...]) -> object:
        return set(self._keys(args))

    def _frozenset(self, args: tuple[object, ...]) -> object:
        return frozenset(self._keys(args))

    def _keys(self, args: tuple[object, ...]) -> list[object]:
        members = list(self._items(args))
        for member in members:
            self.check_key(member)
        return members

    def _dict(self, args: tuple[object, ...]) -> object:
        items = self._items(args)
        if isinstance(items, dict):
            return dict(items)
        made: dict[object, object] = {}
        for pair in items:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                self.malformed("a mapping is not made from pairs")
            self.check_key(pair[0])
            made[pair[0]] = pair[1]
        return made

    def _defaultdict(self, args: tuple[object, ...]) -> object:
        return self._dict(args[1:])  # the factory is not kept: reading never adds keys

    def _complex(self, args: tuple[object, ...]) -> object:
        real, imaginary = args
        if type(real) not in (int, float) or type(imaginary) not in (int, float):
            self.malformed("a complex number is not made from two numbers")
        return complex(float(real), float(imaginary))  # type: ignore[arg-type]  # checked above

    def _encode(self, args: tuple[object, ...]) -> object:
        text, encoding = args
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            self.unsafe(f"it encodes {describe(text)} as {printable(encoding)}")
        self._spend(len(text))
        return text.encode("latin1")

    def _bytes(self, args: tuple[object, ...]) -> object:
        return bytes(self._bytearray(args))  # type: ignore[call-overload]  # is a bytearray

    def _bytearray(self, args: tuple[object, ...]) -> object:
        if not args:
            return bytearray()
        if len(args) == 2:
            return bytearray(self._encode(args))  # type: ignore[call-overload]  # is bytes
        if type(args[0]) not in (bytes, bytearray):
            self.unsafe(f"bytes are made from {describe(args[0])}")
        self._spend(len(args[0]))  # type: ignore[arg-type]  # checked above
        return bytearray(args[0])  # type: ignore[call-overload]  # checked above

    def _path(self, args: tuple[object, ...]) -> object:
        parts = [part for part in args if type(part) is str]
        if len(parts) != len(args):
            self.malformed("a path is not made from strings")
        self._spend(sum(map(len, parts)))
        root = parts.pop(0).rstrip("/\\") + "/" if parts and parts[0].endswith(("/", "\\")) else ""
        return root + "/".join(parts)

    def _reconstructor(self, args: tuple[object, ...]) -> object:
        made, base, state = args
        plain = type(base) is GlobalName and (base.module, base.name) == ("builtins", "object") and state is None
        if not plain:
            self.unsafe(f"it makes {describe(made)} on top of {describe(base)}")
        return self._call(made, ())

    # --- torch -----------------------------------------------------------------------------------------------------

    def _rebuild_tensor(self, args: tuple[object, ...]) -> object:
        storage, offset, shape, stride = args
        return self._tensor(storage, None, offset, shape, stride, False)

    def _rebuild_tensor_v2(self, args: tuple[object, ...]) -> object:
        storage, offset, shape, stride, requires_grad, _hooks, *metadata = args
        self._no_metadata(metadata)
        return self._tensor(storage, None, offset, shape, stride, requires_grad)

    def _rebuild_tensor_v3(self, args: tuple[object, ...]) -> object:
        storage, offset, shape, stride, requires_grad, _hooks, dtype, *metadata = args
        self._no_metadata(metadata)
        return self._tensor(storage, dtype, offset, shape, stride, requires_grad)

    def _no_metadata(self, metadata: list[object]) -> None:
        if any(metadata):
            self.malformed("a tensor is stored conjugated or negated, which is not supported")

    def _tensor(
        self, storage: object, dtype: object, offset: object, shape: object, stride: object, requires_grad: object
    ) -> TensorRef:
        if type(storage) is not Storage:
            self.unsafe(f"a tensor is made from {describe(storage)}, not from a storage")
        name = storage.dtype
        if dtype is not None:
            name = dtype.removeprefix("torch.") if type(dtype) is str else ""
            if name not in DTYPES:
                self.malformed(f"a tensor has the dtype {describe(dtype)}")
        if type(offset) is not int or type(shape) is not tuple or type(stride) is not tuple:
            self.unsafe("a tensor's offset, sizes or strides are not integers")
        self.count_container()
        tensor = TensorRef(storage, name, offset, shape, stride, requires_grad is True)
        self.declared_bytes += tensor.nbytes
        return tensor

    def _rebuild_parameter(self, args: tuple[object, ...]) -> object:
        data, requires_grad, _hooks = args
        return self._as_parameter(data, requires_grad)

    def _rebuild_parameter_with_state(self, args: tuple[object, ...]) -> object:
        data, requires_grad, _hooks, _state = args
        return self._as_parameter(data, requires_grad)

    def _parameter(self, args: tuple[object, ...]) -> object:
        data, *rest = args
        return self._as_parameter(data, rest[0] if rest else True)

    def _as_parameter(self, data: object, requires_grad: object) -> TensorRef:
        if type(data) is not TensorRef:
            self.malformed(f"a parameter is made from {describe(data)}")
        self.count_container()
        return TensorRef(data.storage, data.dtype, data.offset, data.shape, data.stride, requires_grad is True)

    def _from_type(self, args: tuple[object, ...]) -> object:
        function, _type, inner, _state = args
        direct = type(function) is GlobalName and function.module == "torch._utils" and function.kind == "call"
        if not direct:
            self.unsafe(f"a tensor is rebuilt by {describe(function)}")
        return self._call(function, inner)

    def _device(self, args: tuple[object, ...]) -> object:
        kind, *index = args
        if type(kind) is not str or len(index) > 1 or any(type(number) is not int for number in index):
            self.malformed("a device is not a name and a number")
        return ":".join([kind, *map(str, index)])

    def _first(self, args: tuple[object, ...]) -> object:
        return args[0]

    # --- numpy -----------------------------------------------------------------------------------------------------

    def _numpy_dtype(self, args: tuple[object, ...]) -> object:
        self.count_container()
        return Record("numpy", "dtype", args)

    def _numpy_array(self, args: tuple[object, ...]) -> object:
        self.count_container()
        return ArrayRef()

    def _numpy_scalar(self, args: tuple[object, ...]) -> object:
        dtype, data = args
        return scalar(dtype, data)
