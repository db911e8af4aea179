"""`doctor`: what this machine has, what can run on it, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from lensmount import registry
from lensmount.cli.diagnosis import diagnose
from lensmount.cli.output import out, plain, size, table, write_json
from lensmount.cli.settings import AsJson
from lensmount.specs import Backend, BackendStatus, to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lensmount.machine.environment import Environment


def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has, which backends can run on it, and what is wrong.

    Reads files, metadata and the driver; imports no runtime. Exit status 0: nothing is wrong. 1: something installed
    does not do what it is there for (a GPU stands idle, a plugin is broken), or no backend can run.
    """
    found = registry.default().environment
    backends = registry.backends()
    broken = [status for status in registry.plugins() if status.state == "broken"]
    findings = diagnose(found, backends, broken)
    serious = sum(finding.serious for finding in findings)
    if as_json:
        report: dict[str, Any] = {
            "ok": not serious,
            "environment": to_dict(found),
            "backends": [{"name": b.name, **to_dict(s)} for b, s in backends],
            "findings": [to_dict(finding) for finding in findings],
            "broken_plugins": [to_dict(status) for status in broken],
        }
        write_json(report, "-")
    else:
        _show(found, backends)
        for finding in findings:
            _say("red" if finding.serious else "yellow", "problem" if finding.serious else "note", finding.problem)
            if finding.fix:
                _say("green", "    fix", finding.fix)
        if not serious:
            _say("green", "ok", "nothing is wrong")
    if serious:
        raise typer.Exit(1)


def _say(colour: str, label: str, text: str) -> None:
    console = out()
    console.print(f"[{colour}]{label}[/] ", end="")
    console.print(plain(text), markup=False, soft_wrap=True)


def _show(environment: Environment, backends: list[tuple[Backend, BackendStatus]]) -> None:
    from rich.markup import escape

    console = out()
    rows = table("this machine", "")
    for label, text in facts(environment):
        rows.add_row(label, escape(plain(text)))
    console.print(rows)
    rows = table("backend", "usable", "version", "devices", "precisions", "what to do")
    for backend, status in backends:
        usable = "[green]yes[/]" if status.usable else "[red]no[/]"
        todo = "; ".join(text for text in (status.reason, status.fix) if text)
        precisions = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in status.precisions)
        rows.add_row(
            backend.name, usable, status.version or "", ", ".join(status.devices), precisions, escape(plain(todo))
        )
    console.print(rows)


def facts(environment: Environment) -> Iterator[tuple[str, str]]:
    """Lines on a machine for people: label and text."""
    e = environment
    system = ", ".join(word for word in (e.release or e.system, e.machine, e.libc) if word)
    yield "system", system
    yield "Python", e.python
    memory = f", {size(e.memory_bytes)}" if e.memory_bytes else ""
    yield "processor", f"{e.cpu_name or e.machine}, {e.cpu_count} usable{memory}"
    for gpu in e.gpus:
        parts = [gpu.name, f"compute capability {gpu.compute_capability or 'unknown'}"]
        parts += [size(gpu.memory_bytes)] if gpu.memory_bytes else []
        yield f"cuda:{gpu.index}", ", ".join(parts)
    if e.cuda_driver or e.cuda:
        yield "NVIDIA driver", f"{e.cuda_driver or 'version unknown'}, runs CUDA up to {e.cuda or 'unknown'}"
    if e.l4t:
        yield "Jetson", f"JetPack {e.jetpack or 'unknown'} (L4T {e.l4t})"
    if e.gpus:
        yield "cuDNN", e.cudnn or "not found"
        yield "TensorRT", e.tensorrt or "not found"
    if e.system == "darwin":
        yield "Metal (mps)", "yes" if e.mps else "no"
    if e.onnxruntime:
        cuda = f", built for CUDA {e.onnxruntime_cuda}" if e.onnxruntime_cuda else ""
        yield "onnxruntime is", f"{e.onnxruntime}{cuda}"
    yield "installed", ", ".join(f"{name} {version}" for name, version in e.packages) or "nothing of interest"
