"""The store under load: throughput of the verified download, and kills survived.

    python benchmarks/store.py throughput [--mib 512] [--rounds 5]
    python benchmarks/store.py kills [--count 200]

Both use a web server of this machine, in a process of its own, that sends with `sendfile`. Throughput is compared
with a plain copy from the same server (http.client to a file: no hash, no check, no record), with and without fsync,
in alternating rounds; medians and best rounds are printed. The kills run the test of the suite with another count.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import http.server
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHUNK = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file."""

    protocol_version = "HTTP/1.1"
    path_on_disk: Path

    def log_message(self, *args):
        return

    def do_GET(self):
        size = self.path_on_disk.stat().st_size
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.flush()
        with self.path_on_disk.open("rb") as source:
            sent = 0
            while sent < size:
                sent += os.sendfile(self.connection.fileno(), source.fileno(), sent, min(1 << 24, size - sent))


def serve(path: Path, port: object) -> None:
    Handler.path_on_disk = path
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.put(server.server_port)
    server.serve_forever()


def plain_copy(port: int, target: Path, sync: bool) -> float:
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/w.bin")
    response = connection.getresponse()
    with target.open("wb") as out:
        shutil.copyfileobj(response, out, CHUNK)
        out.flush()
        if sync:
            os.fsync(out.fileno())
    connection.close()
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def verified(port: int, home: Path, sha256: str) -> float:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.store.download import DownloadRequest
    from lensmount.store.store import Store

    url = f"http://127.0.0.1:{port}/w.bin"
    started = time.perf_counter()
    got = Store(home).obtain(
        DownloadRequest(address=url, url=url, name="w.bin", sha256=sha256), FetchOptions(progress=False)
    )
    seconds = time.perf_counter() - started
    assert got.sha256 == sha256
    shutil.rmtree(home)
    return seconds


def throughput(folder: Path, mib: int, rounds: int) -> dict[str, object]:
    path = folder / "source.bin"
    digest = hashlib.sha256()
    with path.open("wb") as out:
        for _ in range(mib):
            block = random.randbytes(CHUNK)
            digest.update(block)
            out.write(block)
    port_queue = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(path, port_queue), daemon=True)
    server.start()
    port = port_queue.get()
    times: dict[str, list[float]] = {"verified": [], "plain": [], "plain, fsync": []}
    verified(port, folder / "warm", digest.hexdigest())
    for _ in range(rounds):
        times["plain"].append(plain_copy(port, folder / "copy", False))
        times["verified"].append(verified(port, folder / "home", digest.hexdigest()))
        times["plain, fsync"].append(plain_copy(port, folder / "copy", True))
    server.terminate()
    block, started = random.randbytes(CHUNK), time.perf_counter()
    for _ in range(200):
        digest.update(block)
    result: dict[str, object] = {
        "MiB": mib,
        "rounds": rounds,
        "sha256 alone, MiB/s": round(200 / (time.perf_counter() - started), 1),
    }
    for label, choose in (("median", statistics.median), ("best", min)):
        seconds = {name: choose(values) for name, values in times.items()}
        result[label] = {
            "MiB/s": {name: round(mib / value, 1) for name, value in seconds.items()},
            "verified / plain": round(seconds["plain"] / seconds["verified"], 3),
            "verified / plain with fsync": round(seconds["plain, fsync"] / seconds["verified"], 3),
        }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("throughput")
    one.add_argument("--mib", type=int, default=512)
    one.add_argument("--rounds", type=int, default=5)
    two = commands.add_parser("kills")
    two.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.command == "kills":
        test = Path(__file__).resolve().parent.parent / "tests/core/store/test_store_sharing.py"
        command = [sys.executable, "-m", "pytest", "-q", "-s", str(test), "-k", "killed_at_random"]
        return subprocess.run(command, env={**os.environ, "LENSMOUNT_TEST_KILLS": str(arguments.count)}).returncode
    with tempfile.TemporaryDirectory(dir=os.environ.get("LENSMOUNT_HOME")) as folder:
        print(json.dumps(throughput(Path(folder), arguments.mib, arguments.rounds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
