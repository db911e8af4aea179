"""Parameters of inference-models in our words, as `tables` says."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lensmount.errors import OptionError
from lensmount_vision.moving.tables import CALLS, FAMILIES, PARAMETERS, Parameter


class ParameterNotice(UserWarning):
    """A parameter of inference-models was accepted and changes nothing here; the message says what takes its place."""


_HERE = "lensmount_vision.moving"
_ALL = {row.name: row for row in (*PARAMETERS, *FAMILIES)}
_CALLS = {row.name: row for row in CALLS}
_BACKENDS = {"trt": "tensorrt", "hugging-face": "torch", "torch-script": "torch", "ultralytics": "torch"}
_TASKS = {
    "interactive-instance-segmentation": "interactive-segmentation",
    "open-vocabulary-object-detection": "open-vocabulary-detection",
}


def notice(text: str) -> None:
    """Warns at the line of the program that called into this room."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, ParameterNotice, stacklevel=level)


def sift(given: Mapping[str, Any], rows: Mapping[str, Parameter], owner: str) -> dict[str, Any]:
    """Warns of what changes nothing, refuses what cannot be had, and returns the rest.

    Args:
        given: Values by name; those that are the default say nothing.
        rows: What is known; other names are passed through.
        owner: Whose parameters they are, for messages.

    Raises:
        OptionError: A parameter that is refused.
    """
    rest: dict[str, Any] = {}
    for name, value in given.items():
        row = rows.get(name)
        if row is None:
            rest[name] = value
        elif _same(value, row.default):
            continue
        elif row.does == "translated":
            rest[name] = value
        elif row.does == "notice":
            notice(f"{owner}: {name}={_short(value)} changes nothing: {row.says}")
        else:
            raise OptionError(f"{owner} does not take {name}", found=f"{name}={_short(value)}", fix=row.says)
    return rest


