"""The hooks. A plugin is a module, named by an entry point of group `lensmount`, that implements some of them.

Every hook takes no argument and *returns data*: an iterable of frozen descriptors. No side effect, no I/O beyond
the plugin's own files, no network. A new need becomes a new field on a descriptor, so that older plugins go on.

    # pyproject.toml
    [project.entry-points.lensmount]
    mymodel = "lensmount_mymodel.plugin"
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pluggy

from lensmount.specs.descriptors import ModelCard
from lensmount.specs.extensions import (
    PROJECT,
    Architecture,
    Backend,
    CacheProvider,
    Command,
    Exporter,
    Reader,
    Selector,
    Source,
)

hookspec = pluggy.HookspecMarker(PROJECT)


class LensmountHooks(Protocol):
    """All hooks of lensmount."""

    @hookspec
    def lensmount_architectures(self) -> Iterable[Architecture]:
        """Families of networks that this plugin can run.

        Example:
            >>> from lensmount.specs import Architecture, hookimpl
            >>> @hookimpl
            ... def lensmount_architectures():
            ...     yield Architecture(
            ...         name="mymodel", tasks=("object-detection",), factory="lensmount_mymodel.model:build"
            ...     )
        """

    @hookspec
    def lensmount_model_cards(self) -> Iterable[ModelCard]:
        """Models that this plugin knows, usually read from its `catalog.toml`.

        An id that two plugins claim must be asked for as `distribution:id`.

        Example:
            >>> from lensmount.specs import hookimpl, read_catalog
            >>> @hookimpl
            ... def lensmount_model_cards():
            ...     return read_catalog("lensmount_mymodel")
        """

    @hookspec
    def lensmount_backends(self) -> Iterable[Backend]:
        """Runtimes that execute packages.

        A backend names the formats it opens, so a new one runs every existing package of these formats untouched.

        Example:
            >>> from lensmount.specs import Backend, hookimpl
            >>> @hookimpl
            ... def lensmount_backends():
            ...     yield Backend(
            ...         name="openvino",
            ...         formats=("onnx",),
            ...         probe="lensmount_openvino.backend:probe",
            ...         opener="lensmount_openvino.backend:open_session",
            ...     )
        """

    @hookspec
    def lensmount_sources(self) -> Iterable[Source]:
        """Places that artifacts come from, one per URI scheme.

        Example:
            >>> from lensmount.specs import Source, hookimpl
            >>> @hookimpl
            ... def lensmount_sources():
            ...     yield Source(scheme="s3", finder="lensmount_s3.source:S3Finder")
        """

    @hookspec
    def lensmount_caches(self) -> Iterable[CacheProvider]:
        """Kinds of caches for embeddings and other costly intermediate results.

        Example:
            >>> from lensmount.specs import CacheProvider, hookimpl
            >>> @hookimpl
            ... def lensmount_caches():
            ...     yield CacheProvider(name="redis", factory="lensmount_redis_cache.cache:RedisCache")
        """

    @hookspec
    def lensmount_readers(self) -> Iterable[Reader]:
        """Layouts of model files, on disk or in a repository, that become model cards.

        Of two with one marker the first keeps it.

        Example:
            >>> from lensmount.specs import Reader, hookimpl
            >>> @hookimpl
            ... def lensmount_readers():
            ...     yield Reader(name="vendor", marker="vendor.json", read="lensmount_vendor.folder:read")
        """

    @hookspec
    def lensmount_commands(self) -> Iterable[Command]:
        """Sub-commands of `lensmount`.

        The core's own commands cannot be replaced.

        Example:
            >>> from lensmount.specs import Command, hookimpl
            >>> @hookimpl
            ... def lensmount_commands():
            ...     yield Command(name="serve", app="lensmount_serve.cli:serve", help="Serve models over HTTP.")
        """

    @hookspec
    def lensmount_exporters(self) -> Iterable[Exporter]:
        """Other forms that models can be written in: `lensmount export --to TARGET --precision PRECISION`.

        A target and precision that none takes goes to the architecture's own exporter.

        Example:
            >>> from lensmount.specs import Exporter, hookimpl
            >>> @hookimpl
            ... def lensmount_exporters():
            ...     yield Exporter(
            ...         name="coreml",
            ...         target="coreml",
            ...         precisions=("fp32", "fp16"),
            ...         export="lensmount_coreml.export:export",
            ...     )
        """

    @hookspec
    def lensmount_selectors(self) -> Iterable[Selector]:
        """Ways to choose among what can run, asked for in the place of a backend: `load(..., backend="fastest")`.

        The names of selectors and those of backends are one set.

        Example:
            >>> from lensmount.specs import Selector, hookimpl
            >>> @hookimpl
            ... def lensmount_selectors():
            ...     yield Selector(name="smallest", choose="lensmount_smallest.choosing:choose")
        """
