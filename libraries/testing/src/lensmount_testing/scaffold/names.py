"""Names of a new plugin: what follows from the one that was given, and whether somebody has them already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata, util

from lensmount.errors import InputError
from lensmount.specs import NAME

PREFIX = "lensmount-"
_GIVEN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # PEP 508
_MOST = 40  # characters; lines of the templates have to hold it


@dataclass(frozen=True, slots=True)
class Names:
    """All that is derived from a plugin's name.

    Attributes:
        name: Of the entry point, and of the model, backend, scheme or cache: `my-model`.
        distribution: What pip installs: `lensmount-my-model`.
        module: What Python imports: `lensmount_my_model`.
        upper: For environment variables: `MY_MODEL`.
    """

    name: str
    distribution: str
    module: str
    upper: str


def derive(given: str) -> Names:
    """The names of a plugin, in the form that package indexes compare (PEP 503).

    Args:
        given: `my-model`, `My_Model` or `lensmount-my-model`, which are all the same.

    Raises:
        InputError: No distribution, module or hook could be called that.
    """
    normal = re.sub(r"[-_.]+", "-", given).lower()
    name = normal.removeprefix(PREFIX)
    if not _GIVEN.fullmatch(given) or not NAME.fullmatch(name) or name == "lensmount" or len(name) > _MOST:
        raise InputError(
            "this cannot be the name of a plugin",
            found=repr(given),
            expected=f"at most {_MOST} ASCII letters, digits, '-', '_' and '.', the first a letter, the last no sign",
            fix="lensmount new-plugin my-model --kind model",
        )
    return Names(
        name=name,
        distribution=PREFIX + name,
        module=(PREFIX + name).replace("-", "_"),
        upper=name.replace("-", "_").upper(),
    )


def require_free(names: Names, kind: str) -> None:
    """Refuses names that something installed, or a plugin of lensmount's own, has already.

    Args:
        names: The plugin's.
        kind: `model`, `backend`, `source` or `cache`: which of the core's tables it will be in.

    Raises:
        InputError: Two would clash; the message says with what.
    """
    taken = _taken(names, kind)
    if taken:
        raise InputError(
            f"the name {names.name!r} is taken",
            found="; ".join(taken),
            fix="choose another name, or uninstall what has it",
        )


def _taken(names: Names, kind: str) -> list[str]:
    from lensmount import registry
    from lensmount.host.hints import first_party

    index = registry.default().index
    taken = []
    if names.distribution in {*first_party("models"), *first_party("commands")}:
        taken.append(f"{names.distribution} is a plugin of lensmount's own")
    try:
        version = metadata.version(names.distribution)
        taken.append(f"{names.distribution} {version} is installed")
    except metadata.PackageNotFoundError:
        if util.find_spec(names.module) is not None:
            taken.append(f"a module {names.module} can be imported")
    for status in index.statuses:
        if status.name == names.name and status.distribution != names.distribution:
            taken.append(f"{status.distribution} has an entry point of that name")
    if kind == "model":
        owners = sorted({entry.distribution for entry in index.cards.get(names.name, ())})
        taken += [f"{owner} has a model of that id" for owner in owners]
    hook = {"model": "architectures", "backend": "backends", "source": "sources", "cache": "caches"}[kind]
    owner = index.owners.get((f"lensmount_{hook}", names.name))
    if owner is not None:
        taken.append(f"{owner} has {_ARTICLES[hook]} of that name")
    return taken


_ARTICLES = {
    "architectures": "an architecture",
    "backends": "a backend",
    "sources": "a source",
    "caches": "a cache",
}