def call_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a call in our words; unknown ones are passed on, for the model to refuse.

    Raises:
        OptionError: An option that is refused.
    """
    overrides = given.get("pre_processing_overrides")
    if overrides is not None and not any(vars(overrides).values()):
        given = {**given, "pre_processing_overrides": None}
    wanted = sift(given, _CALLS, "a call")
    names = {"input_color_format": "color", "class_agnostic_nms": "class_agnostic"}
    options = {names.get(name, name): word(value) for name, value in wanted.items()}
    if options.get("confidence") in ("default", "best"):
        del options["confidence"]
    return options


@dataclass(frozen=True, slots=True)
class Loads:
    """What to load, and how.

    Attributes:
        name: For `registry.load`.
        options: For `registry.load`, without `backend`.
        backends: Backends to try in order; empty for the registry's choice.
        disabled: Backends that are not to be chosen.
        package: Package wanted, by our name or the provider's id.
        verbose: Print the plan.
        local: Only a path will do (True), or no path (False); None for either.
    """

    name: Any
    options: dict[str, Any]
    backends: tuple[str, ...]
    disabled: frozenset[str]
    package: str | None
    verbose: bool
    local: bool | None


def translate(given: Mapping[str, Any]) -> Loads:
    """Parameters of `from_pretrained` in our words.

    Raises:
        OptionError: A parameter that is refused, or has a value that means nothing.
    """
    values = sift(given, _ALL, "from_pretrained")
    take: Callable[..., Any] = values.pop
    name = take("model_id_or_path", None)
    backends = tuple(dict.fromkeys(_BACKENDS.get(one, one) for one in _words("backend", take("backend", ()))))
    disabled = _words("disabled_backends", take("disabled_backends", ()))
    provider = take("weights_provider", "roboflow")
    options: dict[str, Any] = {}
    caches = {
        ours: take(theirs)
        for theirs, ours in (
            ("sam2_image_embeddings_cache", "embeddings"),
            ("sam2_low_resolution_masks_cache", "masks"),
            ("owlv2_images_embeddings_cache", "embeddings"),
            ("owlv2_class_embeddings_cache", "classes"),
        )
        if theirs in values
    }
    for use, cache in caches.items():
        if not callable(getattr(cache, "get", None)) or not callable(getattr(cache, "put", None)):
            raise OptionError(
                f"the cache of {use} is not one of ours",
                found=type(cache).__name__,
                expected="an object with get(key) and put(key, value)",
                fix="use the InMemory classes of this library, or give yours get and put",
            )
    if caches:
        options["caches"] = caches
    if "quantization" in values:
        options["precision"] = ",".join(_words("quantization", take("quantization")))
    if "device" in values:
        options["device"] = device_name(take("device"))
    if "onnx_execution_providers" in values:
        options["providers"] = _providers(take("onnx_execution_providers"))
        backends = backends or ("onnx",)
    if "model_type" in values:
        options["architecture"] = _architecture(take("model_type"))
    if "task_type" in values:
        task = str(word(take("task_type")))
        options["task"] = _TASKS.get(task, task)
    renamed = {
        "labels": "classes",
        "resolution": "input_size",
        "owlv2_enforce_model_compilation": "compile",
        "engine_host_code_allowed": "allow_host_code",
    }
    options |= {renamed[key]: take(key) for key in tuple(values) if key in renamed}
    for satisfied in ("trt_engine_host_code_allowed", "allow_local_code_packages"):
        take(satisfied, None)  # False is what we do anyway
    local = None if take("allow_direct_local_storage_loading", True) else False
    if provider == "local":
        if local is False:
            raise OptionError("weights_provider='local' contradicts allow_direct_local_storage_loading=False")
        local = True
    elif provider != "roboflow":
        options["source"] = word(provider)
    package, verbose = take("model_package_id", None), bool(take("verbose", False))
    return Loads(
        name=name,
        options={**values, **options},
        backends=backends,
        disabled=frozenset(_BACKENDS.get(one, one) for one in disabled),
        package=package,
        verbose=verbose,
        local=local,
    )


def device_name(device: Any) -> str:
    """`device` of text, number or `torch.device` as `registry.load` takes it: a number is that GPU."""
    if isinstance(device, int) and not isinstance(device, bool):
        return f"cuda:{device}"
    return str(device)


def word(value: Any) -> Any:
    """The value of an enumeration's member; anything else as it is."""
    return value.value if isinstance(value, Enum) else value


def _words(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    many = [value] if isinstance(value, (str, Enum)) else value
    try:
        words = tuple(word(one) for one in many)
    except TypeError:
        words = (value,)
    if not all(isinstance(one, str) for one in words):
        raise OptionError(f"{name} is not valid", found=_short(value), expected="a name, or a list of names")
    return words


def _providers(value: Any) -> tuple[str, ...]:
    names = []
    for one in [value] if isinstance(value, str) else value:
        if isinstance(one, tuple):
            name, settings = one
            if settings:
                raise OptionError(
                    "onnx_execution_providers with settings are not taken",
                    found=_short(one),
                    fix=f"name the provider alone: {name!r}; device= chooses the GPU, precision= the precision",
                )
            one = name
        names.append(one)
    return tuple(names)


def _architecture(kind: Any) -> str:
    name = str(word(kind)).lower()
    for start, ours in (
        ("yolo", "yolo"), ("rfdetr", "rfdetr"), ("rf-detr", "rfdetr"), ("sam2", "sam2"), ("owlv2", "owlv2"),
        ("clip", "clip"), ("perception", "perception_encoder"),
    ):  # fmt: skip
        if name.startswith(start):
            return ours
    return name


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default: 1 is 1.0, and True is not 1."""
    if value is default:
        return True
    if isinstance(value, bool) is not isinstance(default, bool) or not isinstance(value, (bool, int, float, str)):
        return False
    return bool(value == default)


def _short(value: Any) -> str:
    text = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    return text if len(text) <= 80 else text[:77] + "…"
