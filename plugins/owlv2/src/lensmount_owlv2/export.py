"""Export of both networks to ONNX, compared with the networks before they are kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lensmount.contracts.model import NetworkContext
from lensmount.errors import OptionError
from lensmount_owlv2.checkpoint import networks
from lensmount_owlv2.queries import resolve_preprocess
from lensmount_vision.towers.export import export_graphs

if TYPE_CHECKING:
    from lensmount.contracts.model import ExportContext


def export(context: ExportContext) -> Path:
    """Writes a folder with `image.onnx`, `text.onnx`, the tokeniser's files and `lensmount.json`.

    The batch is free in both graphs, and the length of texts too; `context.batch` above 1 fixes the batch of images
    unless `context.dynamic`. See `export_graphs` for what else is raised.

    Returns:
        The folder, for `registry.load`.

    Raises:
        OptionError: An export setting, of which there are none.
    """
    if context.settings:
        raise OptionError("this export has no settings of its own", found=", ".join(context.settings))
    asked = NetworkContext(card=context.card, package=context.package, files=context.files)
    return export_graphs(
        context,
        partial(networks, asked),
        fixed=("image",),
        preprocess=context.package.preprocess or resolve_preprocess(context.files),
        magnitude=lambda values: float(np.ptp(values)),
    )
