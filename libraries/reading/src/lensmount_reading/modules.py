"""Walking what was read: dotted names for every tensor, and module trees as torch itself would name their parts.

All walks are iterative, cut cycles, and stop at `limits.MAX_NODES`: a file can share one part a thousand times at
each of a hundred levels, so that the tree is small and its unfolding endless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.allowed import is_script_module
from lensmount_reading.records import Record
from lensmount_reading.tensors import TensorRef
from lensmount_reading.text import printable
from lensmount_reading.wrappers import WRAPPERS

_GROUPS = ("_parameters", "_buffers", "_modules")
_WRAPPING = "torch.nn.parallel."


def flatten(tree: object) -> dict[str, TensorRef]:
    """Collect every tensor of a tree under a dotted key.

    Mappings contribute their keys, sequences their positions, records their attributes; the groups of an `nn.Module`
    (`_parameters`, `_buffers`, `_modules`) do not show in the key, so it is the one that `state_dict()` would give.

    Raises:
        ModelFileError: Two tensors have the same key.
        UnsafeFileError: The tree unfolds without end.
    """
    found: dict[str, TensorRef] = {}
    for path, tensor in _walk(tree):
        if path in found and found[path] is not tensor:
            raise ModelFileError(
                f"two tensors have the key {printable(path)}", fix="read them from the checkpoint's tree instead"
            )
        found[path] = tensor
    return found


def _walk(tree: object) -> Iterator[tuple[str, TensorRef]]:
    on_path: set[int] = set()
    # A path of None marks the way back out of a container.
    pending: list[tuple[str | None, object]] = [("", tree)]
    budget = _Budget()
    while pending:
        path, value = pending.pop()
        if path is None:
            on_path.discard(id(value))
        elif isinstance(value, TensorRef):
            yield path or "tensor", value
        elif _branches(value) and id(value) not in on_path:
            children = _children(value)
            budget.spend(1 + len(children))
            if children:
                on_path.add(id(value))
                pending.append((None, value))
                pending.extend((budget.join(path, key), child) for key, child in reversed(children) if _branches(child))


class _Budget:
    """How far a walk may still go: values met, characters of the keys made."""

    def __init__(self) -> None:
        self.nodes = limits.MAX_NODES
        self.characters = limits.MAX_KEY_CHARACTERS

    def spend(self, nodes: int) -> None:
        self.nodes -= nodes
        if self.nodes < 0 or self.characters < 0:
            raise UnsafeFileError(
                f"the tree unfolds to more than {limits.MAX_NODES} values, or to keys without end",
                expected="a model's tree",
                fix="do not use this file; ask its maker for safetensors",
            )

    def join(self, path: str, key: object) -> str:
        name = key if isinstance(key, str) else printable(key)
        joined = f"{path}.{name}" if path else name
        self.characters -= len(joined)
        if len(joined) > limits.MAX_KEY_LENGTH:
            problem = f"a tensor key is longer than {limits.MAX_KEY_LENGTH} characters"
            raise UnsafeFileError(problem, found=printable(joined))
        return joined


def _branches(value: object) -> bool:
    return isinstance(value, (TensorRef, dict, list, tuple, Record))


def _children(value: object) -> list[tuple[object, object]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if not isinstance(value, Record):
        return []
    if not isinstance(value.state, dict):
        return [("state", value.state)]
    children: list[tuple[object, object]] = []
    for name, part in value.state.items():
        if name in _GROUPS and isinstance(part, dict):
            children.extend(part.items())
        else:
            children.append((name, part))
    return children


def module_records(root: Record) -> Iterator[tuple[str, Record]]:
    """Walk a module tree as `nn.Module.named_modules()` does.

    Works on module trees (`_modules`) and on TorchScript's, where submodules are plain attributes.

    Args:
        root: Record of a module.

    Yields:
        Dotted name (empty for the root) and record; a shared module once, under its first name.

    Raises:
        UnsafeFileError: The tree unfolds without end.
    """
    seen: set[int] = set()
    budget = _Budget()
    pending: list[tuple[str, Record]] = [("", root)]
    while pending:
        path, record = pending.pop()
        if id(record) in seen:
            continue
        seen.add(id(record))
        yield path, record
        children = submodules(record)
        budget.spend(1 + len(children))
        pending.extend((budget.join(path, name), child) for name, child in reversed(list(children.items())))


def unwrapped(record: Record) -> Record:
    """Return the module that wrappers of training (`DataParallel`, …) hold; the record itself where there are none."""
    for _ in range(limits.MAX_WRAPPERS):
        held = _members(record)
        (name,) = held if len(held) == 1 else ("",)
        if name not in WRAPPERS or not record.module.startswith(_WRAPPING):
            break
        record = held[name]
    return record


def submodules(record: Record) -> Mapping[str, Record]:
    """Return the direct submodules of a module's record, by name; wrappers around them are left out."""
    return {name: unwrapped(child) for name, child in _members(record).items()}


def _members(record: Record) -> Mapping[str, Record]:
    attributes = record.attributes
    members = attributes.get("_modules")
    if not isinstance(members, dict):
        members = attributes if _is_script(record) else {}
    return {name: child for name, child in members.items() if isinstance(name, str) and isinstance(child, Record)}


def module_state_dict(root: Record) -> dict[str, TensorRef]:
    """Flatten a module tree into the keys of `nn.Module.state_dict()`, in its order.

    Parameters, then persistent buffers, then submodules; shared modules appear under each of their names. For a
    TorchScript archive, where a module's parameters, buffers and tensor attributes look the same, all are returned.

    Args:
        root: Record of a module.

    Returns:
        Dotted official key -> tensor.

    Raises:
        ModelFileError: The record is not a module's.
        UnsafeFileError: The tree unfolds without end.
    """
    if not _is_script(root) and not isinstance(root.attributes.get("_modules"), dict):
        raise ModelFileError(
            f"{root.full_name} is not a module: it has no submodules", expected="an nn.Module's record"
        )
    found: dict[str, TensorRef] = {}
    on_path: set[int] = set()
    pending: list[tuple[str | None, Record]] = [("", root)]
    budget = _Budget()
    while pending:
        path, record = pending.pop()
        if path is None:
            on_path.discard(id(record))
            continue
        if id(record) in on_path:
            continue
        on_path.add(id(record))
        pending.append((None, record))
        own = _own_tensors(record)
        children = submodules(record)
        budget.spend(1 + len(own) + len(children))
        found.update((budget.join(path, name), tensor) for name, tensor in own.items())
        pending.extend((budget.join(path, name), child) for name, child in reversed(list(children.items())))
    return found


def _own_tensors(record: Record) -> dict[str, TensorRef]:
    attributes = record.attributes
    if _is_script(record):
        return _tensors_in(attributes)
    hidden = attributes.get("_non_persistent_buffers_set")
    hidden = hidden if isinstance(hidden, (set, frozenset, list, tuple)) else ()
    buffers = {name: tensor for name, tensor in _tensors_in(attributes.get("_buffers")).items() if name not in hidden}
    return {**_tensors_in(attributes.get("_parameters")), **buffers}


def _tensors_in(members: object) -> dict[str, TensorRef]:
    if not isinstance(members, Mapping):
        return {}
    return {name: part for name, part in members.items() if isinstance(name, str) and isinstance(part, TensorRef)}


def _is_script(record: Record) -> bool:
    return is_script_module(record.module)
