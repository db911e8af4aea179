"""Other forms of a model: which code writes what was asked for, and what it is given.

A backend's builder writes that backend's packages, a plugin's exporter what its descriptor names, and the
architecture's own exporter ONNX graphs of the other precisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.backend.torch_place import settled
from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.host.hints import BUILDERS, EXPORTS
from lensmount.host.resolve import resolve
from lensmount.specs.imports import call
from lensmount.store.fetch import fetch_files

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.plan import Ask
    from lensmount.host.site import Site
    from lensmount.specs import Exporter, ModelCard, ModelPackage


def export(
    ask: Ask,
    site: Site,
    *,
    target: str,
    output: Path | None,
    dynamic: bool,
    batch: int | Sequence[int] | None,
    progress: bool | None,
    settings: Mapping[str, Any],
    calibration: Mapping[str, Any],
    load: Callable[..., Any],
    say: Callable[[str], None],
) -> Path:
    """Writes another form of a model; see `lensmount.registry.Registry.export`."""
    from lensmount.specs.options import positive

    precision = ask.precision or "fp32"
    exporters = {p: e for e in site.index.exporters.values() if e.target == target for p in e.precisions}
    exporter = exporters.get(precision)
    if calibration and (exporter is None or "calibration" not in exporter.settings):
        raise OptionError(
            "calibration pictures go with an ONNX graph in int8 alone",
            found=f"to={target!r}, precision={precision!r}",
            expected="to='onnx', precision='int8'",
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
    missing = EXPORTS.get((target, precision)) or BUILDERS.get(target)
    if exporter is None and (missing or (exporters and target != "onnx")):  # else the architecture's exporter judges
        raise OptionError(
            f"nothing that is installed writes {target} in {precision}",
            found=f"to={target!r}, precision={precision!r}",
            expected=", ".join(exporters) or None,
            fix="; ".join([*([missing] if missing else []), *site.index.left_out]) or None,
        )
    own, rest = _sorted(exporter, {**settings, **calibration}, card)
    write = partial(architecture_export, card, site, ask.fetch, dynamic=dynamic, batch=number, settings=rest)
    if exporter is None:
        named = output or Path(f"{card.id.replace('/', '-')}.{target}")
        return write(named, target=target, precision=precision)
    from lensmount.contracts.requests import ExportRequest

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
        graph=partial(write, target="onnx", precision="fp32"),
        say=say,
    )
    written: Path = call(exporter.export, f"exporter {exporter.name!r}", Path, request)
    return written


def _sorted(
    exporter: Exporter | None, settings: Mapping[str, Any], card: ModelCard
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The exporter's own settings, and those of the architecture's export that it starts from; others are refused."""
    from lensmount.specs.options import check_names

    known = () if exporter is None else exporter.settings
    own = {name: value for name, value in settings.items() if name in known}
    rest = {name: value for name, value in settings.items() if name not in known}
    if exporter is not None and not exporter.from_graph:
        check_names(rest, (), f"exporting {card.id!r} with {exporter.name!r}", known)
    return own, rest


def _files(card: ModelCard, site: Site, fetch: FetchOptions, package: ModelPackage) -> Mapping[str, Path]:
    return fetch_files(card, [package], site.index.sources, fetch)[package.name].files


def _loaded(load: Callable[..., Any], ask: Ask, name: Any = None, **options: Any) -> Any:
    """The model that is exported, or a file that was written, loaded as the export was asked for."""
    if name is None:
        name, options = ask.subject, {"architecture": ask.architecture, **options}
    return load(name, **{"offline": ask.offline, **options})


@settled(inference=False)
def architecture_export(card: ModelCard, site: Site, fetch: FetchOptions, output: Path, **asked: Any) -> Path:
    """Fetches the torch package and calls the architecture's exporter; `asked` is the rest of `ExportContext`.

    Raises:
        UnsupportedModelError: The architecture exports nothing, or the model has no torch package.
    """
    from lensmount.contracts.model import ExportContext

    architecture = site.architecture_of(card)
    package = next((p for p in card.packages if p.format == "torch"), None)
    if architecture.exporter is None or package is None:
        found = "no exporter" if package is not None else f"packages: {', '.join(p.format for p in card.packages)}"
        raise UnsupportedModelError(
            f"{card.id!r} cannot be exported", found=found, expected="an architecture with an exporter, a torch package"
        )
    files = _files(card, site, fetch, package)
    context = ExportContext(card=card, package=package, files=files, output=output, **asked)
    written: Path = call(architecture.exporter, f"the exporter of architecture {architecture.name!r}", Path, context)
    return written
