"""`roboflow://project/version`: cards from the provider's metadata, files through the store."""

from __future__ import annotations

import re
from urllib.parse import unquote

from lensmount.contracts import Fetched, FetchOptions
from lensmount.errors import ArtifactNotFoundError, AuthenticationError, IntegrityError, SourceError
from lensmount.specs import Artifact, ModelCard, is_offline
from lensmount.store import DownloadRequest, Store, missing, missing_error, parse_web
from lensmount_roboflow import client, wire
from lensmount_roboflow.mapping import card_of
from lensmount_roboflow.packages.schema import parse

_FILE = re.compile(r"^roboflow://(?P<model>.+?)/-/(?P<package>[^/]+)/(?P<file>.+)$")
_MODEL = re.compile(r"^roboflow://(?P<model>[^?#]+?)/?$")
_SMALL = 16 << 20


class RoboflowFinder:
    """Answers for `roboflow`.

    Args:
        store: Where files and the provider's answers are kept; None for the user's store.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store if store is not None else Store()
        self._asked: dict[str, list[wire.Metadata]] = {}

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """The card of `roboflow://project/version`, with one package for each that the provider has.

        Small files (geometry, class names) are brought at once, since they are part of the card.

        Raises:
            OfflineError: Offline, and the provider was never asked about it here.
            SourceError: As for `fetch`; or the address is not one.
        """
        match = _MODEL.match(uri)
        if match is None or _FILE.match(uri):
            raise SourceError("this is not a model on Roboflow", found=uri, expected="roboflow://project/version")
        model = unquote(match["model"])
        if is_offline(options.offline):
            pages = client.kept(model, self._store)
            if pages is None:
                place = f"{self._store.root}, by a load with a network"
                raise missing_error((missing(Artifact(name="metadata", uri=uri), place),), uri)
        else:
            pages = self._pages(model, options, fresh=True)
        known: dict[str, bytes] = {}

        def bring(artifact: Artifact) -> bytes:
            if artifact.md5 is not None and artifact.md5 in known:  # packages mostly share these
                return known[artifact.md5]
            path = self.fetch(artifact, options).path
            if path.stat().st_size > _SMALL:
                raise IntegrityError(f"{artifact.name} is absurdly large", expected=f"at most {_SMALL:,} bytes")
            content = path.read_bytes()
            if artifact.md5 is not None:
                known[artifact.md5] = content
            return content

        return card_of(pages, bring)

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """Brings one file of a package, compared with the provider's md5; see `Finder.fetch`.

        Raises:
            AuthenticationError: No key, a bad key, no credits, no right, usage paused.
            ArtifactNotFoundError: The provider no longer has the package or file.
            OfflineError: Offline and not in the store.
            IntegrityError: Not what the provider promises, or not what its first download gave.
        """
        match = _FILE.match(artifact.uri)
        if match is None:
            raise SourceError(
                "this is not a file of a package on Roboflow",
                found=artifact.uri,
                expected="an address that lensmount describe roboflow://MODEL shows",
            )
        model, package, handle = (unquote(match[name]) for name in ("model", "package", "file"))

        asked: list[str] = []

        def resolve() -> str:
            # signed addresses run out, so each further attempt asks for a new one
            url = self._url(model, package, handle, options, fresh=bool(asked))
            if not parse_web(url).secure and not options.allow_insecure:
                raise SourceError(
                    f"Roboflow gives a plain http address for {handle}",
                    expected="https",
                    fix="FetchOptions(allow_insecure=True), if you accept that",
                )
            asked.append(url)
            return parse_web(url).url

        request = DownloadRequest(
            # other content has another md5, and so is another file: never one in the place of the other
            address=artifact.uri + (f"?md5={artifact.md5}" if artifact.md5 else ""),
            url="",
            name=artifact.name,
            size=artifact.size,
            sha256=artifact.sha256,
            md5=artifact.md5,
            resolve=resolve,
        )
        remembered = model in self._asked
        try:
            return self._store.obtain(request, options)
        except AuthenticationError:
            if not (remembered and len(asked) == 1):
                raise
        return self._store.obtain(request, options)  # the signed address had run out: with a new one

    def _pages(self, model: str, options: FetchOptions, *, fresh: bool) -> list[wire.Metadata]:
        if fresh or model not in self._asked:
            self._asked[model] = client.ask(model, options, self._store)
        return self._asked[model]

    def _url(self, model: str, package: str, handle: str, options: FetchOptions, *, fresh: bool) -> str:
        for page in self._pages(model, options, fresh=fresh):
            for raw in page.packages:
                if raw.get("type") != wire.PACKAGE or raw.get("packageId") != package:
                    continue
                for file in parse(wire.Package, raw, f"package {package}").files:
                    if file.handle == handle and file.url:
                        return file.url
        raise ArtifactNotFoundError(
            f"Roboflow no longer has {handle} of package {package} of {model!r}",
            fix=f"load roboflow://{model} again: another package may have taken its place",
        )
