"""How a server of lensmount-serve holds up: many clients on this machine, for a bounded time, against direct calls.

    python benchmarks/serve_load.py --seconds 60 --clients 64

Starts `lensmount serve shapes-nano` in a process of its own on 127.0.0.1 and prints: time from start to ready; answers
by status; the 99th percentile of answered requests over the mean time of a run; memory at a third and at the end;
pictures per second against `model.stream` on the same picture. Clients that are told 429 come again when they were
told to.
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

SCENE = Path(__file__).resolve().parents[1] / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"
PORT = 9331


def client(count, seconds, body, answers):
    """`count` clients in one process, by turns on connections that stay open; waits for none longer than the others."""
    import threading

    found, times = collections.Counter(), []
    expected = []
    end = time.monotonic() + seconds

    def one():
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        while time.monotonic() < end:
            start = time.monotonic()
            connection.request("POST", "/infer/object_detection", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            found[answer.status] += 1
            if answer.status == 200:
                times.append(time.monotonic() - start)
                rows = json.loads(data)["predictions"]
                expected.append(tuple((row["class"], round(row["x"], 1), round(row["y"], 1)) for row in rows))
            else:
                time.sleep(float(answer.getheader("Retry-After", "1")))
        connection.close()

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put((dict(found), times, set(expected)))


def get(path):
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def memory(pid):
    """Resident bytes (Linux)."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("server", nargs="*", help="further arguments of lensmount serve")
    asked = parser.parse_args()
    body = json.dumps(
        {"model_id": "shapes-nano", "image": {"type": "base64", "value": base64.b64encode(SCENE.read_bytes()).decode()}}
    ).encode()

    start = time.monotonic()
    command = [sys.executable, "-m", "lensmount", "serve", "shapes-nano", "--port", str(PORT), "--fixed", *asked.server]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ)
    try:
        while get("/readiness")[0] != 200:
            time.sleep(0.02)
        print(f"ready after {time.monotonic() - start:.2f} s")
        answers = multiprocessing.Queue()
        share = asked.clients // asked.processes
        workers = [
            multiprocessing.Process(target=client, args=(share, asked.seconds, body, answers))
            for _ in range(asked.processes)
        ]
        for worker in workers:
            worker.start()
        time.sleep(asked.seconds / 3)
        early = memory(server.pid)
        parts = [answers.get() for _ in workers]
        late = memory(server.pid)
        statuses = sum((collections.Counter(part[0]) for part in parts), collections.Counter())
        times = sorted(seconds for part in parts for seconds in part[1])
        kinds = set().union(*(part[2] for part in parts))
        page = get("/metrics")[1].decode()
        total = float(re.search(r'stage_seconds_sum{model="shapes-nano",stage="run"} (\S+)', page)[1])
        count = float(re.search(r'stage_seconds_count{model="shapes-nano",stage="run"} (\S+)', page)[1])
        p99 = times[int(len(times) * 0.99)]
        rate = len(times) / asked.seconds
        print(f"statuses {dict(statuses)}; different answers: {len(kinds)}")
        print(f"{rate:.1f} pictures/s; median {times[len(times) // 2] * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
        print(f"mean run {total / count * 1e3:.1f} ms; p99 / run = {p99 / (total / count):.2f}")
        print(f"memory {early / 1e6:.1f} MB at a third, {late / 1e6:.1f} MB at the end ({late / early - 1:+.1%})")
    finally:
        server.terminate()
        print(f"stopped with status {server.wait(60)}")

    from lensmount import registry

    with registry.load("shapes-nano") as model:
        pictures = [SCENE.read_bytes()] * 400
        list(model.stream(pictures[:20]))
        start = time.monotonic()
        list(model.stream(pictures))
        streamed = len(pictures) / (time.monotonic() - start)
    print(f"model.stream {streamed:.1f} pictures/s; the server {rate / streamed:.2f} of it")


if __name__ == "__main__":
    main()
