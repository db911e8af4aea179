"""What block a group of tensors belongs to, by the names of its parts and their shapes."""

from __future__ import annotations

from typing import Any

from lensmount_yolo.networks.nodes import Node

#: Names of tensors below one module: dicts, with shapes as leaves.
Tree = dict[str, Any]

_NORM = {"eps": 1e-3, "momentum": 0.03}
_LINEAR = Node("Identity")
_SILU = Node("SiLU")
#: Channels per head of self-attention and of area attention, in every version.
_HEAD_WIDTH, _AREA_HEAD_WIDTH = 64, 32


def is_head(tree: Tree) -> bool:
    """Whether a row is a head."""
    return "linear" in tree or ("cv1" not in tree and {"cv2", "cv3"} <= set(tree)) or "one2one_cv2" in tree


def out_width(node: Node) -> int:
    """Channels that a row gives."""
    if node.kind == "Conv2d":
        return int(node.settings["out_channels"])
    if node.kind == "ADown":
        return out_width(node.parts["cv1"]) + out_width(node.parts["cv2"])
    for name in ("cv5", "cv4", "cv3", "cv2", "cv1", "conv"):
        if name in node.parts:
            return out_width(node.parts[name])
    raise ValueError(f"{node.kind} has no width")


def in_width(node: Node) -> int:
    """Channels that a block takes."""
    if node.kind == "Conv2d":
        return int(node.settings["in_channels"])
    if node.kind == "ADown":
        return 2 * in_width(node.parts["cv1"])
    for name in ("cv1", "conv", "conv1", "attn", "qkv", "qk", "0"):
        if name in node.parts:
            return in_width(node.parts[name])
    raise ValueError(f"{node.kind} has no width")


def block(tree: Tree, row: int) -> Node:
    """The block of a row that has tensors, other than the head."""
    names = set(tree)
    if names == {"conv", "bn"} or names == {"conv"}:
        kernel = _kernel(tree["conv"])
        return conv(tree, stride=2 if kernel > 1 else 1, first=row <= 1)
    if names == {"cv1"}:
        return Node("AConv", {}, {"cv1": conv(tree["cv1"], stride=2)})
    if names == {"cv1", "cv2"}:
        return _pair(tree)
    if {"cv1", "cv5"} == names:
        pool = Node("MaxPool2d", {"kernel_size": 5, "stride": 1, "padding": 2})
        ends = {"cv1": conv(tree["cv1"]), "cv5": conv(tree["cv5"])}
        return Node("SPPELAN", {}, {"cv1": ends["cv1"], "cv2": pool, "cv3": pool, "cv4": pool, "cv5": ends["cv5"]})
    if names == {"cv1", "cv2", "cv3", "cv4"}:
        plain = "conv" in tree["cv2"]
        parts = {name: inner(tree[name]) for name in ("cv1", "cv2", "cv3", "cv4")}
        return Node("ELAN1" if plain else "RepNCSPELAN4", {}, parts)
    if names == {"cv1", "cv2", "attn", "ffn"}:
        parts = {name: conv(tree[name]) for name in ("cv1", "cv2")}
        return Node("PSA", {}, {**parts, "attn": _attention(tree["attn"]), "ffn": _two(tree["ffn"])})
    if {"cv1", "cv2", "m"} <= names <= {"cv1", "cv2", "m", "gamma"}:
        return _chain(tree)
    if names == {"cv1", "cv2", "cv3", "m"}:
        return inner(tree)
    raise ValueError(f"row {row} has parts of no known block: {sorted(names)[:6]}")


def _pair(tree: Tree) -> Node:
    """SPPF, SCDown or ADown: two convolutions each."""
    first, second = tree["cv1"]["conv"]["weight"], tree["cv2"]["conv"]["weight"]
    if first[2] == 3:
        return Node("ADown", {}, {"cv1": conv(tree["cv1"], stride=2), "cv2": conv(tree["cv2"])})
    if second[2] > 1:
        return Node("SCDown", {}, {"cv1": conv(tree["cv1"]), "cv2": conv(tree["cv2"], stride=2, act=False)})
    repeats, rest = divmod(second[1], first[0])
    if rest or repeats < 2:
        raise ValueError("two 1x1 convolutions that do not fit one another")
    pool = Node("MaxPool2d", {"kernel_size": 5, "stride": 1, "padding": 2})
    parts = {"cv1": conv(tree["cv1"]), "cv2": conv(tree["cv2"]), "m": pool}
    return Node("SPPF", {"n": repeats - 1, "add": False}, parts)


