"""`pull`, `lock` and `cache`: bring models here, pin them, and look after what is here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from lensmount import registry
from lensmount.cli.output import out, size, table
from lensmount.cli.settings import Refresh
from lensmount.errors import InputError
from lensmount.store import cachetool
from lensmount.store.addresses import known_as, public
from lensmount.store.store import Store

Models = Annotated[list[str], typer.Argument(help="Model ids or addresses.")]
Force = Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would go.")]
AllowInsecure = Annotated[
    bool, typer.Option("--allow-insecure", help="Accept plain http and addresses without a hash.")
]

cache = typer.Typer(help="Look after the files that were fetched.", no_args_is_help=True)


def pull(
    model: Models,
    package: Annotated[str | None, typer.Option(help="One package; none for the one that would run here.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All packages.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for a bundle to carry to an offline machine.")] = None,
    source: Annotated[str | None, typer.Option(help="Scheme of the source to ask (roboflow).")] = None,
    api_key: Annotated[str | None, typer.Option(help="Key for that source.", envvar="LENSMOUNT_API_KEY")] = None,
    allow_insecure: AllowInsecure = False,
    refresh: Refresh = False,
) -> None:
    """Fetch models, verified, so that later loads need no network."""
    console = out()
    for name in model:
        folder = to if to is None or len(model) == 1 else to / name.rpartition("://")[2].replace("/", "-")
        got = registry.pull(
            name, package=package, every=every, to=folder, source=source, api_key=api_key,
            allow_insecure=allow_insecure, refresh=refresh,
        )  # fmt: skip
        for label, fetched in got.items():
            for file, path in fetched.files.items():
                text = f"{name}  {label}  {file}  {size(fetched.sizes[file])}  sha256 {fetched.sha256s[file]}  {path}"
                console.print(text, markup=False, soft_wrap=True)
        if folder is not None:
            console.print(f"bundle {folder}", markup=False, soft_wrap=True)


def lock(
    model: Models,
    output: Annotated[Path, typer.Option("--output", "-o", help="Lock file.")] = Path("lensmount.lock"),
    allow_insecure: AllowInsecure = False,
) -> None:
    """Write lensmount.lock: the files that models stand for, so that loads with locked=True accept nothing else."""
    print(registry.lock(model, output, allow_insecure=allow_insecure))


@cache.command("ls")
def cache_ls() -> None:
    """List the packages in the store."""
    rows = table("model", "package", "size", "complete", "folder")
    for found in cachetool.list_packages(Store()):
        rows.add_row(found.id, found.package, size(found.size), "yes" if found.complete else "no", str(found.folder))
    out().print(rows)


@cache.command("size")
def cache_size() -> None:
    """Show how much the store takes."""
    found = cachetool.size(Store())
    parts = f"files {size(found.blobs)}, unfinished {size(found.partials)}, records {size(found.records)}"
    out().print(f"{found.root}: {size(found.total)} ({parts})", markup=False, soft_wrap=True)


@cache.command("verify")
def cache_verify(remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged.")] = False) -> None:
    """Hash every file again; exit status 1 when one is damaged."""
    findings = cachetool.verify(Store())
    bad = [finding for finding in findings if finding.state != "sound"]
    console = out()
    for finding in bad:
        console.print(f"{finding.state}: {finding.path} {finding.detail}", markup=False, soft_wrap=True)
    console.print(f"{len(findings) - len(bad)} files sound, {len(bad)} not")
    if remove and bad:
        _say([cachetool.remove_damaged(findings, dry_run=False)])
    if bad:
        raise typer.Exit(1)


@cache.command("add")
def cache_add(
    file: Annotated[Path, typer.Argument(help="A file that you copied to this machine yourself.")],
    address: Annotated[
        str, typer.Argument(help="The address that it stands for, as the error without a network says.")
    ],
    sha256: Annotated[str | None, typer.Option(help="What the file has to be.")] = None,
) -> None:
    """Put a file into the store for an address that publishes no hash; it is compared with it ever after."""
    added = Store().adopt(file, address=known_as(address), sha256=sha256)
    print(f"{public(address)} is {added.path} (sha256 {added.sha256})")


@cache.command("rm")
def cache_rm(
    model: Annotated[list[str] | None, typer.Argument(help="Model ids.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="Forget what an address stood for at its first download.")
    ] = None,
    yes: Force = False,
) -> None:
    """Remove models from the store, or forget addresses (only says so without --yes)."""
    if not model and not address:
        raise InputError("nothing was named", expected="model ids, or --address", fix="lensmount cache ls")
    store = Store()
    _say([cachetool.remove_model(store, name, dry_run=not yes) for name in model or ()])
    for uri in map(known_as, address or ()):
        known = store.ledger.reference(uri)
        if known is None:
            raise InputError(f"nothing is remembered of {uri}", fix="lensmount cache ls")
        if yes:
            store.ledger.forget(uri)
        print(f"{'forgot' if yes else 'would forget'} {uri}")


@cache.command("prune")
def cache_prune(yes: Force = False) -> None:
    """Remove what nothing uses: unfinished downloads without an owner, files of no package."""
    _say([cachetool.prune(Store(), dry_run=not yes)])


def _say(removals: Iterable[cachetool.Removal]) -> None:
    console = out()
    for removal in removals:
        verb = "would remove" if removal.dry_run else "removed"
        for path in removal.paths:
            console.print(f"{verb} {path}", markup=False, soft_wrap=True)
        hint = " (--yes does it)" if removal.dry_run and removal.paths else ""
        console.print(f"{verb} {len(removal.paths)} entries, {size(removal.size)}{hint}")
