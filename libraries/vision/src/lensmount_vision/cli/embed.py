"""`embed`: vectors of pictures into a file, going on where an earlier run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount.cli.settings import (
    ArchitectureName,
    BackendName,
    DeviceName,
    ModelName,
    Offline,
    PrecisionName,
    Refresh,
    Threads,
)
from lensmount.errors import InputError, LensmountError, OptionError

if TYPE_CHECKING:
    from lensmount_vision.towers.vectors import Journal, VectorTable


def embed(
    model: ModelName,
    source: Annotated[list[str], typer.Argument(help="Pictures: files, folders, globs, URLs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .npz, .npy or .parquet.")],
    batch_size: Annotated[int | None, typer.Option(help="Pictures in one run of the network.")] = None,
    backend: BackendName = None,
    device: DeviceName = None,
    precision: PrecisionName = None,
    architecture: ArchitectureName = None,
    threads: Threads = None,
    offline: Offline = False,
    refresh: Refresh = False,
) -> None:
    """Embed pictures into a file of vectors.

    Pictures that the file has already and that have not changed are not embedded again; those that no longer exist
    are dropped. A run that was stopped goes on where it was. One bad picture is reported and the rest go on (exit
    status 1).
    """
    from lensmount.store.addresses import public
    from lensmount_vision.towers.vectors import Journal, check_suffix, join, read_vectors, write_vectors

    check_suffix(out)
    plain, mark, fragment = model.partition("#")
    name = public(plain) + mark + fragment  # the hash stays: a signature is not written into a file of vectors
    names = _names(source)
    journal = Journal(out)
    with load_embedder(
        model,
        backend=backend,
        device=device,
        precision=precision,
        architecture=architecture,
        offline=offline,
        refresh=refresh,
        threads=threads,
    ) as loaded:
        earlier = ([read_vectors(out)] if out.exists() else []) + journal.parts()
        for table in earlier:
            check_model(loaded, table, f"the vectors in {out}")
        known = _unchanged(earlier)
        todo = [picture for picture in names if picture not in known]
        _say(f"{len(names)} pictures, {len(names) - len(todo)} of them embedded before")
        failed = _run(loaded, name, todo, journal, batch_size)
        tables = [*earlier, *journal.parts()]
        made = join(tables) if tables else _empty(loaded, name)
        made = made.rows(_existing(made))
        write_vectors(made, out)
        journal.remove()
    _say("wrote", end=" ")
    print(f"{out}: {len(made.paths)} vectors of {made.vectors.shape[1]}")
    if failed:
        raise typer.Exit(1)


def load_embedder(model: str, *, offline: bool, threads: int | None, **options: Any) -> Any:
    """Loads a model that embeds.

    Raises:
        OptionError: The model does something else.
    """
    from lensmount import registry

    extra: dict[str, Any] = {} if threads is None else {"threads": threads}
    loaded = registry.load(model, offline=offline or None, **options, **extra)
    if not hasattr(loaded, "embed_images"):
        loaded.close()
        raise OptionError(f"{loaded.card.id!r} does not embed pictures", found=loaded.card.task, expected="embedding")
    return loaded


def check_model(loaded: Any, table: VectorTable, what: str) -> None:
    """Refuses vectors of another model than the loaded one.

    Raises:
        InputError: The fingerprints of the files differ.
    """
    if table.fingerprint != loaded.fingerprint or table.vectors.shape[1] != loaded.dimension:
        raise InputError(
            f"{what} are of another model, or of another form of it",
            found=f"{table.model} ({table.fingerprint[:12]}, {table.vectors.shape[1]} numbers)",
            expected=f"{loaded.card.id} ({loaded.fingerprint[:12]}, {loaded.dimension} numbers)",
            fix=f"use the same model and backend: {table.model}; or write to another file",
        )


def _names(source: list[str]) -> list[str]:
    from lensmount_vision.images.sources import expand_sources, is_video

    every = list(expand_sources(source))
    pictures = [name for name in every if not is_video(name)]
    if len(pictures) < len(every):
        _say(f"{len(every) - len(pictures)} videos left out: embed takes pictures")
    if not pictures:
        raise InputError(
            "there are no pictures to embed",
            found=", ".join(source)[:200],
            expected="files, folders, globs or URLs of pictures",
        )
    local = (name if "://" in name or name.startswith("data:") else str(Path(name).absolute()) for name in pictures)
    return list(dict.fromkeys(local))


def _unchanged(tables: list[VectorTable]) -> set[str]:
    from lensmount_vision.towers.vectors import join, stamp

    if not tables:
        return set()
    table = join(tables)
    rows = zip(table.paths, table.stamps.tolist(), strict=True)
    return {path for path, known in rows if tuple(known) == stamp(path)}


def _existing(table: VectorTable) -> Any:
    import numpy as np

    return np.array(["://" in path or path.startswith("data:") or Path(path).exists() for path in table.paths], bool)


def _empty(loaded: Any, model: str) -> VectorTable:
    import numpy as np

    from lensmount_vision.towers.vectors import VectorTable

    return VectorTable(
        np.empty((0, loaded.dimension), np.float32), (), np.empty((0, 2), np.int64), model, loaded.fingerprint
    )


def _run(loaded: Any, model: str, names: list[str], journal: Journal, batch_size: int | None) -> int:
    """Embeds; returns how many pictures failed."""
    import numpy as np

    from lensmount.cli.output import err, see
    from lensmount_vision.results.kinds import Embeddings
    from lensmount_vision.towers.vectors import VectorTable, stamp

    failed: list[str] = []

    def report(name: str, error: LensmountError) -> None:
        failed.append(error.page)
        err().print(f"{name}: {error.details}", style="red", markup=False)

    try:
        for batch in loaded.embed_batches(names, batch_size=batch_size, progress=True, on_error=report):
            paths = tuple(names[i] for i in batch.indices)
            vectors = Embeddings(vectors=batch.vectors, normalized=False).normalize().vectors
            stamps = np.array([stamp(path) for path in paths], np.int64)
            journal.add(VectorTable(vectors, paths, stamps, model, loaded.fingerprint))
    except KeyboardInterrupt:
        _say("stopped; run the same command again to go on")
        raise typer.Exit(130) from None
    finally:
        journal.flush()
    see(failed)
    return len(failed)


def _say(text: str, end: str = "\n") -> None:
    from lensmount.cli.output import err

    err().print(text, end=end, markup=False)
