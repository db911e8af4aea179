"""Other forms of a model: which code writes what was asked for, and what it is given.

A backend's builder writes that backend's packages, a plugin's exporter what its descriptor names, and the
architecture's own exporter ONNX graphs of the other precisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.host.resolve import resolve
from lensmount.specs.imports import import_string

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.asking import Ask
    from lensmount.host.discovery import Index
    from lensmount.host.site import Site
    from lensmount.specs import Architecture, Exporter, ModelCard, ModelPackage

CALIBRATION = "calibration"


def export(
    ask: Ask,
    site: Site,
    *,
    target: str,
    output: Path | None,
    precision: str,
    dynamic: bool,
    batch: int | Sequence[int] | None,
    progress: bool | None,
    settings: Mapping[str, Any],
    calibration: Mapping[str, Any],
    load: Callable[..., Any],
    say: Callable[[str], None],
) -> Path:
    """Writes another form of a model; see `lensmount.registry.Registry.export`.

    Args:
        ask: The model, and the device to write for.
        site: Plugins and machine.
        target: Format to write, or the backend to build for.
        output: Where.
        precision: What the result is to compute in.
        dynamic: Dynamic batch and size.
        batch: Batch size, or three of them.
        progress: Show how far a build is.
        settings: Those of the exporter.
        calibration: The settings about calibration, where they were given.
        load: `Registry.load`.
        say: Takes lines for the user.
    """
    from lensmount.specs.options import positive

    exporter = _exporter_of(site.index, target, precision)
    if calibration and (exporter is None or CALIBRATION not in exporter.settings):
        raise OptionError(
            "calibration pictures go with an ONNX graph in int8 alone",
            found=f"to={target!r}, precision={precision!r}",
            expected="to='onnx', precision='int8'",
            fix=_to_install(target, "int8"),
        )
    card = resolve(ask, site.index)
    backend = site.index.backends.get(target)
    if backend is not None and backend.builder is not None:
        from lensmount.host.engines import build

        return build(
            site,
            card,
            backend,
            precision=precision,
            device=ask.device,
            fetch=ask.fetch,
            settings={**settings, **({} if batch is None else {"batch": batch})},
            output=output,
            progress=progress,
        )
    number = 1 if batch is None else positive("batch", batch)
    if exporter is None:
        _require_known(site.index, target, precision)
        return export_graph(
            card,
            site,
            ask.fetch,
            output=output or Path(f"{card.id.replace('/', '-')}.{target}"),
            target=target,
            precision=precision,
            dynamic=dynamic,
            batch=number,
            settings=settings,
        )
    own, rest = _sorted(exporter, {**settings, **calibration}, card)
    graph = partial(_float_graph, card, site, ask.fetch, precision="fp32", dynamic=dynamic, batch=number, settings=rest)
    from lensmount.contracts.writing import ExportRequest

    request = ExportRequest(
        card=card,
        architecture=site.architecture_of(card),
        target=target,
        precision=precision,
        output=output,
        dynamic=dynamic,
        batch=number,
        device=ask.device,
        settings=own,
        graph_settings=rest,
        fetch=partial(_files, card, site, ask.fetch),
        load=partial(_loaded, load, ask),
        graph=graph,
        say=say,
    )
    written: Path = import_string(exporter.export, f"exporter {exporter.name!r}")(request)
    return written


def _exporter_of(index: Index, target: str, precision: str) -> Exporter | None:
    return next((e for e in index.exporters.values() if e.target == target and precision in e.precisions), None)


def _to_install(target: str, precision: str) -> str | None:
    """The command that installs what writes this, where lensmount knows it."""
    from lensmount.host.hints import BUILDERS, EXPORTS

    return EXPORTS.get((target, precision)) or BUILDERS.get(target)


def _require_known(index: Index, target: str, precision: str) -> None:
    """Refuses what needs a plugin that is not installed; the architecture's exporter judges the rest.

    Raises:
        OptionError: Naming the plugin, or what installed plugins write.
    """
    missing = _to_install(target, precision)
    others = [e for e in index.exporters.values() if e.target == target]
    if missing is None and (target == "onnx" or not others):
        return
    raise OptionError(
        f"nothing that is installed writes {target} in {precision}",
        found=f"to={target!r}, precision={precision!r}",
        expected=", ".join(p for e in others for p in e.precisions) or None,
        fix="; ".join([*([missing] if missing else []), *index.left_out]) or None,
    )


def _sorted(exporter: Exporter, settings: Mapping[str, Any], card: ModelCard) -> tuple[dict[str, Any], dict[str, Any]]:
    """The exporter's own settings, and those of the architecture's export that it starts from.

    Raises:
        UnknownOptionError: A setting that nobody takes.
    """
    from lensmount.specs.options import check_names

    own = {name: value for name, value in settings.items() if name in exporter.settings}
    rest = {name: value for name, value in settings.items() if name not in exporter.settings}
    if not exporter.from_graph:
        check_names(rest, (), f"exporting {card.id!r} with {exporter.name!r}", exporter.settings)
    return own, rest


def _files(card: ModelCard, site: Site, fetch: FetchOptions, package: ModelPackage) -> Mapping[str, Path]:
    from lensmount.store.fetch import fetch_files

    return fetch_files(card, [package], site.index.sources, fetch)[package.name].files


def _loaded(load: Callable[..., Any], ask: Ask, name: Any = None, **options: Any) -> Any:
    """The model that is exported, or a file that was written, loaded as the export was asked for."""
    options.setdefault("offline", ask.offline)
    if name is None:
        name = ask.subject
        options.setdefault("architecture", ask.architecture)
    return load(name, **options)


def _float_graph(card: ModelCard, site: Site, fetch: FetchOptions, output: Path, **how: Any) -> Path:
    return export_graph(card, site, fetch, output=output, target="onnx", **how)


def export_graph(
    card: ModelCard,
    site: Site,
    fetch: FetchOptions,
    *,
    output: Path,
    target: str,
    precision: str,
    dynamic: bool,
    batch: int,
    settings: Mapping[str, Any],
) -> Path:
    """Fetches the torch package and calls the architecture's exporter.

    Raises:
        UnsupportedModelError: The architecture exports nothing, or the model has no torch package.
    """
    from lensmount.contracts.model import ExportContext

    architecture: Architecture = site.architecture_of(card)
    package = next((p for p in card.packages if p.format == "torch"), None)
    if architecture.exporter is None or package is None:
        found = "no exporter" if package is not None else f"packages: {', '.join(p.format for p in card.packages)}"
        raise UnsupportedModelError(
            f"{card.id!r} cannot be exported", found=found, expected="an architecture with an exporter, a torch package"
        )
    exporter = import_string(architecture.exporter, f"architecture {architecture.name!r}")
    context = ExportContext(
        card=card,
        package=package,
        files=_files(card, site, fetch, package),
        target=target,
        output=output,
        precision=precision,
        dynamic=dynamic,
        batch=batch,
        settings=settings,
    )
    written: Path = exporter(context)
    return written
