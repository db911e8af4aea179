"""`AutoModel`, with the parameters of inference-models 0.39.6."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import (
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    NoPackageError,
    UnknownBackendError,
)
from lensmount_vision.moving.parameters import Loads, notice, translate
from lensmount_vision.moving.views import View, view_of

if TYPE_CHECKING:
    from lensmount_vision.moving.names import BackendType, Quantization

_CANNOT = (NoPackageError, UnknownBackendError, MissingDependencyError)


class AutoModel:
    """Loads models for those who come from inference-models; never instantiated."""

    def __init__(self) -> None:
        raise TypeError("AutoModel is not instantiated: AutoModel.from_pretrained('yolov8n-640')")

    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        weights_provider: str = "roboflow",
        api_key: str | None = None,
        model_package_id: str | None = None,
        backend: str | BackendType | Sequence[str | BackendType] | None = None,
        batch_size: int | tuple[int, int] | None = None,
        quantization: str | Quantization | Sequence[str | Quantization] | None = None,
        onnx_execution_providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        device: Any = None,
        default_onnx_trt_options: bool = True,
        max_package_loading_attempts: int | None = None,
        verbose: bool = False,
        model_download_file_lock_acquire_timeout: int = 20,
        allow_untrusted_packages: bool = False,
        trt_engine_host_code_allowed: bool = True,
        allow_local_code_packages: bool = True,
        verify_hash_while_download: bool = True,
        download_files_without_hash: bool = False,
        use_auto_resolution_cache: bool = True,
        auto_resolution_cache: Any = None,
        allow_direct_local_storage_loading: bool = True,
        model_access_manager: Any = None,
        nms_fusion_preferences: bool | Mapping[str, Any] | None = None,
        model_type: str | None = None,
        task_type: str | None = None,
        allow_loading_dependency_models: bool = True,
        dependency_models_params: Mapping[str, Any] | None = None,
        point_model_directory: Callable[[str], None] | None = None,
        forwarded_kwargs: Sequence[str] | None = None,
        weights_provider_extra_query_params: Sequence[tuple[str, str]] | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        content_addressed_artifact_cache: Any = None,
        required_capabilities: Sequence[str] | None = None,
        *,
        preloaded_model_dependencies: Mapping[str, Any] | None = None,
        disabled_backends: Iterable[str] | None = None,
        allow_vllm_proxy: bool = False,
        **options: Any,
    ) -> Any:
        """Loads a model, and returns a view of it with the methods that models have there.

        What becomes of each parameter: `docs/moving/inference-models.md`, `lensmount_vision.moving.PARAMETERS`. The
        names of `registry.load` (`precision=`, `caches=`, `offline=` …) are taken as well.

        Args:
            model_id_or_path: Model id or alias, path of a file or package folder, address, or the id of a project at
                the weights provider.
            weights_provider: Where ids are looked up that nothing installed knows.
            api_key: Key for that provider.
            model_package_id: One package, by our name or the provider's id.
            backend: One, or several of which the first that can run is taken.
            batch_size: Accepted with a notice.
            quantization: One precision, or several of which any will do.
            onnx_execution_providers: Names of onnxruntime's providers.
            device: Text, number of a GPU, or `torch.device`; None to choose.
            default_onnx_trt_options: Accepted with a notice.
            max_package_loading_attempts: Accepted with a notice.
            verbose: Print the plan of the load.
            model_download_file_lock_acquire_timeout: Accepted with a notice.
            allow_untrusted_packages: Accepted with a notice.
            trt_engine_host_code_allowed: False is what happens anyway.
            allow_local_code_packages: False is what happens anyway.
            verify_hash_while_download: Accepted with a notice.
            download_files_without_hash: Accepted with a notice.
            use_auto_resolution_cache: Accepted with a notice.
            auto_resolution_cache: Refused.
            allow_direct_local_storage_loading: False refuses paths.
            model_access_manager: Refused.
            nms_fusion_preferences: Accepted with a notice.
            model_type: Architecture, for files that several recognise.
            task_type: Refuses a model of another task.
            allow_loading_dependency_models: Accepted with a notice.
            dependency_models_params: Refused.
            point_model_directory: Refused.
            forwarded_kwargs: Refused.
            weights_provider_extra_query_params: Refused.
            weights_provider_extra_headers: Refused.
            content_addressed_artifact_cache: Refused.
            required_capabilities: Refused.
            preloaded_model_dependencies: Refused.
            disabled_backends: Backends that are not to be chosen, where `backend` names none.
            allow_vllm_proxy: Refused.
            **options: What a family adds (`lensmount_vision.moving.FAMILIES`), and what `registry.load` takes.

        Returns:
            A view; `.model` is what `registry.load` returns.

        Raises:
            OptionError: A parameter that cannot be had; the message says what to write instead.
            LensmountError: As `registry.load`.
        """
        given = {name: value for name, value in locals().items() if name not in ("cls", "options")}
        loads = translate({**given, **options})
        view = view_of(_load(loads))
        if isinstance(view, View):
            view.loaded_with = (loads.name, loads.options)
        return view

    @classmethod
    def describe_model(cls, model_id: str, weights_provider: str = "roboflow", api_key: str | None = None) -> None:
        """Prints a model's task and packages, and which of them can run here."""
        from lensmount import registry

        name, source = _named(translate({"model_id_or_path": model_id, "weights_provider": weights_provider}))
        print(registry.explain(name, source=source, api_key=api_key if source else None))

    @classmethod
    def describe_model_package(
        cls, model_id: str, package_id: str, weights_provider: str = "roboflow", api_key: str | None = None
    ) -> None:
        """Prints one package: its format, precision, batches and files.

        Raises:
            NoPackageError: The model has no such package.
        """
        from lensmount import registry

        name, source = _named(translate({"model_id_or_path": model_id, "weights_provider": weights_provider}))
        card = registry.describe(name, source=source, api_key=api_key if source else None)
        package = next(one for one in card.packages if one.name == _package(card, package_id))
        print(f"{card.id}, {package.name}: {package.format}, {package.precision}, {package.batch}")
        for artifact in package.artifacts:
            print(f"  {artifact.name}  {artifact.uri}")

    @classmethod
    def describe_compute_environment(cls) -> None:
        """Prints the backends, and whether they can run here; `lensmount doctor` says more."""
        from lensmount import registry

        for backend, status in registry.backends():
            print(f"{backend.name}: {status}")


