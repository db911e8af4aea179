"""What a reader of model files gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmount.specs import ModelCard

Recogniser = Callable[[Any], "ModelCard | None"]
"""Looks at a file's facts (`lensmount_reading.FileFacts`) and answers with a card, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What the function that `Reader.read` names gets.

    Artifacts of the card that it returns have `file://` addresses; of a repository's folder they are turned into the
    repository's addresses, and the files of those that `bring` did not bring come when the model is loaded.

    Attributes:
        path: The file, or the folder with the reader's marker; absolute.
        given: The same as the caller wrote it, for messages.
        name: What to call the model where the files do not say; None for the path's name.
        architecture: The architecture that the caller asked for, or None.
        recognisers: Looks at a file's facts, by name of the architecture: of all of them, or of the one asked for.
        left_out: One line on each plugin that could not be loaded, for errors that this may explain.
        bring: Brings another file of the folder, which is downloaded where the folder is a repository's; answers with
            its path, or None when there is no such file.
    """

    path: Path
    given: Path
    bring: Callable[[str], Path | None]
    name: str | None = None
    architecture: str | None = None
    recognisers: Mapping[str, Recogniser] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
