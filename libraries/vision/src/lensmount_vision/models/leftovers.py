"""Tensors that have no place: a checkpoint with parts that no network here has is refused, not run without them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lensmount.errors import UnsupportedModelError
from lensmount_vision.models.settings import listed

T = TypeVar("T")

#: Of training, next to the network in many checkpoints. The first part of a dotted name.
_TRAINING = re.compile(
    r"^(optimizers?|optimizer_states|(lr_)?schedulers?|(grad_)?scalers?|loops|callbacks|ema\w*|model_ema|rng_states?"
    r"|random_states?|criterion|loss|hyper_parameters|args|config|epoch|step|global_step)(\.|$)"
)
#: Counters and tables that every runtime makes itself.
_CONSTANT = re.compile(r"(^|\.)(num_batches_tracked|position_ids|total_ops|total_params)$")
_MEANINGS = (
    ("lora_", "LoRA adapters that are not merged"),
    ("adapter", "adapters that are not merged"),
    ("ia3", "adapters that are not merged"),
    ("hada_", "adapters that are not merged"),
)


class Taken(dict[str, T]):
    """Tensors by name that remember which were asked for by name (`[]`, `get`, `pop`); going through them is no asking.

    Fill a network from it, then `require_all`.
    """

    def __init__(self, tensors: Mapping[str, T]) -> None:
        super().__init__(tensors)
        self._names = tuple(tensors)
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> T:
        value = super().__getitem__(name)
        self._taken.add(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict; counts as asked for."""
        return self[name] if name in self else default  # noqa: SIM401 - it would call itself

    def pop(self, name: str, *default: Any) -> Any:
        """As of a dict; counts as asked for."""
        self._taken.add(name)
        return super().pop(name, *default)

    def under(self, prefix: str) -> dict[str, T]:
        """The tensors whose names begin with a prefix, without it; they count as asked for."""
        return {name[len(prefix) :]: self[name] for name in list(self) if name.startswith(prefix)}

    def require_all(self, where: str, *, harmless: Iterable[str] = ()) -> None:
        """Refuses tensors that nothing asked for; see `require_all_used`."""
        require_all_used(self._names, self._taken, where, harmless=harmless)


def require_all_used(names: Iterable[str], used: Iterable[str], where: str, *, harmless: Iterable[str] = ()) -> None:
    """Refuses a checkpoint with tensors that have no place in the network that was built from it.

    Args:
        names: All of its tensors.
        used: Those that the network has.
        where: Names the file in messages.
        harmless: Regular expressions, found anywhere in a name, of tensors that change no result. Those of training
            (`optimizer.…`) and constants (`position_ids`, `num_batches_tracked`) are known.

    Raises:
        UnsupportedModelError: Naming what is left, and what it means where that is known.
    """
    known = [re.compile(pattern) for pattern in harmless]
    left = sorted(
        name
        for name in set(names) - set(used)
        if not _TRAINING.search(name) and not _CONSTANT.search(name) and not any(one.search(name) for one in known)
    )
    if not left:
        return
    meaning = next((text for part, text in _MEANINGS if any(part in name.lower() for name in left)), None)
    raise UnsupportedModelError(
        f"{where} has tensors that have no place in the network" + (f": {meaning}" if meaning else ""),
        found=f"{len(left)} of them: {listed(left, 4)}",
        expected="tensors of the network alone: without the others it would give other results",
        fix="merge them into the weights where they were trained (peft: merge_and_unload), and save again"
        if meaning
        else "run it in the library that wrote it; lensmount inspect FILE lists all tensors",
    )
