"""Several devices: their processes share one search and one training, on GPUs through NCCL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iscp_lightning.classifiers import load_classifier, save_classifier
from iscp_lightning.cli import main
from iscp_lightning.data import Shapes
from iscp_lightning.patterns import PatternSet

pytestmark = pytest.mark.slow
SMALL = str(Path(__file__).parents[1] / "configs" / "small.yaml")


@pytest.fixture(autouse=True)
def _two_devices(device):
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("two GPUs are needed")


def on_two(*arguments: str) -> None:
    command = [sys.executable, "-m", "iscp_lightning", *arguments, "--trainer.devices", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_devices_search_as_one_does(accelerator, trained, tmp_path):
    weights = tmp_path / "trained.safetensors"
    save_classifier(weights, trained)
    arguments = [
        *("search", "--model", "PatternSearchModule", "--model.classifier", str(weights)),
        *("--model.classes", "[1, 4]", "--model.search.canvas", "positive"),
        *("--model.search.canvases_per_class", "2", "--model.search.search_epochs", "1"),
        *("--model.pattern_sizes", "[0.1]", "--data.source", "Shapes"),
        *("--data.source.init_args.test_count", "100", "--trainer.logger", "false"),
        *("--trainer.accelerator", accelerator, "--trainer.enable_progress_bar", "false"),
    ]
    on_two(*arguments, "--run", "two")
    main([*arguments, "--run", "one", "--trainer.devices", "1"])
    one, two = (PatternSet.load(f"runs/{n}/patterns/positive.safetensors") for n in ("one", "two"))
    assert torch.equal(one.canvas_indices, two.canvas_indices)
    assert torch.equal(one.power.clean_accuracy, two.power.clean_accuracy)
    assert (one.masks - two.masks).abs().mean() < 0.02
    torch.testing.assert_close(one.objectives, two.objectives, rtol=0.1, atol=0.02)
    assert one.power.mean.item() == pytest.approx(two.power.mean.item(), abs=0.1)


def test_two_devices_train_and_measure_one_network(accelerator):
    on_two(
        *("fit", "-c", SMALL, "--trainer.accelerator", accelerator, "--run", "two"),
        *("--trainer.callbacks+", "PatternSnapshot", "--trainer.callbacks.classes", "[0, 1]"),
        *("--trainer.callbacks.search.canvas", "white", "--trainer.callbacks.epochs", "[1]"),
        *("--trainer.callbacks+", "RobustnessEvaluation", "--trainer.callbacks.attacks", "[fgsm]"),
        *("--trainer.callbacks.images", "20", "--trainer.max_epochs", "2"),
    )
    found = PatternSet.load("runs/two/patterns/epoch002.safetensors")
    assert found.targets.tolist() == [0, 1]
    classifier = load_classifier("runs/two/checkpoints/last.ckpt").eval()
    images = Shapes(60, 100, 16).test()
    with torch.no_grad():
        said = classifier(images.pixels(range(100)) / 255).argmax(1)
    expected = (said == images.labels).double().mean().item()
    results = json.loads(Path("runs/two/results.json").read_text())
    assert results["test"]["test/clean_accuracy"] == pytest.approx(expected, abs=0.021)
    assert found.power.images.sum() == 80
