"""What the tests against the references' own packages share: how results are compared, and how the outcome is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def written_by(*distributions: str) -> str:
    """Name and version of the packages that wrote a file."""
    return ", ".join(f"{name} {metadata.version(name).partition('+')[0]}" for name in distributions)


def installed(distribution: str) -> bool:
    """Whether a package is there."""
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


class Row:
    """One configuration of one kind of file: compares, and remembers the largest difference of each quantity."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept = kept

    def close(self, quantity: str, found: Any, expected: Any, allowed: float, *, relative: bool = False) -> None:
        """Fails where two arrays differ by more than `allowed`, of their largest value if `relative`."""
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        assert found.shape == expected.shape, f"{quantity}: {found.shape} instead of {expected.shape}"
        assert np.isfinite(expected).all(), f"{quantity}: the reference itself is not finite"
        largest = float(np.abs(found - expected).max()) if found.size else 0.0
        if relative and found.size:
            largest /= float(np.abs(expected).max())
        assert largest <= allowed, f"{quantity}: differs by {largest:.3g}, allowed are {allowed:.3g}"
        self._kept["largest"][quantity] = max(self._kept["largest"].get(quantity, 0.0), largest)

    def at_least(self, quantity: str, value: float, wanted: float) -> None:
        """Fails where a share is below `wanted`."""
        assert value >= wanted, f"{quantity}: {value:.5f}, wanted is {wanted}"
        self._kept["least"][quantity] = min(self._kept["least"].get(quantity, 1.0), float(value))


class Outcome:
    """What the tests found, by package and kind of file; written only if all of them passed."""

    def __init__(self) -> None:
        self.loads: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, dict[str, Any]] = {}

    def __call__(self, writer: str, file: str, by: str) -> Row:
        """Begins a configuration.

        Args:
            writer: Name and version of what wrote the file.
            file: Its kind.
            by: What it is recognised by.
        """
        kept = self.loads.setdefault(
            f"{writer} | {file}",
            {"writer": writer, "file": file, "by": by, "configurations": 0, "largest": {}, "least": {}},
        )
        kept["configurations"] += 1
        return Row(kept)

    def refuses(self, writer: str, file: str, error: Any) -> None:
        """Keeps why a file is not loaded."""
        said = f"{type(error).__name__}: {error.problem}"
        self.refused[f"{writer} | {file}"] = {"writer": writer, "file": file, "said": said, "found": error.found or ""}

    def write(self, path: Path) -> None:
        """Puts the outcome into a file; rows of packages that this run did not have stay."""
        held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"loads": {}, "refused": {}}
        for name, rows in (("loads", self.loads), ("refused", self.refused)):
            held[name].update(rows)
        text = json.dumps(held, indent=1, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def randomise(network: Any, seed: int, spread: float = 0.05) -> Any:
    """Adds noise to every parameter: networks begin with zeros and ones that would hide what is not read."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * spread)
    return network.eval()


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Coloured blocks under noise, RGB uint8: edges and flat places."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    blocks = np.kron(coarse, np.ones((16, 16, 1), np.int64))[:height, :width]
    return np.clip(blocks + rng.integers(-12, 13, blocks.shape), 0, 255).astype(np.uint8)


def png(path: Path, rgb: np.ndarray) -> Path:
    """Writes a picture without loss."""
    from PIL import Image

    Image.fromarray(rgb).save(path)
    return path


def match(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], names: tuple[Sequence[str], Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs detections `(boxes, scores)` of equal names: neighbours in score may change places between kernels.

    Returns:
        Indices into both, as many as there are. Fails where the lists differ in length or a partner is missing.
    """
    assert len(found[0]) == len(expected[0]), f"{len(found[0])} detections instead of {len(expected[0])}"
    free = set(range(len(found[0])))
    pairs = []
    for j in range(len(expected[0])):
        likely = [i for i in free if names[0][i] == names[1][j]]
        assert likely, f"no detection left for {names[1][j]!r} at {expected[0][j]}"
        i = min(
            likely, key=lambda i: float(np.abs(found[0][i] - expected[0][j]).max()) + abs(found[1][i] - expected[1][j])
        )
        free.discard(i)
        pairs.append((i, j))
    left, right = (np.array(side, np.int64) for side in zip(*pairs, strict=True)) if pairs else (np.zeros(0, int),) * 2
    return left, right
