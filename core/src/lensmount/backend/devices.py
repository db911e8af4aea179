"""Words for devices and threads that all backends share."""

from __future__ import annotations

import os

from lensmount.contracts.session import OpenRequest
from lensmount.errors import DeviceError, OptionError
from lensmount.machine.system import cpu_count, cpu_quota
from lensmount.specs.options import is_whole

THREADS_VARIABLE = "LENSMOUNT_THREADS"
DEVICE_PATH_VARIABLE = "LENSMOUNT_DEVICE_PATH"


def split_device(device: str) -> tuple[str, int]:
    """Kind and number of a device: `cuda:1` is `("cuda", 1)`, `cuda` and `cuda:0` are `("cuda", 0)`.

    Raises:
        DeviceError: Not the name of a device.
    """
    kind, colon, number = device.partition(":")
    if not kind.isalpha() or (colon and not number.isdecimal()):
        raise DeviceError(f"{device!r} is not a device", found=repr(device), expected="cpu, cuda, cuda:0, mps …")
    return kind, int(number or 0)


def requested_threads(request: OpenRequest) -> int | None:
    """CPU threads for one run: the request's, else those of `LENSMOUNT_THREADS`, else None.

    Raises:
        OptionError: Not a whole number of at least 1.
    """
    name = "threads"
    given: object = request.options.threads
    if given is None:
        text = os.environ.get(THREADS_VARIABLE, "").strip()
        if not text:
            return None
        name, given = THREADS_VARIABLE, int(text) if text.isdecimal() else text
    if not is_whole(given) or given < 1:
        raise OptionError(f"{name} is not valid", found=repr(given), expected="a whole number of at least 1")
    return int(given)


def session_threads(request: OpenRequest) -> int | None:
    """Threads to open a session with: those asked for, else what a container's CPU quota allows, else None.

    Runtimes do not see a quota: they would start a thread for each of the host's cores.

    Raises:
        OptionError: As for `requested_threads`.
    """
    return requested_threads(request) or (cpu_count() if cpu_quota() else None)


def requested_device_path(request: OpenRequest) -> bool | None:
    """Whether pictures are to be prepared on the device: the request's word, else `LENSMOUNT_DEVICE_PATH`'s, else None.

    Raises:
        OptionError: Neither true nor false.
    """
    given: object = request.options.device_path
    name = "device_path"
    if given is None:
        text = os.environ.get(DEVICE_PATH_VARIABLE, "").strip().lower()
        if not text:
            return None
        name, given = DEVICE_PATH_VARIABLE, {"1": True, "on": True, "0": False, "off": False}.get(text, text)
    if not isinstance(given, bool):
        raise OptionError(f"{name} is not valid", found=repr(given), expected="True or False (1 or 0)")
    return given