def _load(loads: Loads) -> Any:
    from lensmount import registry

    options = dict(loads.options)
    name, source = _named(loads)
    if source is not None:
        options["source"] = source
    if options.get("api_key") is not None and source is None and "://" not in str(name):
        notice("from_pretrained: api_key changes nothing: the model is not the provider's")
        del options["api_key"]
    if loads.package is not None:
        asked: dict[str, Any] = {key: options[key] for key in _DESCRIBES if key in options}
        options["package"] = _package(registry.describe(name, **asked), loads.package)
    if loads.verbose:
        asked = {key: options[key] for key in _EXPLAINS if key in options}
        print(registry.explain(name, **asked))
    if loads.disabled and not loads.backends:
        return registry.load(name, **_without(registry, name, options, loads.disabled))
    if len(loads.backends) == 1:
        options["backend"] = loads.backends[0]
    if len(loads.backends) < 2:
        return registry.load(name, **options)
    failures = []
    for backend in loads.backends:
        try:
            return registry.load(name, **{**options, "backend": backend})
        except _CANNOT as error:
            failures.append((backend, error))
    raise NoPackageError(
        f"{name!r} runs on none of the backends asked for",
        found="\n".join(f"{backend}: {error}" for backend, error in failures),
        expected=f"one of {', '.join(loads.backends)}",
    ) from failures[-1][1]


_DESCRIBES = ("architecture", "source", "api_key", "offline")
_EXPLAINS = ("device", "precision", "architecture", "task", "source", "api_key", "offline")


def _without(registry: Any, name: Any, options: dict[str, Any], disabled: frozenset[str]) -> dict[str, Any]:
    """The options with the best backend and package that are not disabled."""
    plan = registry.explain(name, **{key: options[key] for key in _EXPLAINS if key in options})
    wanted = options.get("package")
    for choice in plan.choices:
        if choice.backend.name not in disabled and wanted in (None, choice.package.name):
            return {**options, "backend": choice.backend.name, "package": choice.package.name}
    raise NoPackageError(
        f"{name!r} runs on no other backend",
        found=str(plan),
        expected=f"a backend other than {', '.join(sorted(disabled))}",
    )


def _named(loads: Loads) -> tuple[Any, str | None]:
    """The name for `registry.load`, and the source to ask: the weights provider where nothing installed knows an id."""
    from lensmount import registry

    name = loads.name
    path = isinstance(name, os.PathLike) or (isinstance(name, str) and Path(name).exists())
    if loads.local is True and not path:
        raise InputError("weights_provider='local' needs a path", found=repr(name), expected="a file or folder")
    if loads.local is False and path:
        raise InputError(
            "allow_direct_local_storage_loading=False refuses paths", found=repr(name), expected="a model id"
        )
    source = loads.options.get("source")
    if source is not None or path or "://" in str(name):
        return name, source
    try:
        registry.describe(name)
    except ModelNotFoundError:
        if "roboflow" not in registry.default().index.sources:
            raise
        return name, "roboflow"
    return name, None


def _package(card: Any, wanted: str) -> str:
    """Our name of a package, from it or from the provider's id."""
    for package in card.packages:
        if wanted in (package.name, package.setting("package_id", None)):
            return str(package.name)
    raise NoPackageError(
        f"{card.id!r} has no package {wanted!r}",
        found=", ".join(package.name for package in card.packages),
        expected="one of these, or the provider's id of one",
    )