def _chain(tree: Tree) -> Node:
    """C2f and its kin, C2PSA, A2C2f: a chain of stages between two 1x1 convolutions."""
    stages = {name: inner(tree["m"][name]) for name in sorted(tree["m"], key=int)}
    ends = {name: conv(tree[name]) for name in ("cv1", "cv2")}
    width, joined = out_width(ends["cv1"]), in_width(ends["cv2"])
    first = next(iter(stages.values()))
    if in_width(first) == width:
        gamma = tree["gamma"][0] if "gamma" in tree else None
        return Node("A2C2f", {"gamma": gamma}, {**ends, "m": Node("ModuleList", {}, stages)})
    if 2 * in_width(first) != width:
        raise ValueError("a chain whose stages do not fit its ends")
    if joined == width:
        return Node("C2PSA", {}, {**ends, "m": Node("Sequential", {}, stages)})
    kind = "C2fCIB" if first.kind == "CIB" else "C2f" if first.kind == "Bottleneck" else "C3k2"
    return Node(kind, {}, {**ends, "m": Node("ModuleList", {}, stages)})


def inner(tree: Tree) -> Node:
    """A block inside another."""
    names = set(tree)
    if names == {"conv", "bn"} or names == {"conv"}:
        return conv(tree)
    if {"conv1", "conv2"} <= names:
        parts = {name: conv(tree[name], act=False) for name in ("conv1", "conv2")}
        return Node("RepConv", {}, {**parts, "act": _SILU})
    if names == {"conv", "conv1"}:
        parts = {name: conv(tree[name], act=False) for name in ("conv", "conv1")}
        return Node("RepVGGDW", {}, {**parts, "act": _SILU})
    if names == {"cv1", "cv2"}:
        parts = {name: inner(tree[name]) for name in ("cv1", "cv2")}
        kind = "RepBottleneck" if parts["cv1"].kind == "RepConv" else "Bottleneck"
        return Node(kind, {"add": in_width(parts["cv1"]) == out_width(parts["cv2"])}, parts)
    if names == {"cv1", "cv2", "cv3", "m"}:
        stages = {name: inner(tree["m"][name]) for name in sorted(tree["m"], key=int)}
        ends = {name: conv(tree[name]) for name in ("cv1", "cv2", "cv3")}
        kind = "RepCSP" if next(iter(stages.values())).kind == "RepBottleneck" else "C3"
        return Node(kind, {}, {**ends, "m": Node("Sequential", {}, stages)})
    if names == {"cv1"}:
        stages = {name: inner(tree["cv1"][name]) for name in sorted(tree["cv1"], key=int)}
        widths = in_width(stages["0"]), out_width(list(stages.values())[-1])
        return Node("CIB", {"add": widths[0] == widths[1]}, {"cv1": Node("Sequential", {}, stages)})
    if names == {"attn", "ffn"}:
        return Node("PSABlock", {"add": True}, {"attn": _attention(tree["attn"]), "ffn": _two(tree["ffn"])})
    if names == {"attn", "mlp"}:
        return Node("ABlock", {}, {"attn": _area_attention(tree["attn"]), "mlp": _two(tree["mlp"])})
    if names and all(name.isdigit() for name in names):
        return Node("Sequential", {}, {name: inner(tree[name]) for name in sorted(names, key=int)})
    if "weight" in names:
        return _conv2d(tree, 1, False)
    raise ValueError(f"parts of no known block: {sorted(names)[:6]}")


def _two(tree: Tree) -> Node:
    """Two 1x1 convolutions, the second without activation."""
    return Node("Sequential", {}, {"0": conv(tree["0"]), "1": conv(tree["1"], act=False)})


