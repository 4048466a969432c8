"""Tests of the builder of D_R and D_NR: a linear closed form, interruption, and refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from iscp_lightning.attacks import robust_data
from iscp_lightning.attacks.robust_data import RobustDataBuilder, RobustDataSettings, match_features
from iscp_lightning.classifiers.features import features_of
from iscp_lightning.data import MemoryImages

MIB = 2**20
STATUS = Path("/proc/self/status")
SETTINGS = RobustDataSettings(steps=200, step_size=0.02, batch_size=4)


class OnlyRed(nn.Module):
    """Its features are the red channel: green and blue never matter."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images[:, 0].flatten(1))


def images(count: int = 10) -> MemoryImages:
    torch.manual_seed(0)
    return MemoryImages(torch.rand(count, 3, 2, 2), torch.arange(count) % 2)


def test_what_the_classifier_sees_is_the_originals_and_the_rest_the_starts():
    originals, starts = torch.rand(5, 3, 2, 2), torch.rand(5, 3, 2, 2)
    found = match_features(OnlyRed(), originals, starts, SETTINGS)
    torch.testing.assert_close(found[:, 0], originals[:, 0], rtol=0, atol=0.03)
    assert torch.equal(found[:, 1:], starts[:, 1:])


def test_the_ball_is_kept():
    originals, starts = torch.rand(5, 3, 2, 2), torch.rand(5, 3, 2, 2)
    settings = RobustDataSettings(steps=50, step_size=0.1, epsilon=0.2)
    found = match_features(OnlyRed(), originals, starts, settings)
    assert (found - starts).flatten(1).norm(dim=1).max() <= 0.2 + 1e-6


def test_penultimate_features_are_the_input_of_the_last_linear_layer(trained):
    given = torch.rand(3, 3, 32, 32)
    with features_of(trained) as features, torch.no_grad():
        found, logits = features(given)
        assert torch.equal(trained.network.fc(found), trained(given))
        assert torch.equal(logits, trained(given))
    assert found.shape == (3, 64)
    assert not trained.network.fc._forward_pre_hooks
    with pytest.raises(ValueError, match=r"no nn\.Linear"), features_of(nn.Conv2d(3, 3, 1)):
        pass


def build(folder: Path, rows: torch.Tensor, order: list[int]) -> RobustDataBuilder:
    torch.manual_seed(1)
    builder = RobustDataBuilder(OnlyRed(), images(), rows, SETTINGS, folder, made_by="x")
    builder.begin()
    for chunk in order:
        builder.make(chunk, torch.device("cpu"))
    return builder


def test_an_interrupted_build_ends_like_an_uninterrupted_one(tmp_path):
    rows = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8, 9])
    build(tmp_path / "a", rows, [0, 1, 2]).finish()
    build(tmp_path / "b", rows, [2])  # another process, killed
    half = sorted((tmp_path / "b" / "chunks").iterdir())
    assert [path.name for path in half] == ["000002.safetensors"]
    stamp = half[0].stat().st_mtime_ns
    again = build(tmp_path / "b", rows, [0, 1, 2])
    assert half[0].stat().st_mtime_ns == stamp
    again.finish()
    first, second = (load_file(tmp_path / n / "train.safetensors") for n in "ab")
    assert torch.equal(first["images"], second["images"])
    assert torch.equal(first["labels"], images().labels[rows])
    assert first["images"].dtype == torch.uint8
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        *("build.json", "train.safetensors")
    ]


def test_a_finished_set_is_not_built_again(tmp_path, recwarn):
    rows = torch.arange(10)
    build(tmp_path, rows, [0, 1, 2]).finish()
    stamp = (tmp_path / "train.safetensors").stat().st_mtime_ns
    build(tmp_path, rows, [0, 1, 2]).finish()
    assert (tmp_path / "train.safetensors").stat().st_mtime_ns == stamp
    assert not (tmp_path / "chunks").exists()
    assert not recwarn


