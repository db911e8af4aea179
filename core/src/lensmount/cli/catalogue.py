"""`models`, `describe`, `explain`, `plugins`: what there is, and what would run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount import registry
from lensmount.cli.output import err, out, plain, size, table, write_json
from lensmount.cli.settings import AsJson, ModelName, Offline
from lensmount.specs import ModelCard, to_dict
from lensmount.store.addresses import public

if TYPE_CHECKING:
    from lensmount.contracts.plan import LoadPlan
    from lensmount.host.discovery import PluginStatus


def models(
    task: Annotated[str | None, typer.Option(help="Only models of this task.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Only models of this architecture.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models that installed plugins know."""
    cards = registry.models(task=task, architecture=architecture)
    if as_json:
        write_json([to_dict(card) for card in cards], "-")
        return
    if not cards:
        err().print("no models" + (" match" if task or architecture else ": install a plugin, e.g. lensmount-yolo"))
        return
    rows = table("id", "architecture", "task", "licence", "formats")
    for card in cards:
        formats = ", ".join(dict.fromkeys(p.format for p in card.packages))
        rows.add_row(card.id, card.architecture, card.task, card.licence, formats)
    out().print(rows)


def describe(
    model: ModelName,
    architecture: Annotated[str | None, typer.Option(help="Architecture, where several recognise the file.")] = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Show what is known of a model, without loading it."""
    card = registry.describe(model, architecture=architecture, offline=offline or None)
    if as_json:
        write_json(to_dict(card), "-")
        return
    console = out()
    for label, text in _facts(card):
        if text:
            console.print(f"[bold]{label:<13}[/]", end="")
            console.print(plain(text, lines=True), markup=False, soft_wrap=True)
    _packages(card)


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    shown = ", ".join(card.classes[:12]) + (", …" if len(card.classes) > 12 else "")
    return [
        ("id", card.id),
        ("aliases", ", ".join(card.aliases)),
        ("description", card.description),
        ("architecture", card.architecture),
        ("task", card.task),
        ("classes", f"{len(card.classes)}: {shown}" if card.classes else "named by the weights"),
        ("licence", card.licence),
        ("notice", card.licence_notice or ""),
        ("homepage", card.homepage or ""),
        ("settings", ", ".join(f"{k}={v}" for k, v in card.settings)),
        ("recommended", ", ".join(f"{k}={v}" for k, v in card.recommended)),
        ("published", ", ".join(f"{k}={v}" for k, v in card.published)),
        *[("note", note) for note in card.notes],
    ]


def _packages(card: ModelCard) -> None:
    rows = table("package", "format", "precision", "batch", "input", "geometry", "file", "size", "sha256", "known from")
    for package in card.packages:
        spec = package.preprocess
        dims = f"{spec.size[0]}x{spec.size[1]}" if spec and spec.size else "any" if spec else "from the file"
        batch = f"{package.batch}" if package.batch else "from the file"
        for i, artifact in enumerate(package.artifacts):
            head = (package.name, package.format, package.precision, batch, dims, spec.resize if spec else "")
            digest = artifact.sha256[:12] if artifact.sha256 else "recorded at first use"
            rows.add_row(
                *(head if i == 0 else ("",) * 6), public(artifact.uri), size(artifact.size), digest, artifact.confidence
            )
    console = out()
    console.print(rows)
    if any(p.batch and p.batch.static for p in card.packages):
        console.print("A static batch takes larger requests in chunks and pads the last one.")


def explain(
    model: ModelName,
    backend: Annotated[str | None, typer.Option(help="Backend to ask for; fastest for what was measured.")] = None,
    device: Annotated[str | None, typer.Option(help="Device to ask for: cpu, cuda:0, mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision to ask for: fp32, fp16, bf16.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads that the times of fastest are of.")] = None,
    offline: Offline = False,
) -> None:
    """Show which package would be loaded here, and why every other would not."""
    extra: dict[str, Any] = {} if threads is None else {"threads": threads}
    plan = registry.explain(
        model, backend=backend, device=device, precision=precision, offline=offline or None, **extra
    )
    show_plan(plan)
    if plan.selected is None:
        raise typer.Exit(1)


def show_plan(plan: LoadPlan) -> None:
    """Prints a plan as a table."""
    from rich.markup import escape

    rows = table("package", "backend", "device", "precision", "verdict")
    for i, (*cells, said, reasons) in enumerate(plan.rows()):
        if reasons:
            said = f"[red]{said}[/]: " + "\n".join(escape(plain(reason)) for reason in reasons)
        elif i == 0:
            said = f"[green]{said}[/]"
        rows.add_row(*cells, said)
    console = out()
    console.print(f"{plan.card.id} ({plan.card.architecture}, {plan.card.task})", markup=False)
    console.print(rows)
    for text in (*([plan.decision] if plan.decision else []), *plan.notes):
        console.print(text, markup=False, soft_wrap=True)


def plugins(as_json: AsJson = False) -> None:
    """List the plugins found, and what became of each."""
    statuses = registry.plugins()
    if as_json:
        write_json([to_dict(status) for status in statuses], "-")
        return
    colours = {"active": "green", "blocked": "yellow", "broken": "red"}
    rows = table("plugin", "distribution", "version", "state", "hooks", "from")
    for status in statuses:
        state = f"[{colours[status.state]}]{status.state}[/]"
        hooks = ", ".join(hook.removeprefix("lensmount_") for hook in status.hooks)
        rows.add_row(status.name, status.distribution, status.version, state, hooks, status.location or "")
    out().print(rows)
    _left_out(statuses)


def _left_out(statuses: list[PluginStatus]) -> None:
    """Stage, reason and fix of every broken plugin."""
    from rich.markup import escape

    broken = [status for status in statuses if status.state == "broken"]
    for status in broken:
        name = f"{status.name} ({status.distribution} {status.version}), stage {status.stage}"
        error = escape(plain(status.error, lines=True))
        out().print(f"[red]broken plugin[/] {escape(name)}: {error}", soft_wrap=True)
    if broken:
        out().print("see: lensmount errors PluginError")
