"""What the core itself brings, registered through the same hooks as a third party's."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import CacheProvider, Command, Reader, Source, hookimpl


@hookimpl
def lensmount_sources() -> Iterable[Source]:
    """The Hugging Face hub, web addresses, local files and files inside installed packages."""
    for scheme, finder, text in (
        ("hf", "hf:HubFinder", "a Hugging Face repository"),
        ("https", "https:HttpsFinder", "a web address"),
        ("http", "https:HttpsFinder", "an unencrypted web address; refused unless a hash or the user vouches for it"),
        ("file", "local:LocalFinder", "a file or folder"),
        ("package", "package:PackageFinder", "a file inside an installed Python package"),
    ):
        yield Source(scheme=scheme, finder=f"lensmount.store.{finder}", description=text)


@hookimpl
def lensmount_readers() -> Iterable[Reader]:
    """Folders with a lensmount manifest."""
    yield Reader(
        name="lensmount",
        marker="lensmount.json",
        read="lensmount.store.manifests:read",
        description="a folder that lensmount pull or export wrote",
        repositories=True,
    )


@hookimpl
def lensmount_caches() -> Iterable[CacheProvider]:
    """In memory and on disk."""
    yield CacheProvider(
        name="memory", factory="lensmount.caches.memory:MemoryCache", description="bounded by entries and bytes"
    )
    yield CacheProvider(
        name="disk", factory="lensmount.caches.disk:DiskCache", description="kept from one process to the next"
    )


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """The core's own commands; no plugin can take their names."""
    for name, app, text in (
        ("models", "catalogue:models", "List the models that installed plugins know."),
        ("describe", "catalogue:describe", "Show what is known of a model, without loading it."),
        ("explain", "catalogue:explain", "Show which package would be loaded here, and why every other would not."),
        ("plugins", "catalogue:plugins", "List the plugins found, and what became of each."),
        ("doctor", "doctor:doctor", "Show what this machine has, which backends can run on it, and what is wrong."),
        ("pull", "store:pull", "Fetch models, verified, so that later loads need no network."),
        ("lock", "store:lock", "Write lensmount.lock: the files that models stand for."),
        ("cache", "store:cache", "Look after the files that were fetched."),
        ("errors", "errors:errors", "Explain an error: what it means, what causes it, how to fix it."),
    ):
        yield Command(name=name, app=f"lensmount.cli.{app}", help=text)
