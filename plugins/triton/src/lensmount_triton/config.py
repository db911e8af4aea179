"""What the environment says of a server, and a model's configuration as Triton reads it (`model_config.proto`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs import BackendStatus
from lensmount_triton.digest import KEY

if TYPE_CHECKING:
    from lensmount.contracts import Environment, TensorSpec

URL, TIMEOUT, UPLOAD = "LENSMOUNT_TRITON_URL", "LENSMOUNT_TRITON_TIMEOUT", "LENSMOUNT_TRITON_UPLOAD"
INSTALL = 'pip install "lensmount-triton[client]"'
DEVICE = "remote"
TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
"""Triton's words for element types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the server is, and how it is to be used.

    Attributes:
        address: `host:port`, with a path where the address has one.
        secure: https rather than http.
        timeout: Seconds that an answer may take.
        upload: Whether a graph that the server lacks may be loaded onto it.
    """

    address: str
    secure: bool
    timeout: float
    upload: bool

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(f"//{self.address}").hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    def __str__(self) -> str:
        return f"http{'s' * self.secure}://{self.address}"


def probe(environment: Environment) -> BackendStatus:
    """Whether a server is named and its client installed; the server is not asked."""
    version = environment.version("tritonclient") or _installed()
    if version is None:
        return BackendStatus(usable=False, reason="tritonclient is not installed", fix=INSTALL)
    if not os.environ.get(URL, "").strip():
        return BackendStatus(
            usable=False, version=version, reason="no server is named", fix=f"export {URL}=http://localhost:8000"
        )
    return BackendStatus(
        usable=True,
        version=version,
        devices=(DEVICE,),
        precisions=((DEVICE, ("fp32", "fp16", "bf16", "int8")),),
    )


def _installed() -> str | None:
    try:
        return metadata.version("tritonclient")
    except metadata.PackageNotFoundError:
        return None


def server() -> Server:
    """The server that the environment names.

    Raises:
        OptionError: It names none, or not in a form that can be read.
    """
    text = os.environ.get(URL, "").strip()
    expected = "http://host:8000 or https://host"
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 8000)
    except ValueError:
        raise OptionError(f"{URL} is not valid", found="a malformed address", expected=expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        shown = f"{parts.scheme}://…" if parts.username else repr(text)
        raise OptionError(f"{URL} is not valid", found=shown, expected=expected)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    upload = os.environ.get(UPLOAD, "").strip()
    if upload not in ("", "0", "1"):
        raise OptionError(f"{UPLOAD} is not valid", found=repr(upload), expected="1 or 0")
    address = f"{host}:{port}{parts.path.rstrip('/')}"
    return Server(address=address, secure=parts.scheme == "https", timeout=_timeout(), upload=upload == "1")


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, "").strip() or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise OptionError(f"{TIMEOUT} is not valid", found=repr(text), expected="seconds, more than 0")
    return seconds


def batches(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether one free first size is that of all inputs and outputs: Triton may then put requests together."""
    firsts = [spec.shape[0] if spec.shape else 0 for spec in (*inputs, *outputs)]
    return not isinstance(firsts[0], int) and all(first == firsts[0] for first in firsts)


def config_text(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    sha256: str,
    max_batch_size: int,
    max_queue_delay_us: int,
) -> str:
    """The `config.pbtxt` of a graph.

    Args:
        name: The model's name, which is its folder's.
        inputs: Of the graph.
        outputs: Of the graph.
        sha256: `digest` of the graph.
        max_batch_size: Largest batch that Triton puts together; 0 where the graph has no free batch.
        max_queue_delay_us: Microseconds that a request may wait for others.

    Raises:
        UnsupportedModelError: A type that Triton does not know.
    """
    lines = [f"name: {quoted(name)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {max_batch_size}"]
    for word, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            fields = (f"name: {quoted(spec.name)}", f"data_type: TYPE_{_type(spec)}", _dims(spec, max_batch_size))
            lines.append(f"{word} {{\n  " + "\n  ".join(fields) + "\n}")
    if max_batch_size:
        delay = f"\n  max_queue_delay_microseconds: {max_queue_delay_us}\n" if max_queue_delay_us else " "
        lines.append(f"dynamic_batching {{{delay}}}")
    lines.append(_parameter(sha256))
    return "\n".join(lines) + "\n"


def plan_text(name: str, sha256: str) -> str:
    """The `config.pbtxt` of a TensorRT engine: Triton reads inputs and outputs from the engine itself."""
    return "\n".join((f"name: {quoted(name)}", 'platform: "tensorrt_plan"', _parameter(sha256))) + "\n"


def quoted(text: str) -> str:
    """A string of protobuf's text format; what is not ASCII is written byte by byte."""
    plain = {'"': '\\"', "\\": "\\\\"}
    return (
        '"'
        + "".join(plain.get(chr(byte), chr(byte)) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in text.encode())
        + '"'
    )


def _parameter(sha256: str) -> str:
    return f"parameters {{\n  key: {quoted(KEY)}\n  value {{ string_value: {quoted(sha256)} }}\n}}"


def _type(spec: TensorSpec) -> str:
    if spec.dtype not in TYPES:
        raise UnsupportedModelError(
            f"{spec.name!r} has an element type that Triton does not take", found=spec.dtype, expected=", ".join(TYPES)
        )
    return TYPES[spec.dtype]


def sizes_of(spec: TensorSpec, max_batch_size: int) -> list[int]:
    """Sizes as Triton says them: -1 where one is free, and without the batch where Triton puts requests together."""
    return [size if isinstance(size, int) else -1 for size in spec.shape[1 if max_batch_size else 0 :]]


def _dims(spec: TensorSpec, max_batch_size: int) -> str:
    sizes = sizes_of(spec, max_batch_size)
    if not sizes:  # Triton wants at least one; the reshape takes it away again
        return "dims: [ 1 ]\n  reshape { shape: [ ] }"
    return f"dims: [ {', '.join(map(str, sizes))} ]"
