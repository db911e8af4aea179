"""`search`: the pictures in a file of vectors that are nearest to a text or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount.cli.settings import AsJson, BackendName, DeviceName, Offline
from lensmount.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 224  # pixels of a side of a picture in the grid


def search(
    vectors: Annotated[Path, typer.Argument(help="File that lensmount embed wrote.")],
    query: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[str | None, typer.Option(help="Look for pictures like this one instead.")] = None,
    top: Annotated[int, typer.Option(help="How many to show.")] = 10,
    save: Annotated[Path | None, typer.Option(help="Picture to write: a grid of what was found.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, if it is no longer where it was.")] = None,
    backend: BackendName = None,
    device: DeviceName = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Find pictures by words, or by another picture.

    Every vector is compared: exact, and quick enough up to some millions. Scores are cosines: they order the pictures,
    and say little about whether any of them shows what was asked for.
    """
    from lensmount.cli.output import out, table, write_json
    from lensmount.specs.options import positive
    from lensmount_vision.cli.embed import check_model, load_embedder
    from lensmount_vision.towers.vectors import read_vectors

    if (query is None) == (image is None):
        raise InputError("search needs either words or --image", fix='lensmount search vectors.npz "a red car"')
    positive("top", top)
    found = read_vectors(vectors)
    options = {"backend": backend, "device": device, "precision": None, "architecture": None}
    with load_embedder(model or found.model, offline=offline, threads=None, **options) as loaded:
        check_model(loaded, found, f"the vectors in {vectors}")
        wanted = loaded.embed_text(query) if query is not None else loaded.embed_images(image)
    scores = found.vectors @ wanted.vectors[0]
    order = scores.argsort(kind="stable")[::-1][:top]
    if save is not None:
        save_grid([found.paths[i] for i in order], [float(scores[i]) for i in order], save)
    if as_json:
        write_json([{"path": found.paths[i], "cosine": round(float(scores[i]), 6)} for i in order], "-")
        return
    rows = table("", "cosine", "picture")
    for place, i in enumerate(order, 1):
        rows.add_row(str(place), f"{scores[i]:.4f}", found.paths[i])
    out().print(rows)
    if save is not None:
        out().print(f"saved {save}", markup=False)


def save_grid(paths: list[str], scores: list[float], target: Path) -> None:
    """Writes a grid of pictures with their scores; one that cannot be read stays grey.

    Raises:
        InputError: The picture cannot be encoded or written.
    """
    import math

    import numpy as np

    from lensmount.cli.output import write_atomically
    from lensmount_vision.images.decoding import import_cv2

    cv2 = import_cv2()
    columns = max(1, math.ceil(math.sqrt(len(paths))))
    rows = max(1, math.ceil(len(paths) / columns))
    grid: NDArray[Any] = np.full((rows * TILE, columns * TILE, 3), 96, np.uint8)
    for number, (path, score) in enumerate(zip(paths, scores, strict=True)):
        y, x = number // columns * TILE, number % columns * TILE
        tile = grid[y : y + TILE, x : x + TILE]
        picture = _tile(path)
        if picture is not None:
            tile[:] = picture
        text = f"{number + 1}: {score:.3f}"
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(tile, text, (6, TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width, cv2.LINE_AA)
    try:
        done, content = cv2.imencode(target.suffix or ".png", grid)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"cannot write {target}", found=target.suffix, expected="a picture: .png, .jpg, .webp")
    write_atomically(target, content.tobytes())


def _tile(path: str) -> NDArray[Any] | None:
    """The middle of a picture, square; None if it cannot be read."""
    from lensmount.errors import LensmountError
    from lensmount_vision.images.decoding import import_cv2
    from lensmount_vision.images.loading import load

    try:
        pixels = load(path).array("bgr")
    except LensmountError:
        return None
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square: NDArray[Any] = import_cv2().resize(
        pixels[top : top + side, left : left + side], (TILE, TILE), interpolation=import_cv2().INTER_AREA
    )
    return square
