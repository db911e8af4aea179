"""How much of everything a file may ask for. Real files stay one to three orders of magnitude below each figure.

The figures bound memory and time by the file's own size or by a constant, whichever is smaller: the largest official
YOLO module pickle has about 400 000 opcodes in 1 MB, the largest sharded safetensors headers have a few MB.
"""

from __future__ import annotations

MAX_PICKLE_BYTES = 64 << 20
"""Bytes of one pickle (tensor data lies outside it)."""

MAX_OPCODES = 4_000_000
"""Opcodes of one pickle; each pushes at most one object, so this also bounds the stack and every container."""

MAX_MARKS = 2_000
"""Open `MARK`s: how deep containers may nest while they are being written."""

MAX_MEMO = 2_000_000
"""Entries of the memo."""

MAX_CONTAINERS = 1_000_000
"""Mutable containers and records of one pickle."""

MAX_COPIED = 64 << 20
"""Bytes copied by constructors such as `set(list)`: shared arguments must not multiply."""

MAX_ODD_KEYS = 20_000
"""Mapping keys and set members whose hash a file can choose (floats, tuples, large integers): no hash flooding."""

MAX_STRING_BYTES = 16 << 20
"""Bytes of one string or byte string."""

MAX_INTEGER_BYTES = 256
"""Bytes of one integer."""

MAX_LINE_BYTES = 1_024
"""Bytes of one line of the text opcodes (protocol 0), global names included."""

MAX_DEPTH = 200
"""Nesting of the finished tree."""

MAX_NODES = 1_000_000
"""Values met while walking a tree; shared parts count each time they are met."""

MAX_KEY_LENGTH = 1_024
"""Characters of a dotted tensor key."""

MAX_KEY_CHARACTERS = 1 << 26
"""Characters of all dotted keys that one walk makes."""

MAX_DIMENSIONS = 32
"""Dimensions of a tensor (numpy 1.x has no more)."""

MAX_VIEW_FACTOR = 16
"""All tensors together may declare this many times the file's size (views and tied weights share storage)…"""

MAX_VIEW_FLOOR = 1 << 28
"""… or this many bytes, whichever is more."""

MAX_ZIP_ENTRIES = 300_000
"""Entries of a zip archive."""

MAX_TEXT_ENTRY = 16 << 20
"""Bytes of a text entry (metadata) of an archive."""

MAX_JSON_HEADER = 100_000_000
"""Bytes of a safetensors header: the format's own limit. Also of an index of shards."""

MAX_JSON_ITEMS = 4_000_000
"""Brackets and commas of such a header: bounds the objects that parsing it can make."""

MAX_SHARDS = 10_000
"""Files named by an index of shards."""

MAX_INPUT_ELEMENTS = 1 << 31
"""Elements of one input of a graph whose sizes are fixed: 16 pictures of 6,000 by 6,000 pixels have fewer."""

MAX_GRAPH_DEPTH = 32
"""Nesting of ONNX subgraphs."""

MAX_GRAPH_FIELDS = 5_000_000
"""Protobuf fields visited in one ONNX file."""

MAX_WRAPPERS = 16
"""Wrappers of training around one module, one in another."""
