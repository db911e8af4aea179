"""What is known of a model without loading it, as frozen descriptors.

Everything here is plain data: hashable, comparable, serialisable (`to_dict`), and built from the standard library
alone. What else a plugin adds is described in `extensions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

Pairs = tuple[tuple[str, Any], ...]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Confidence = Literal["official", "published", "third-party", "unverified"]

MODEL_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")


def to_dict(descriptor: Any) -> Any:
    """Turns a descriptor, and whatever it holds, into plain JSON-ready values."""
    if is_dataclass(descriptor) and not isinstance(descriptor, type):
        return {f.name: to_dict(getattr(descriptor, f.name)) for f in fields(descriptor)}
    if isinstance(descriptor, tuple):
        return [to_dict(item) for item in descriptor]
    return descriptor


def require(ok: bool, what: str, found: object, expected: str) -> None:
    """Refuses a field of a descriptor.

    Raises:
        OptionError: `ok` is false.
    """
    if not ok:
        from lensmount.errors import OptionError

        raise OptionError(f"{what} is not valid", found=repr(found), expected=expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of a package.

    Attributes:
        name: File name inside the package's folder (`weights.onnx`); forward slashes, never absolute.
        uri: Where it comes from: `hf://owner/repo@revision/file`, `https://…`, `package://module/path`, `file://…`.
        role: `graph` is opened as a session; `weights` goes to the architecture's network; `data` is anything else
            (tokeniser, configuration, class names).
        size: Bytes, where known.
        sha256: Hex digest, where known.
        md5: Hex digest, for providers that publish nothing better; checked, never trusted alone.
        confidence: How sure the address and the hash are: `official` (read in the authors' code), `published` (on
            their page), `third-party` (someone else's word), `unverified`.
    """

    name: str
    uri: str
    role: Literal["graph", "weights", "data"] = "graph"
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    confidence: Confidence = "unverified"

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        require(
            bool(self.name) and all(p not in ("", ".", "..") for p in parts) and "\\" not in self.name,
            "an artifact's name",
            self.name,
            "a relative path with forward slashes and no '..'",
        )
        require(
            self.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None,
            f"the sha256 of artifact {self.name!r}",
            self.sha256,
            "64 lower-case hex digits",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """How many images one run of the graph takes.

    Attributes:
        static: The one size a static graph takes; None for a dynamic graph.
        maximum: The largest batch of a dynamic graph; None means no limit of its own.
    """

    static: int | None = None
    maximum: int | None = None

    def __str__(self) -> str:
        if self.static is not None:
            return f"static {self.static}"
        return f"dynamic up to {self.maximum}" if self.maximum else "dynamic"


ResizeMode = Literal[
    "stretch", "letterbox", "letterbox-reflect", "center-crop", "short-side-crop", "fit", "pad-square", "none"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input; a package says which of these it was made with.

    Attributes:
        size: Network input `(height, width)` in pixels; None when the graph takes any size.
        resize: `stretch` squashes to `size`; `letterbox` keeps the aspect and pads to `size` (`letterbox-reflect`
            pads by mirroring); `center-crop` cuts `size` out of the middle and pads what is missing;
            `short-side-crop` scales the short side, then cuts the middle; `fit` scales the long side and pads
            nothing; `pad-square` pads to a square at right and bottom, then scales; `none` leaves the size.
        rounding: Of the scaled size, and of half an odd crop: `nearest` (ultralytics, torchvision) or `truncate`.
        position: Where a letterboxed picture lies in its frame.
        divisible_by: Pads right and bottom up to a multiple of this, for graphs of dynamic size.
        rectangular: With `letterbox`: the frame is not the whole of `size`, but the smallest multiple of
            `divisible_by` that holds the scaled picture; for graphs of dynamic size.
        padding_value: Grey value of the padding, 0..255.
        interpolation: Resampling kernel. `gaussian-bilinear` smooths with a Gaussian of standard deviation
            (shrink factor - 1) / 2 before a bilinear resize, as scikit-image does (OWLv2).
        antialias: Widens the kernel when shrinking (PIL's behaviour).
        resample_dtype: What resampling computes in: `uint8` rounds to whole grey values (OpenCV on images, Pillow),
            `float32` does not (torchvision on floating tensors).
        scale: Multiplies the 0..255 values, before `mean` and `std`.
        mean: Subtracted per channel, in `color` order, after `scale`; None for none.
        std: Divides per channel after `mean`; None for none.
        color: Channel order that the network takes.
        grayscale: Turns the picture grey first (three equal channels if `channels` is 3).
        channels: Channels of the network's input.
        static_crop: `(x_min, y_min, x_max, y_max)` in percent, cut out before anything else.
        contrast: Contrast normalisation after the crop.
    """

    size: tuple[int, int] | None = (640, 640)
    resize: ResizeMode = "letterbox"
    rounding: Literal["nearest", "truncate"] = "nearest"
    position: Literal["center", "top-left"] = "center"
    divisible_by: int | None = None
    rectangular: bool = False
    padding_value: int = 114
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "lanczos", "gaussian-bilinear"] = "bilinear"
    antialias: bool = False
    resample_dtype: Literal["uint8", "float32"] = "uint8"
    scale: float = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: Literal["rgb", "bgr"] = "rgb"
    grayscale: bool = False
    channels: int = 3
    static_crop: tuple[float, float, float, float] | None = None
    contrast: Literal["adaptive-equalization", "contrast-stretching", "histogram-equalization"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a package needs of the machine beyond a backend that opens its format. Empty means anything.

    Attributes:
        devices: Device kinds it runs on (`cpu`, `cuda`, `mps`).
        systems: `platform.system()` values, lower case.
        machines: `platform.machine()` values.
        runtime_version: Exact or PEP 440 specifier of the backend's runtime (TensorRT engines).
        compute_capability: Exact CUDA compute capability such as `8.6`.
        gpu_name: Device the engine was built on, where engines do not travel.
        l4t: Jetson L4T release, major.minor.
        excluded_providers: onnxruntime execution providers that get this graph wrong.
    """

    devices: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    runtime_version: str | None = None
    compute_capability: str | None = None
    gpu_name: str | None = None
    l4t: str | None = None
    excluded_providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPackage:
    """One runnable form of a model.

    Attributes:
        name: Unique within the card: `onnx-fp32`.
        format: What a backend must open: `onnx`, `torch`, `engine`, `torchscript`, …
        artifacts: Its files.
        precision: Of the stored weights.
        batch: Batch policy, or None to read it from the graph.
        preprocess: How pictures become its input, or None for the architecture's default.
        requirements: What it needs of the machine.
        settings: Facts for the architecture's code, as pairs (`("fused_nms", True)`).
        recommended: Default call options that come with the package (`("confidence", 0.4)`).
    """

    name: str
    format: str
    artifacts: tuple[Artifact, ...]
    precision: str = "fp32"
    batch: BatchPolicy | None = None
    preprocess: Preprocess | None = None
    requirements: Requirements = field(default_factory=Requirements)
    settings: Pairs = ()
    recommended: Pairs = ()

    def __post_init__(self) -> None:
        require(bool(self.artifacts), f"package {self.name!r}", "no artifacts", "at least one artifact")
        names = [a.name for a in self.artifacts]
        require(len(set(names)) == len(names), f"package {self.name!r}", names, "artifacts with distinct names")

    @property
    def size(self) -> int | None:
        """Bytes of all artifacts, or None when one is unknown."""
        sizes = [a.size for a in self.artifacts]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    def setting(self, name: str, default: Any = None) -> Any:
        """The value of one of `settings`."""
        return dict(self.settings).get(name, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a model without loading it.

    Attributes:
        id: Model id (`yolov8n-640`, `sam2/hiera_tiny`).
        architecture: Name of the architecture that runs it.
        task: `object-detection`, `instance-segmentation`, …
        packages: Its runnable forms.
        aliases: Other ids of the same model.
        classes: Class names by class id; empty when the weights or the user bring them.
        licence: SPDX id of the weights' licence.
        licence_notice: Shown at first load where the licence asks something of the user.
        homepage: Where the weights are published.
        description: One line.
        base: Id or path of the model that this one is built on: its packages are run, and this card's own artifacts,
            of role `data`, are fetched together with theirs. None for a model with packages of its own.
        settings: Facts for the architecture's code, as pairs (variant, resolution, …).
        recommended: Default call options (`("confidence", 0.4)`).
        published: The authors' own figures, as pairs (`("coco_ap", 48.4)`).
        notes: What could not be verified, shown by `describe`.
    """

    id: str
    architecture: str
    task: str
    packages: tuple[ModelPackage, ...]
    aliases: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    licence: str = "unknown"
    licence_notice: str | None = None
    homepage: str | None = None
    description: str = ""
    base: str | None = None
    settings: Pairs = ()
    recommended: Pairs = ()
    published: Pairs = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.id, *self.aliases):
            require(
                MODEL_ID.fullmatch(name) is not None,
                "a model id",
                name,
                "letters, digits, '.', '_' and '-', in parts separated by '/'",
            )
        names = [p.name for p in self.packages]
        require(len(set(names)) == len(names), f"card {self.id!r}", names, "packages with distinct names")

    def setting(self, name: str, default: Any = None) -> Any:
        """The value of one of `settings`."""
        return dict(self.settings).get(name, default)
