"""Artefacts are written beside their names: a kill while writing leaves the old ones whole."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from iscp_lightning.attacks import robust_data
from iscp_lightning.attacks.robust_data import RobustDataBuilder, RobustDataSettings
from iscp_lightning.classifiers import checkpoints, create_classifier, save_classifier
from iscp_lightning.data import MemoryImages, Trigger
from iscp_lightning.data.images import FileImages
from iscp_lightning.loggers import RunCSVLogger
from iscp_lightning.patterns import PatternSet, pattern
from iscp_lightning.runs import Run, save_figure, write_json
from iscp_lightning.trainer import AtomicCheckpointIO, RunStart


class Killed(BaseException):
    """Ends a process in the middle of its writing."""


def half(path, *_, **__) -> None:
    """Write something to the path, or the first path among arguments, and be killed."""
    Path(path).write_bytes(b"half")
    raise Killed


def patterns() -> PatternSet:
    mask, one = torch.ones(1, 2, 2), torch.zeros(1)
    canvas = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    by_name = {"mask": mask}
    return PatternSet(one.long(), one.long(), canvas, by_name, by_name, one, one.long(), ("a",), {})


def builder(folder: Path) -> RobustDataBuilder:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    images = MemoryImages(torch.rand(4, 3, 2, 2), torch.arange(4) % 2)
    settings = RobustDataSettings(steps=1, batch_size=4)
    return RobustDataBuilder(network, images, torch.arange(4), settings, folder)


def built(path: Path) -> None:
    (path.parent / "chunks").mkdir()
    chunk = {"images": torch.zeros(4, 3, 2, 2, dtype=torch.uint8)}
    old = path.read_bytes()
    path.unlink()
    made = builder(path.parent)
    path.write_bytes(old)
    robust_data.save_file(chunk, path.parent / "chunks" / "000000.safetensors")
    made.finish()


def started(path: Path) -> None:
    run = Run()
    run.folder, run.started = path.parent, True
    trainer = SimpleNamespace(loggers=[], fast_dev_run=False, is_global_zero=True, training=True)
    trainer.strategy = SimpleNamespace(barrier=lambda _: None)
    RunStart(run, "model: NaturalModule\n", [])._start(trainer)


def save_half(self, path, *_, **__) -> None:
    half(path)


WRITERS = {
    "classifier.safetensors": (
        lambda path: save_classifier(path, create_classifier("resnet20")),
        (checkpoints, "save_file", lambda _, path, *__: half(path)),
    ),
    "patterns.safetensors": (
        lambda path: patterns().save(path),
        (pattern, "save_file", lambda _, path, *__: half(path)),
    ),
    "train.safetensors": (built, None),
    "last.ckpt": (
        lambda path: AtomicCheckpointIO(Run()).save_checkpoint({}, path),
        (torch, "save", lambda _, path: half(path)),
    ),
    "results.json": (lambda path: write_json(path, {"new": 1}), (Path, "write_text", save_half)),
    "config.yaml": (started, (Path, "write_text", save_half)),
    "figure.png": (lambda path: save_figure(path, Figure()), (Figure, "savefig", save_half)),
    "trigger.png": (
        lambda path: Trigger().draw((8, 8)).save(path),
        (Image.Image, "save", save_half),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_artefact_is_old_or_new(name, tmp_path, monkeypatch):
    path = tmp_path / "run" / name
    path.parent.mkdir()
    path.write_bytes(b"old")
    write, patch = WRITERS[name]
    if patch is None:  # the second file that it writes is the artefact
        save, calls = robust_data.save_file, []

        def second(content, to, *_):
            calls.append(to)
            return save(content, to) if len(calls) == 1 else half(to)

        patch = (robust_data, "save_file", second)
    with monkeypatch.context() as patched:
        patched.setattr(*patch)
        with pytest.raises(Killed):
            write(path)
    assert path.read_bytes() == b"old"
    assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]


def test_a_csv_file_is_not_cut_short_by_a_kill(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n0,1\n1,2\n")
    monkeypatch.setattr(csv.DictWriter, "writerows", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        RunCSVLogger(str(tmp_path)).drop_from(1)
    assert path.read_text() == "step,loss\n0,1\n1,2\n"


def test_a_cache_is_whole_or_absent(tmp_path, monkeypatch):
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    files = FileImages([str(tmp_path / f"{name}.png") for name in "ab"], torch.tensor([0, 1]))
    decode, seen = FileImages.decode, []

    def killed(self, path):
        seen.append(path)
        if len(seen) == 2:
            raise Killed
        return decode(self, path)

    monkeypatch.setattr(FileImages, "decode", killed)
    with pytest.raises(Killed):
        files.in_memory(tmp_path / "cache", 0)
    assert not list((tmp_path / "cache").iterdir())


def test_a_chunk_of_a_built_set_is_whole_or_absent(tmp_path, monkeypatch):
    made = builder(tmp_path)
    monkeypatch.setattr(robust_data, "save_file", lambda _, path: half(path))
    with pytest.raises(Killed):
        made.make(0, torch.device("cpu"))
    assert not list((tmp_path / "chunks").iterdir())


def test_run_json_is_old_or_new(tmp_path, monkeypatch):
    run = Run(["fit"])
    run.folder = tmp_path
    run.start()
    before = (tmp_path / "run.json").read_text()
    again = Run(["fit", "--resume", "x"])
    again.go_on(tmp_path)
    monkeypatch.setattr(Path, "write_text", save_half)
    with pytest.raises(Killed):
        again.start()
    assert (tmp_path / "run.json").read_text() == before
    assert json.loads(before)["commands"][0]["arguments"] == ["fit"]
