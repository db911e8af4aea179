"""Resident memory of a tracker over thousands of frames of a looped clip.

    python benchmarks/sam2_stream.py WEIGHTS CLIP [--frames 5000] [--image-size 256] [--objects 1] [--threads 1]

Prints resident memory and time per frame as it goes, and at the end how far its median moved after the warm-up (the
first tenth): the criterion is 2 %.
"""

from __future__ import annotations

import argparse
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median


def resident() -> float:
    """MiB of this process."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()

    import cv2

    from lensmount import registry
    from lensmount_vision.images.sources import video_frames

    clip = [cv2.resize(f.image.pixels, (320, 180)) for f in islice(video_frames(str(arguments.clip)), 60)]
    extra = {} if arguments.threads is None else {"threads": arguments.threads}
    model = registry.load(arguments.weights, backend="torch", image_size=arguments.image_size, **extra)
    tracker = model.track()
    for index in range(arguments.objects):
        tracker.prompt(clip[0], boxes=[40 + 30 * index, 30, 160 + 30 * index, 150])
    warm = max(arguments.frames // 10, 50)
    step = max(arguments.frames // 50, 1)
    seen: list[float] = []
    start = time.perf_counter()
    for number, frame in enumerate(islice(cycle(clip), arguments.frames)):
        tracker.step(frame)
        if number % step == 0:
            size = resident()
            each = (time.perf_counter() - start) / (number + 1) * 1e3
            print(f"frame {number}: {size:.1f} MiB, {each:.0f} ms a frame", flush=True)
            if number >= warm:
                seen.append(size)
    quarter = max(len(seen) // 4, 1)
    first, last = median(seen[:quarter]), median(seen[-quarter:])
    print(f"after {warm} frames: {min(seen):.1f} to {max(seen):.1f} MiB (what the allocator gives back varies)")
    print(
        f"medians of the first and the last quarter: {first:.1f} and {last:.1f} MiB, {(last / first - 1) * 100:+.2f} %"
    )


if __name__ == "__main__":
    main()
