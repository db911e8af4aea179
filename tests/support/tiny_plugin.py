"""A plugin whose models are bytes: what a load fetched is what the model holds. No runtime is needed."""

from __future__ import annotations

import hashlib

from lensmount.specs import Architecture, Artifact, Backend, BackendStatus, ModelCard, ModelPackage, hookimpl

COMMIT = "a" * 40


class Session:
    """A session that computes nothing."""

    def __init__(self, request):
        self.device, self.precision, self.provider, self.backend = request.device, request.precision, "tiny", "tiny"
        self.inputs = self.outputs = ()
        self.metadata = {}

    def run(self, feeds):
        return {}

    def close(self):
        return


def probe(environment):
    return BackendStatus(usable=True, version="1", devices=("cpu",))


class Model:
    """What a load fetched."""

    def __init__(self, context):
        self.card, self.package = context.card, context.package
        self.backend, self.device, self.precision = "tiny", "cpu", "fp32"
        self.contents = {name: path.read_bytes() for name, path in context.files.items()}

    def warmup(self):
        return

    def close(self):
        return


build = Model


def sha(content):
    return hashlib.sha256(content).hexdigest()


def artifact(name, uri, content=None, **more):
    """An artifact that promises its content, where that is given."""
    promise = {} if content is None else {"size": len(content), "sha256": sha(content)}
    return Artifact(name=name, uri=uri, **{**promise, **more})


def card(name, *packages, **more):
    """A card of packages given as `(name, artifacts)`."""
    return ModelCard(
        id=name,
        architecture="tiny",
        task="object-detection",
        licence="Apache-2.0",
        packages=tuple(ModelPackage(name=p, format="tiny", artifacts=tuple(artifacts)) for p, artifacts in packages),
        **more,
    )


def plugin(*cards):
    """The plugin, with these cards."""

    class Plugin:
        @hookimpl
        def lensmount_architectures(self):
            yield Architecture(name="tiny", tasks=("object-detection",), factory="tiny_plugin:build")

        @hookimpl
        def lensmount_backends(self):
            yield Backend(name="tiny", formats=("tiny",), probe="tiny_plugin:probe", opener="tiny_plugin:Session")

        @hookimpl
        def lensmount_model_cards(self):
            return cards

    return Plugin()
