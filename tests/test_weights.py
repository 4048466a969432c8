"""The table of shipped weights is that of their metadata; a run can be added."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from iscp_lightning.classifiers import class_names_in, load_classifier
from iscp_lightning.cli import main
from iscp_lightning.data import Shapes

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("weights", ROOT / "docs" / "weights.py")
weights = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(weights)


def test_the_table_is_made_from_the_files():
    text = (ROOT / "checkpoints" / "README.md").read_text()
    assert weights.written(text) == text


def test_what_is_shipped_is_under_twelve_megabytes():
    assert sum(f.stat().st_size for f in (ROOT / "checkpoints").iterdir()) < 12e6


def test_a_run_is_added_with_what_it_says(tmp_path, monkeypatch):
    small = str(ROOT / "tests" / "configs" / "small.yaml")
    trained = ["--model.classifier", "resnet20", "--data.source.size", "32", "--run", "r"]
    main(["fit", "-c", small, *trained])
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    weights.add(Path("runs/r"), "mine")
    (row,) = weights.table().splitlines()[2:]
    accuracy = json.loads(Path("runs/r/results.json").read_text())["test"]["test/clean_accuracy"]
    assert f"accuracy {accuracy:.3f}" in row
    assert "resnet20, 32 x 32, 10 classes" in row
    assert "`fit -c tests/configs/small.yaml --model.classifier resnet20" in row
    shipped, trained = (
        load_classifier(str(file)).state_dict()
        for file in (tmp_path / "mine.safetensors", Path("runs/r/checkpoints/last.ckpt"))
    )
    assert (tmp_path / "mine.safetensors").stat().st_size < 0.6e6
    for name, tensor in trained.items():
        assert shipped[name].dtype == tensor.dtype
        wanted = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(shipped[name], wanted.to(tensor.dtype)), name
    assert class_names_in(tmp_path / "mine.safetensors") == tuple(Shapes().class_names)
    attack = ["--attacks", "pgd20", "--attack_images", "20", "--run", "t"]
    main(["test", "--from", str(tmp_path / "mine.safetensors"), *attack])  # names its images
    before = load_file(tmp_path / "mine.safetensors")
    weights.add_attacked(Path("runs/t"), "mine")
    (row,) = weights.table().splitlines()[2:]
    kept = json.loads(Path("runs/t/results.json").read_text())["robustness"]["robust_accuracy"]
    assert f", PGD-20 (linf 0.0314, 20 images) {kept:.3f} |" in row
    after = load_file(tmp_path / "mine.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    shutil.copy(ROOT / "checkpoints" / "shapes_resnet20.safetensors", tmp_path)
    with pytest.raises(ValueError, match="has not tested"):
        weights.add_attacked(Path("runs/t"), "shapes_resnet20")
    main(["test", "--from", str(tmp_path / "mine.safetensors"), "--run", "clean"])
    with pytest.raises(ValueError, match="nor tested with `--attacks pgd20`"):
        weights.add_attacked(Path("runs/clean"), "mine")


def test_commands_name_no_folder_of_images(tmp_path, monkeypatch):
    folder = tmp_path / "cifar10"
    for split in ("train", "test"):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for k in range(4):
                pixels = np.full((32, 32, 3), 20 * k, np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{k}.png")
    config = str(tmp_path / "copy" / "configs" / "experiment" / "natural_cifar10_folder.yaml")
    shutil.copytree(ROOT / "configs", tmp_path / "copy" / "configs")
    short = ["--trainer.max_epochs", "1", "--trainer.callbacks", "[]", "--data.val_fraction", "0"]
    short += ["--trainer.precision", "32-true", "--data.batch_size", "4", "--run", "cifar10_r"]
    main(["fit", "-c", config, "--data.source.root", str(folder), *short])
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    weights.add(Path("runs/cifar10_r"), "mine")
    with safe_open(tmp_path / "mine.safetensors", "pt") as file:
        command = json.loads(file.metadata()["provenance"])["command"]
    assert "fit -c configs/experiment/natural_cifar10_folder.yaml --data.source.root DIR" in command
    assert "--run cifar10_r" in command
