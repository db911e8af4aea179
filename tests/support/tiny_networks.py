"""Small networks of several plans, and files in the layouts that trainers write them in."""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager

import torch
from torch import nn

from lensmount_networks import layers, torch_module
from lensmount_yolo.networks.assemble import assemble
from lensmount_yolo.networks.build import build_network
from lensmount_yolo.networks.fuse import fuse
from lensmount_yolo.networks.tensors import measure


class Shapes(dict):
    """Shapes of tensors by official name."""

    def conv(self, name, out, into, kernel=1, *, groups=1):
        self[f"{name}.conv.weight"] = (out, into // groups, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.bn.{part}"] = (out,)
        self[f"{name}.bn.num_batches_tracked"] = ()

    def plain(self, name, out, into):
        self[f"{name}.weight"], self[f"{name}.bias"] = (out, into, 1, 1), (out,)

    def c2f(self, name, out, into, repeats=1):
        half = out // 2
        self.conv(f"{name}.cv1", out, into)
        self.conv(f"{name}.cv2", out, (2 + repeats) * half)
        for stage in range(repeats):
            self.conv(f"{name}.m.{stage}.cv1", half, half, 3)
            self.conv(f"{name}.m.{stage}.cv2", half, half, 3)

    def branch(self, name, out, into, width=8):
        self.conv(f"{name}.0", width, into, 3)
        self.conv(f"{name}.1", width, width, 3)
        self.plain(f"{name}.2", out, width)

    def head(self, row, widths, *, classes, extra=None, single=False, bins=16):
        for prefix in ("", "one2one_") if single else ("",):
            for level, width in enumerate(widths):
                self.branch(f"model.{row}.{prefix}cv2.{level}", 4 * bins, width)
                self.branch(f"model.{row}.{prefix}cv3.{level}", classes, width)
        if extra is not None:
            for level, width in enumerate(widths):
                self.branch(f"model.{row}.cv4.{level}", extra, width)
        if bins > 1:
            self[f"model.{row}.dfl.conv.weight"] = (1, bins, 1, 1)


def pyramid(*, classes=3, deepest=5, finest=3, extra=None, single=False, bins=16, channels=3):
    """A v8 of two to six levels: backbone to stride `2 ** deepest`, head on strides from `2 ** finest`."""
    shapes = Shapes()
    shapes.conv("model.0", 8, channels, 3)
    row, width, stage = 1, 8, {}
    for level in range(2, deepest + 1):
        shapes.conv(f"model.{row}", 8, width, 3)
        shapes.c2f(f"model.{row + 1}", 8, 8)
        stage[level], row = row + 1, row + 2
    for _ in range(finest, deepest):  # an upsampling and a joining have no tensors
        shapes.c2f(f"model.{row + 2}", 8, 16)
        row += 3
    for _ in range(finest, deepest):
        shapes.conv(f"model.{row}", 8, 8, 3)
        shapes.c2f(f"model.{row + 2}", 8, 16)
        row += 3
    shapes.head(row, [8] * (deepest - finest + 1), classes=classes, extra=extra, single=single, bins=bins)
    return shapes


def classifier(classes=4):
    """A classifier of two halvings."""
    shapes = Shapes()
    shapes.conv("model.0", 8, 3, 3)
    shapes.conv("model.1", 8, 8, 3)
    shapes.c2f("model.2", 8, 8)
    shapes.conv("model.3.conv", 16, 8)
    shapes["model.3.linear.weight"], shapes["model.3.linear.bias"] = (classes, 16), (classes,)
    return shapes


def lively(shapes, seed=0):
    """Node and network with weights and statistics that let every part matter."""
    torch.manual_seed(seed)
    node, network = measure(shapes), build_network(shapes).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, layers.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 1.5)
    return node, network


def folded(node, network):
    """The module of a network that is folded for use."""
    tree, tensors = fuse(node, {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    return torch_module(assemble(tree), tensors)


OF_TORCH = {
    kind: getattr(nn, kind)
    for kind in ("Conv2d", "ConvTranspose2d", "BatchNorm2d", "Linear", "MaxPool2d", "AdaptiveAvgPool2d", "Upsample",
                 "Sequential", "ModuleList", "Identity", "SiLU")
}  # fmt: skip


@contextmanager
def stand_ins():
    """Lets `make(module, name)` create classes that pickle under a given path, and forgets them afterwards."""
    made = {}

    def make(module, name):
        holder = sys.modules.get(module)
        if holder is None:
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                path = ".".join(parts[:end])
                if path not in sys.modules:
                    sys.modules[path] = made[path] = types.ModuleType(path)
            holder = sys.modules[module]
        if not hasattr(holder, name):
            setattr(holder, name, type(name, (nn.Module,), {"__module__": module, "__qualname__": name}))
        return getattr(holder, name)

    try:
        yield make
    finally:
        for path in made:
            del sys.modules[path]


def official_tree(make, node, network, *, names, old=False, root="DetectionModel", root_module="ultralytics.nn.tasks"):
    """A module tree as trainers pickle it: classes of other people's names, attributes, submodules."""

    def place(kind):
        if old:
            return "ultralytics.nn.modules"
        return "ultralytics.nn.modules." + ("conv" if kind in ("Conv", "Concat") else "block")

    def convert(part, module, row=None):
        if part.kind in OF_TORCH:
            made = OF_TORCH[part.kind](**part.settings)
            if not part.parts:
                made.load_state_dict(module.state_dict(), strict=False)  # the counter of batches is torch's own
        else:
            made = make(place(part.kind), part.kind)()
            for key, value in part.settings.items():
                setattr(
                    made,
                    "stride" if key == "strides" else key,
                    torch.tensor(value).float() if key == "strides" else value,
                )
        for name, child in part.parts.items():
            made.add_module(name, convert(child, getattr(module, name)))
        return made

    rows = []
    for (name, part), source in zip(node.parts.items(), node.settings["sources"], strict=True):
        made = convert(part, network.model[int(name)])
        made.f, made.i = (list(source) if isinstance(source, tuple) else source), int(name)
        rows.append(made)
    model = make(root_module, root)()
    model.model = nn.Sequential(*rows)
    model.names = names
    model.yaml = {"nc": len(names), "scale": "n"}
    model.stride = torch.tensor([8.0, 16.0, 32.0])
    return model
