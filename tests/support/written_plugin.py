"""What hooks of a plugin name: a reader of a vendor's folders, an exporter, and a selector."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from lensmount.contracts import Reason, Rejection
from lensmount.specs import Artifact, ModelCard, ModelPackage


def read(request):
    """The card of a folder whose `vendor.json` names the weights."""
    name = json.loads((request.path / "vendor.json").read_text())["file"]
    brought = request.bring(name)
    assert brought == request.path / name
    assert request.bring("absent.bin") is None
    artifact = Artifact(name=name, uri=brought.as_uri(), role="weights")
    return ModelCard(
        id=re.sub(r"[^a-z]", "-", request.name or request.path.name),
        architecture="tiny",
        task="object-detection",
        packages=(ModelPackage(name="p", format="tiny", artifacts=(artifact,)),),
    )


def recognise(facts):
    return f"recognised from {facts}"


def export(request):
    """Writes what it was asked for, and what it got with that."""
    (package,) = request.card.packages
    (path,) = request.fetch(package).values()
    model = request.load()
    units = request.settings["units"]
    request.say(f"written for {units}")
    said = f"{request.target} {request.precision} {units} of {path.read_text()}, like {model.card.id}"
    request.output.write_text(said)
    return request.output


def choose(request):
    """The package with the smallest files; what is not on this machine is refused."""
    sizes = {}
    for choice in request.plan.choices:
        files = request.local(choice.package)
        if files.keys() == {artifact.name for artifact in choice.package.artifacts}:
            sizes[choice] = sum(file.size for file in files.values())
    reason = Reason(check="files", required="files on this machine", found="none", fix=f"lensmount pull {request.name}")
    refused = [
        Rejection(package=choice.package, backend=choice.backend, reasons=(reason,))
        for choice in request.plan.choices
        if choice not in sizes
    ]
    return replace(
        request.plan,
        choices=tuple(sorted(sizes, key=sizes.__getitem__)),
        rejected=(*refused, *request.plan.rejected),
        decision=f"the smallest of {len(sizes)}",
    )
