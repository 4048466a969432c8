"""Memory of a search of many classes, against what `--estimate` says of it.

    python benchmarks/memory.py [--classes 1000] [--canvases 5] [--image_size 224] [--limit 7]

One process searches random images with a tiny network from ranking to measuring and writes a
checkpoint and a pattern file, with at most `--limit` GiB of memory of its own (RLIMIT_DATA), beyond
which allocations fail. The last line is JSON: the peak of its resident memory, in GiB and over what
it had before the search plus the estimate, and the sizes of the files.
"""

import argparse
import json
import resource
import tempfile
from pathlib import Path

import torch
from torch import nn

from iscp_lightning import SearchSettings, Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns.search import measure_search, run_search
from iscp_lightning.patterns.work import search_work

GIB = 2**30
SEARCHED, SIZES = 8, (0.05,)


def resident() -> float:
    """Return the peak of the resident memory in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--canvases", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--test_images", type=int, default=48)
    parser.add_argument("--limit", type=float, default=7, help="GiB")
    args = parser.parse_args()
    limit = int(args.limit * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.manual_seed(0)
    side = args.image_size
    network = nn.Sequential(
        nn.AvgPool2d(side // 4), nn.Flatten(), nn.Linear(3 * 4 * 4, args.classes)
    )
    shape = (3, side, side)
    pixels = torch.randint(0, 256, (args.test_images, *shape), dtype=torch.uint8)
    images = MemoryImages(pixels, torch.arange(args.test_images) % args.classes)
    indices = torch.arange(SEARCHED)
    settings = SearchSettings(
        canvas="random", canvases_per_class=args.canvases, schedule="quick", seed=0
    )
    held_out = torch.arange(SEARCHED, args.test_images)
    before = resident()
    names = [str(k) for k in range(args.classes)]
    subject = Subject(network, images, names, indices, progress=True)
    search = run_search(subject, settings, range(args.classes))
    print(f"searched {len(search.active)} problems: {resident():.2f} GiB", flush=True)
    found = measure_search(search, SIZES)
    print(f"measured the winners: {resident():.2f} GiB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, patterns = Path(folder) / "last.ckpt", Path(folder) / "patterns.safetensors"
        torch.save(search.state(), checkpoint)
        found.save(patterns)
        files = {
            "checkpoint_gib": round(checkpoint.stat().st_size / GIB, 5),
            "patterns_gib": round(patterns.stat().st_size / GIB, 5),
        }
    works = search_work(
        images.labels,
        shape,
        range(args.classes),
        settings,
        search_labels=images.labels[indices],
        canvases=args.canvases,
        sizes=len(SIZES),
        measured=1,
        measured_images=held_out,
    )
    estimate = max(work.device_bytes + work.host_bytes for work in works) / GIB
    numbers = {
        "peak_gib": round(resident(), 3),
        "peak_over_estimate": round(resident() / (before + estimate), 3),
    }
    print(json.dumps(numbers | files))


if __name__ == "__main__":
    main()