def _attention(tree: Tree) -> Node:
    parts = {name: conv(tree[name], act=False) for name in ("qkv", "proj", "pe")}
    width = in_width(parts["proj"])
    heads = max(width // _HEAD_WIDTH, 1)
    value, key = width // heads, (out_width(parts["qkv"]) - width) // (2 * heads)
    return Node("Attention", {"num_heads": heads, "key_dim": key, "head_dim": value}, parts)


def _area_attention(tree: Tree) -> Node:
    """`area` follows from the row's stride, see `topology`."""
    projections = ("qk", "v") if "qk" in tree else ("qkv",)
    parts = {name: conv(tree[name], act=False) for name in (*projections, "proj", "pe")}
    width = in_width(parts["proj"])
    heads = max(width // _AREA_HEAD_WIDTH, 1)
    return Node("AAttn", {"area": 1, "num_heads": heads, "head_dim": width // heads}, parts)


def _kernel(tree: Tree) -> int:
    return int(tree["weight"][2])


def _conv2d(tree: Tree, stride: int, first: bool) -> Node:
    out, narrow, *kernel = tree["weight"]
    groups = out if narrow == 1 and not first else 1
    settings = {
        "in_channels": narrow * groups,
        "out_channels": out,
        "kernel_size": tuple(kernel),
        "stride": (stride, stride),
        "padding": tuple((side - 1) // 2 for side in kernel),
        "dilation": (1, 1),
        "groups": groups,
        "bias": "bias" in tree,
    }
    return Node("Conv2d", settings)


def conv(tree: Tree, *, stride: int = 1, act: bool = True, first: bool = False) -> Node:
    """Convolution, normalisation unless folded, activation. A kernel of depth 1 is depthwise (but on grey pictures)."""
    parts = {"conv": _conv2d(tree["conv"], stride, first)}
    if "bn" in tree:
        parts["bn"] = Node("BatchNorm2d", {"num_features": tree["bn"]["weight"][0], **_NORM})
    return Node("Conv", {}, {**parts, "act": _SILU if act else _LINEAR})


def head(tree: Tree, keypoints: tuple[int, int] | None) -> Node:
    """The last row. `strides` are left to be filled in."""
    if "linear" in tree:
        out, width = tree["linear"]["weight"]
        parts = {
            "conv": conv(tree["conv"]),
            "pool": Node("AdaptiveAvgPool2d", {"output_size": 1}),
            "linear": Node("Linear", {"in_features": width, "out_features": out, "bias": "bias" in tree["linear"]}),
        }
        return Node("Classify", {}, parts)
    known = {"cv2", "cv3", "cv4", "one2one_cv2", "one2one_cv3", "dfl", "proto"}
    if not set(tree) <= known:
        raise ValueError(f"a head with parts that are not known: {sorted(set(tree) - known)[:4]}")
    parts = {}
    for name in ("cv2", "cv3", "cv4", "one2one_cv2", "one2one_cv3"):
        if name in tree:
            levels = {level: inner(tree[name][level]) for level in sorted(tree[name], key=int)}
            parts[name] = Node("ModuleList", {}, levels)
    scores = tree.get("cv3") or tree["one2one_cv3"]
    boxes = tree.get("cv2") or tree["one2one_cv2"]
    settings: dict[str, Any] = {"nc": _last(scores)[0], "reg_max": _last(boxes)[0] // 4}
    bins = settings["reg_max"]
    parts["dfl"] = Node("DFL", {}, {"conv": _conv2d({"weight": (1, bins, 1, 1)}, 1, True)}) if bins > 1 else _LINEAR
    if "proto" in tree:
        parts["proto"] = _proto(tree["proto"])
        return Node("Segment", settings, parts)
    if "cv4" not in tree:
        return Node("Detect", settings, parts)
    extra = _last(tree["cv4"])[0]
    if extra == 1:
        return Node("OBB", {**settings, "ne": 1}, parts)
    shape = keypoints or ((extra // 3, 3) if extra % 3 == 0 else (extra // 2, 2))
    return Node("Pose", {**settings, "kpt_shape": shape}, parts)


def _last(levels: Tree) -> tuple[int, ...]:
    """Shape of the kernel that ends a branch."""
    branch = levels["0"]
    shape: tuple[int, ...] = branch[max(branch, key=int)]["weight"]
    return shape


def _proto(tree: Tree) -> Node:
    width, out, *kernel = tree["upsample"]["weight"]
    up = {
        "in_channels": width,
        "out_channels": out,
        "kernel_size": tuple(kernel),
        "stride": tuple(kernel),
        "padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
        "output_padding": (0, 0),
        "bias": "bias" in tree["upsample"],
    }
    convs = {name: conv(tree[name]) for name in ("cv1", "cv2", "cv3")}
    parts = {"cv1": convs["cv1"], "upsample": Node("ConvTranspose2d", up), "cv2": convs["cv2"], "cv3": convs["cv3"]}
    return Node("Proto", {}, parts)
