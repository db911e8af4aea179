"""State dicts as training leaves them: under wrappers, one in another, around the whole and around parts."""

from __future__ import annotations

import random

NAMES = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
WAYS = ("module", "_orig_mod", 0, 1, 2)
"""One wrapper around the whole, or wrappers drawn with a seed."""


def wrapped(tensors, way):
    """The same tensors under wrapped names."""
    if isinstance(way, str):
        return {f"{way}.{name}": tensor for name, tensor in tensors.items()}
    draw = random.Random(way)
    chains = {}

    def chain(path):
        """A part of the network is wrapped once, whatever tensors it has."""
        if path not in chains:
            count = draw.choice((1, 2, 3)) if path == () else draw.choice((0, 0, 1, 2))
            chains[path] = [draw.choice(NAMES) for _ in range(count)]
        return chains[path]

    made = {}
    for name, tensor in tensors.items():
        *parts, last = name.split(".")
        found = list(chain(()))
        for end, part in enumerate(parts, 1):
            found += [part, *chain(tuple(parts[:end]))]
        made[".".join([*found, last])] = tensor
    return made
