"""Pictures in the form that inference servers take them: `{"type": "url" | "base64" | "file", "value": …}`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lensmount.errors import ImageError

EXPECTED = '{"type": "url" | "base64" | "file", "value": …}'


def from_request(source: Any) -> Any:
    """A picture of that form as one that `load` takes; anything else as it is.

    Args:
        source: Whatever a caller passed.

    Returns:
        A web address, a `data:` URI, a path; or the source itself.

    Raises:
        ImageError: A mapping of another form, or a value that is not of its type: an address that is none of the web's,
            a file that is an address. `numpy` is refused: it means a pickle, which can run code.
    """
    if not isinstance(source, Mapping):
        return source
    kind, value = source.get("type"), source.get("value")
    if kind in ("numpy", "numpy_object"):
        raise ImageError(
            "a picture of type numpy is not known: its value is a pickle, which can run code",
            found=f'{{"type": {kind!r}, …}}',
            expected=EXPECTED,
            fix="pass the array itself, or encode it as PNG and pass its bytes",
        )
    if set(source) != {"type", "value"} or kind not in ("url", "base64", "file"):
        raise ImageError("this is no image, or its form is not known", found=repr(dict(source))[:80], expected=EXPECTED)
    if kind == "base64":
        text = bytes(value).decode("ascii", "replace") if isinstance(value, (bytes, bytearray)) else value
        if isinstance(text, str):
            return text if text.startswith("data:") else f"data:;base64,{text}"
    elif kind == "url":
        if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
            return value
    elif isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and "://" not in path and not path.startswith("data:"):
            return path
    raise ImageError(f"the value of an image of type {kind} is not valid", found=repr(value)[:80], expected=EXPECTED)
