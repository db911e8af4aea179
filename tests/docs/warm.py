"""A process that has imported what is slow to import, and forks itself for each job: `python warm.py SOCKET`.

Pages on the local hub, and the `lensmount` commands in them, each would import torch anew: most of the time that they
take. A job gets its own process, folder, environment and standard streams all the same. `python warm.py SOCKET
ARGUMENTS…` hands a command over to it; that is what `lensmount` is on such a page. POSIX only.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

HEAVY = ("numpy", "cv2", "torch", "onnx", "onnxruntime", "typer", "rich.table", "pydantic", "safetensors.torch")
"""Nothing of ours, and nothing that reads its settings from the environment while it is imported."""
LARGEST = 1 << 20


def serve(address: str) -> None:
    """Imports, listens, and forks."""
    for name in HEAVY:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for: they answer by themselves
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                work(caller)
            caller.close()


def work(caller: socket.socket) -> None:
    """Does one job in this child and answers with its exit status; a crash closes the socket without an answer."""
    message, streams, _, _ = socket.recv_fds(caller, LARGEST, 3)
    job = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    sys.path[:0] = [path for path in job["environ"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = job["arguments"]
    status = run(job["program"])
    sys.stdout.flush()
    sys.stderr.flush()
    caller.sendall(str(status).encode())
    os._exit(0)


def run(program: str) -> int:
    """Runs a script, or `lensmount`, to its exit status."""
    try:
        if program == "lensmount":
            importlib.import_module("lensmount.cli").main()
        else:
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def hand_over(
    address: str,
    program: str,
    arguments: list[str],
    environ: dict[str, str],
    folder: str,
    streams: Sequence[int],
    seconds: float | None = None,
) -> int:
    """Lets the warm process run something; gives its exit status, or 139 if it crashed.

    Raises:
        TimeoutError: It took longer than `seconds`.
    """
    job = {"program": program, "arguments": arguments, "environ": environ, "folder": folder}
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(seconds)
        server.connect(address)
        descriptors = array.array("i", streams)
        server.sendmsg([json.dumps(job).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        answer = server.recv(16)
    return int(answer) if answer else 139


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(
            hand_over(
                sys.argv[1], "lensmount", ["lensmount", *sys.argv[2:]], dict(os.environ), str(Path.cwd()), (0, 1, 2)
            )
        )
