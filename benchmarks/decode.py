"""Time of decoding an image folder against a bare two-process PIL loop over the same files.

    python benchmarks/decode.py data/cifar10

Also prints how long a second start takes until it has read every pixel from the cache.
"""

import argparse
import json
import statistics
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from iscp_lightning.data import ImageFolder


def decode(paths: list[str]) -> int:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB"))
    return len(paths)


def bare(paths: list[str]) -> float:
    start = time.perf_counter()
    with get_context("fork").Pool(2) as pool:
        pool.map(decode, [paths[::2], paths[1::2]])
    return time.perf_counter() - start


def ours(root: str, cache: str) -> float:
    start = time.perf_counter()
    ImageFolder(root, cache_dir=cache, num_workers=2).prepare()
    return time.perf_counter() - start


def cached(root: str, cache: str) -> float:
    start = time.perf_counter()
    source = ImageFolder(root, cache_dir=cache, num_workers=2)
    for images in (source.train(), source.test()):
        images.images.clone()  # reads every page of the map
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    paths = sorted(str(path) for path in Path(args.root).glob("*/*/*") if path.is_file())
    times: dict[str, list[float]] = {"decode": [], "cached": [], "bare": []}
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as cache:
            times["decode"].append(ours(args.root, cache))
            times["cached"].append(cached(args.root, cache))
        times["bare"].append(bare(paths))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:7s} {value:6.2f} s for {len(paths)} files")
    pairs = zip(times["decode"], times["bare"], strict=True)
    ratio = statistics.median(ours / other for ours, other in pairs)  # of neighbouring runs
    print(json.dumps({"decode_over_bare": round(ratio, 3), "cached_seconds": median["cached"]}))


if __name__ == "__main__":
    main()
