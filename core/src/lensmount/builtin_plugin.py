"""What the core itself brings, registered through the same hooks as a third party's."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, CacheProvider, Source, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """Graphs on onnxruntime, networks on torch, engines on TensorRT."""
    yield Backend(
        name="onnx",
        formats=("onnx",),
        probe="lensmount.backends.onnx:probe",
        opener="lensmount.backends.onnx:open_session",
        preference=(("cpu", 30), ("cuda", 10)),
        extra="lensmount[onnx]",
    )
    yield Backend(
        name="torch",
        formats=("torch",),
        probe="lensmount.backends.torch:probe",
        opener="lensmount.backends.torch:open_session",
        preference=(("cpu", 20), ("cuda", 20), ("mps", 20)),
        extra="lensmount[torch]",
    )
    yield Backend(
        name="tensorrt",
        formats=("engine",),
        probe="lensmount.backends.tensorrt:probe",
        opener="lensmount.backends.tensorrt:open_session",
        preference=(("cuda", 30),),
        extra="lensmount[tensorrt]",
        builder="lensmount.backends.tensorrt_builder:EngineBuilder",
    )


@hookimpl
def lensmount_sources() -> Iterable[Source]:
    """The Hugging Face hub, web addresses, local files and files inside installed packages."""
    yield Source(scheme="hf", finder="lensmount.sources.hf:HubFinder", description="a Hugging Face repository")
    yield Source(scheme="https", finder="lensmount.sources.https:HttpsFinder", description="a web address")
    yield Source(
        scheme="http",
        finder="lensmount.sources.https:HttpsFinder",
        description="an unencrypted web address; refused unless a hash or the user vouches for the file",
    )
    yield Source(scheme="file", finder="lensmount.sources.local:LocalFinder", description="a file or folder")
    yield Source(
        scheme="package",
        finder="lensmount.sources.package:PackageFinder",
        description="a file inside an installed Python package",
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
