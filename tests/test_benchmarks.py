"""Every benchmark still runs, made tiny; its numbers mean nothing here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "area": ["out", "--seeds", "1", "--searched", "30", "--measured", "100"],
    "attack": ["--image_size", "8", "--batch", "4", "--repeats", "1"],
    "decode": ["images", "--repeats", "1"],
    "memory": ["--classes", "60", "--image_size", "64"],
    "inversion": ["--width", "1", "--batch_size", "2", "--repeats", "1"],
    "saliency": ["--image_size", "8", "--images", "2", "--samples", "3", "--repeats", "1"],
    "scaling": ["scaling.md", "--architecture", "resnet20", "--sizes", "8", "16", "--batch", "2"],
    "schedule": ["out", "--seeds", "1", "--searched", "30", "--measured", "20"],
    "search": ["--image_size", "8", "--search_images", "20", "--repeats", "1"],
    "search --variants": ["--image_size", "8", "--search_images", "20", "--repeats", "1"],
    "search --repeats 1 --variants TotalVariation": ["--image_size", "8", "--search_images", "20"],
    "search --whole": ["--image_size", "8", "--search_images", "80", "--repeats", "1"],
    "train": ["--images", "128", "--repeats", "1"],
}


def test_there_is_a_row_for_each():
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == {name.split()[0] for name in TINY}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TINY)
def test_the_last_line_is_json(name, tmp_path):
    script, *options = name.split()
    for part in ("train", "test"):
        (tmp_path / "images" / part / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / part / "cat" / "0.png")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), *options, *TINY[name]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert all(value > 0 for value in numbers.values())
