"""What lensmount does, as messages of the standard library's logger `lensmount` and of those below it.

Nothing is shown unless the program configures logging, or the user sets `LENSMOUNT_LOG`:

    LENSMOUNT_LOG=debug lensmount predict yolov8n-640 street.jpg

`info` says what was selected, fetched, opened and closed, `debug` also what was discovered and why packages were
rejected. Messages hold no key and no query of an address.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from lensmount.errors import OptionError

ROOT = "lensmount"
VARIABLE = "LENSMOUNT_LOG"
LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure() -> None:
    """Shows messages on stderr from the level that `LENSMOUNT_LOG` names on; does nothing where it is not set.

    Called at the first use of a registry and by the command line; a second call changes the level alone.

    Raises:
        OptionError: The variable holds something else.
    """
    asked = os.environ.get(VARIABLE, "").strip().lower()
    if not asked:
        return
    if asked not in LEVELS:
        raise OptionError(f"{VARIABLE} is not a level", found=repr(asked), expected=", ".join(LEVELS))
    import logging

    logger = logging.getLogger(ROOT)
    logger.setLevel(asked.upper())
    if not any(handler.get_name() == VARIABLE for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.set_name(VARIABLE)
        handler.setFormatter(logging.Formatter(FORMAT))
        logger.addHandler(handler)
        logger.propagate = False  # a program's own handlers would show every message a second time


def log(room: str, level: str, message: str, *values: Any) -> None:
    """Hands a message to the logger `lensmount.<room>`.

    A program that never imported `logging` has nobody to show a message to; then it is not imported here either, since
    that would be a tenth of the time in which models are listed.

    Args:
        room: Who speaks: `host`, `store`, `caches`.
        level: `debug` or `info`; what a user has to know is a warning or an error, not a message.
        message: Text with `%s` for the values, put together only when it is shown.
        *values: The values.
    """
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger(f"{ROOT}.{room}").log(getattr(logging, level.upper()), message, *values)