def own_memory() -> int:
    """Bytes of this process that no file backs."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux says what memory is backed by files")
def test_joining_never_holds_the_set(tmp_path, monkeypatch):
    """Sixteen chunks of 4 MiB: the set is on the disk, and mapped, when it is written."""
    shape, count = (3, 256, 256), 16 * 22
    blank = torch.zeros(1, *shape, dtype=torch.uint8).expand(count, *shape)
    given = MemoryImages(blank, torch.arange(count) % 2)
    settings = RobustDataSettings(batch_size=22)
    made = RobustDataBuilder(OnlyRed(), given, torch.arange(count), settings, tmp_path)
    (tmp_path / "chunks").mkdir()
    for chunk in range(16):
        pixels = torch.full((22, *shape), chunk, dtype=torch.uint8)
        save_file({"images": pixels}, tmp_path / "chunks" / f"{chunk:06d}.safetensors")
    held = []

    def save(*arguments):
        held.append(own_memory())
        save_file(*arguments)

    monkeypatch.setattr(robust_data, "save_file", save)
    before = own_memory()
    made.finish()
    assert held[0] - before < 16 * MIB
    images = load_file(tmp_path / "train.safetensors")["images"]
    assert images.shape == (count, *shape)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(16).repeat_interleave(22))


def test_every_image_starts_from_another_one():
    for count in (2, 3, 10):
        rows = torch.arange(count)
        builder = RobustDataBuilder(OnlyRed(), images(), rows, SETTINGS, Path("x"))
        assert (builder.starts != rows).all()
        assert torch.equal(builder.starts.sort().values, rows)


def test_what_the_classifier_cannot_see_stays_the_start(tmp_path):
    rows = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8, 9])
    builder = build(tmp_path, rows, [])
    for chunk, positions in enumerate(builder.chunks):
        made = builder.compute(chunk, torch.device("cpu"))
        starts, originals = (images().pixels(i[positions]) for i in (builder.starts, rows))
        assert torch.equal(made[:, 1:], starts[:, 1:])
        distance = (made[:, 0].int() - originals[:, 0].int()).abs()
        assert distance.max() <= 0.03 * 255


def test_a_folder_of_another_build_is_refused(tmp_path):
    rows = torch.arange(4)
    build(tmp_path, rows, [0])
    described = json.loads((tmp_path / "build.json").read_text())
    assert described["settings"]["steps"] == 200
    relabelled = images()
    relabelled.labels = 1 - relabelled.labels
    for other in (
        RobustDataBuilder(OnlyRed(), images(), rows, SETTINGS, tmp_path, made_by="y"),
        RobustDataBuilder(OnlyRed(), relabelled, rows, SETTINGS, tmp_path, made_by="x"),
    ):
        with pytest.raises(ValueError, match="another build"):
            other.begin()
    (tmp_path / "build.json").unlink()
    (tmp_path / "train.safetensors").write_text("somebody else's")
    with pytest.raises(ValueError, match="was not built here"):
        build(tmp_path, rows, [])


def test_missing_chunks_are_counted(tmp_path):
    builder = build(tmp_path, torch.arange(10), [1])
    with pytest.warns(UserWarning, match=f"2 of 3 chunks are left to build in {tmp_path}"):
        builder.finish()
    assert not (tmp_path / "train.safetensors").exists()
    assert (tmp_path / "chunks" / "000001.safetensors").exists()


def test_fractions_are_accepted():
    settings = RobustDataSettings(step_size="1/4", epsilon="1/2")
    assert (settings.step_size, settings.epsilon) == (0.25, 0.5)


@pytest.mark.parametrize("name", ["steps", "batch_size", "step_size", "epsilon"])
def test_wrong_settings_are_named(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        RobustDataSettings(**{name: 0})


def test_the_seed_decides_what_an_image_starts_from():
    rows = torch.arange(10)
    starts = [
        RobustDataBuilder(
            OnlyRed(), images(), rows, RobustDataSettings(seed=seed), Path("x")
        ).starts
        for seed in (None, 0, 1)
    ]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


def test_made_pixels_are_rounded(monkeypatch, tmp_path):
    monkeypatch.setattr(
        robust_data, "match_features", lambda *_: torch.full((4, 3, 2, 2), 10.6 / 255)
    )
    made = RobustDataBuilder(OnlyRed(), images(), torch.arange(4), SETTINGS, tmp_path)
    assert (made.compute(0, torch.device("cpu")) == 11).all()
