"""Options that several commands share, declared once, and what `--set NAME=VALUE` asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from lensmount.errors import InputError

__all__ = [
    "ArchitectureName", "AsJson", "BackendName", "BackendNames", "DeviceName", "ModelName", "NumbersFile", "Offline",
    "Options", "PrecisionName", "PrecisionNames", "Refresh", "RunThreads", "Threads", "load_options",
]  # fmt: skip

ModelName = Annotated[str, typer.Argument(help="Model id, path of a file or folder, or address (hf://owner/repo).")]
BackendName = Annotated[str | None, typer.Option(help="onnx, torch, …; None to choose.")]
BackendNames = Annotated[str | None, typer.Option(help="onnx, torch, …; several with commas.")]
DeviceName = Annotated[str | None, typer.Option(help="cpu, cuda:0, mps; None to choose.")]
PrecisionName = Annotated[str | None, typer.Option(help="fp32, fp16, bf16.")]
PrecisionNames = Annotated[str | None, typer.Option(help="fp32, fp16, …; several with commas.")]
ArchitectureName = Annotated[str | None, typer.Option(help="Where several recognise the file.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.")]
RunThreads = Annotated[int | None, typer.Option(help="CPU threads of one run of the network.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", help="Load option of the model's architecture, NAME=VALUE; may be repeated."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Open no socket.")]
Refresh = Annotated[
    bool, typer.Option("--refresh", help="Take what an address without a commit or hash gives now, not what it gave.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NumbersFile = Annotated[str | None, typer.Option("--json", help="File for all numbers as JSON, or - .")]


def load_options(texts: Sequence[str] | None, threads: int | None = None) -> dict[str, Any]:
    """What `--set` and `--threads` ask for, as keyword arguments of `registry.load`.

    A value is read as JSON (`640`, `0.5`, `true`, `[480, 640]`; a list becomes a tuple), else as text.

    Raises:
        InputError: A text has no `=`, or a name comes twice.
    """
    options: dict[str, Any] = {} if threads is None else {"threads": threads}
    for text in texts or ():
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name.isidentifier():
            raise InputError("--set is not valid", found=repr(text), expected="NAME=VALUE, such as antialias=true")
        if name in options:
            raise InputError(f"{name} is set twice", found=repr(text), expected="each option once")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value
