"""Air-gap bundles: a folder with a manifest and every file of a model, to be carried to a machine without a network."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lensmount.errors import InputError
from lensmount.specs import ModelCard
from lensmount.store.fetch import FetchedPackage
from lensmount.store.files import copy_verified, safe_name, size_error, storing, sync_folder

_ROOM = 16 << 20


def write_bundle(card: ModelCard, packages: Mapping[str, FetchedPackage], folder: Path) -> Path:
    """Writes a bundle: `<folder>/lensmount.json` and `<folder>/<package>/<artifact>`, whole or not at all.

    Args:
        card: The model.
        packages: Its fetched packages by name; the others are left out of the bundle's card.
        folder: Where; it may exist if it is empty.

    Returns:
        The folder. A load by its path reads it, and so does `manifests.read_manifest`.

    Raises:
        InputError: The folder holds something, or a package is not the card's.
        IntegrityError: A file changed since it was fetched.
        StoreError: The disk is full, read-only or the like.
    """
    from lensmount.store.manifests import write_manifest

    chosen = tuple(package for package in card.packages if package.name in packages)
    if not chosen or len(chosen) != len(packages):
        raise InputError(
            f"a bundle of {card.id!r} needs packages of it",
            found=", ".join(sorted(packages)) or "none",
            expected="some of " + ", ".join(package.name for package in card.packages),
        )
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty", expected="a new or empty folder", fix="choose another folder")
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.partial")
    paths: dict[tuple[str, str], str] = {}
    try:
        with storing(folder, "writing the bundle"):
            building.mkdir(parents=True)
            needed = sum(sum(packages[package.name].sizes.values()) for package in chosen)
            free = shutil.disk_usage(building).free
            if free < needed + _ROOM:
                raise size_error(needed + _ROOM, free, building)
            for package in chosen:
                fetched = packages[package.name]
                for artifact in package.artifacts:
                    place = f"{safe_name(package.name)}/{artifact.name}"
                    paths[package.name, artifact.name] = place
                    target = building.joinpath(*place.split("/"))
                    copy_verified(fetched.files[artifact.name], target, fetched.sha256s[artifact.name])
            write_manifest(replace(card, packages=chosen), building, paths=paths)
            if folder.exists():
                folder.rmdir()
            building.replace(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
