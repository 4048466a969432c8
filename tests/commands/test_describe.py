"""`describe`: the patterns of a run in numbers, records, tables and figures."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from iscp_lightning.classifiers import create_classifier, save_classifier
from iscp_lightning.cli import main
from iscp_lightning.commands.describe import objects_of
from iscp_lightning.data import MNIST, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.shapes import draw_shapes, shape_masks

ROOT = Path(__file__).parents[2]
SMALL = str(ROOT / "tests" / "configs" / "small.yaml")
TRAINED = ["--model.classifier", str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")]
TRAINED += ["--data.source.size", "32", "--model.optimizer.lr"]
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
QUICK = ["--model.classes", "[star, ring]", "--model.search.search_epochs", "1"]
QUICK += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.logger", "false"]
FEW = ["--images", "20", "--pattern_sizes", "0.1", *CPU]
OWN = """
model:
  init_args:
    classifier: {class_path: tests.commands.networks.Tiny, init_args: {width: 3}}
"""


def searched(canvas: str, *arguments: str) -> None:
    kinds = ["--model.search.canvas", canvas, "--model.search.canvases_per_class", "2"]
    main(["search", *arguments, *QUICK, *kinds, "--run", canvas])


@pytest.fixture
def _runs():
    main(["fit", "-c", SMALL, *TRAINED, "0", "--run", "a"])
    searched("random", "--from", "runs/a")


def results(run: str) -> dict:
    return json.loads((Path("runs") / run / "results.json").read_text())


def values(run: str) -> dict[tuple, float]:
    return {
        (r["measure"], r.get("pattern_size"), r.get("class")): r["value"]
        for r in results(run)["records"]
    }


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("_runs")
def test_a_search_is_described_and_again_from_its_configuration(capsys):
    cli = main(["describe", "--from", "runs/random", *FEW, "--run", "d"])
    found = values("d")
    assert found["chance_corner_share", 0.1, "star"] == 0.25
    share = 102 / 1024
    assert found["chance_attention_overlap", 0.1, "ring"] == pytest.approx(share / (2 - share))
    assert found["chance_connectedness", 0.1, "star"] == pytest.approx(101 / 1023)
    assert 0 <= found["mean_object_share", 0.1, None] <= 1
    assert 0.05 < found["mean_chance_object_share", 0.1, None] < 0.6
    assert {key[2] for key in found} == {None, "star", "ring"}
    stored = results("d")
    assert stored["provenance"]["images"] == 20
    assert stored["provenance"]["searched_in"] == stored["tested_classifier_hash"]
    assert stored["provenance"]["classifier_hash"] == stored["tested_classifier_hash"]
    figures = {path.stem for path in Path("runs/d/figures").iterdir()}
    assert figures == {"description_10", "attention"}
    text = capsys.readouterr().out
    assert "patterns of 10 %" in text
    assert "object share" in text
    assert cli.datamodule.seed == 0
    main(["describe", "-c", "runs/d/config.yaml", "--run", "again"])
    assert results("again")["records"] == stored["records"]


@pytest.mark.usefixtures("_runs")
def test_the_patterns_of_one_run_in_the_classifier_of_another(capsys):
    main(["fit", "-c", SMALL, *TRAINED, "0.001", "--run", "b"])
    file = "runs/random/patterns/random.safetensors"
    main(["describe", "--patterns", file, "--from", "runs/b/checkpoints/last.ckpt", *FEW])
    assert "; searched in another classifier" in capsys.readouterr().out
    (run,) = Path("runs").glob("describe-*")
    stored = results(run.name)
    assert stored["provenance"]["searched_in"] != stored["tested_classifier_hash"]
    # a pattern file of a run says classifier and images, too
    main(["describe", "--patterns", file, *FEW, "--run", "d"])
    assert results("d")["provenance"]["searched_in"] == results("d")["tested_classifier_hash"]
    config = yaml.safe_load(Path("runs/d/config.yaml").read_text())
    assert config["patterns"] == file
    assert config["trainer"]["devices"] == 1  # of however many there are
    assert config["trainer"]["logger"] is False


def test_sizes_that_the_search_was_not_for_are_warned_of():
    main(["fit", "-c", SMALL, *TRAINED, "0", "--run", "a"])
    variant = ["--model.search.variant", "TriggerInversion", "--model.pattern_sizes", "[0.01]"]
    main(["search", "--from", "runs/a", *QUICK, *variant, "--run", "i"])
    words = "TriggerInversion searches for patterns of 1 %: for 10 % it only ranks pixels"
    with pytest.warns(UserWarning, match=words):
        main(["describe", "--from", "runs/i", *FEW, "--attention", "false", "--run", "d"])
    with pytest.warns(UserWarning, match=words):
        main(["transfer", "--patterns", "runs/i", *FEW, "--run", "t"])


def test_sizes_are_those_that_the_search_measured():
    main(["fit", "-c", SMALL, *TRAINED, "0", "--run", "a"])
    variant = ["--model.search.variant", "TriggerInversion", "--model.pattern_sizes", "[0.01]"]
    main(["search", "--from", "runs/a", *QUICK, *variant, "--run", "i"])
    main(["describe", "--from", "runs/i", "--attention", "false", *CPU, "--run", "d"])
    main(["transfer", "--patterns", "runs/i", *CPU, "--run", "t"])
    for run in ("d", "t"):
        sizes = {record.get("pattern_size") for record in results(run)["records"]} - {None}
        assert sizes == {0.01}


@pytest.mark.usefixtures("_runs")
def test_a_dry_run_leaves_nothing():
    before = sorted(Path("runs").iterdir())
    main(["describe", "--from", "runs/random", *CPU, "--trainer.fast_dev_run", "true"])
    assert sorted(Path("runs").iterdir()) == before


def test_a_network_of_ones_own_without_convolutions(capsys):
    Path("own.yaml").write_text(OWN)
    main(["fit", "-c", SMALL, "-c", "own.yaml", "--run", "a"])
    searched("white", "--from", "runs/a")
    line = refused(capsys, "describe", "--from", "runs/white", *FEW, "--run", "d")
    assert line.startswith("error: Grad-CAM needs a convolution")
    assert "`classifier` is a Tiny" in line
    assert not Path("runs/d").exists()
    main(["describe", "--from", "runs/white", "--attention", "false", *FEW, "--run", "d"])
    found = values("d")
    assert not any("attention" in key[0] for key in found)
    assert found["object_share", 0.1, "star"] is None  # the white canvas shows none
    assert found["edge_share", 0.1, "star"] is None  # nor has it edges


@pytest.mark.usefixtures("_runs")
def test_mistakes_end_in_one_line(capsys):
    def told(*arguments: str) -> str:
        return refused(capsys, "describe", *arguments, *CPU, "--run", "x")

    search = ["--from", "runs/random"]
    assert "`--patterns` names a pattern file" in told()
    assert "`patterns`=runs/a is neither a pattern file nor a run" in told("--patterns", "runs/a")
    assert "`images` must be 1 or more, got 0" in told(*search, "--images", "0")
    assert "got 2.0" in told(*search, "--pattern_sizes", "2")
    assert "is made for images of 32 x 32 pixels, the data have" in told(
        *search, "--data.source.size", "16"
    )
    assert "not the test set that was searched" in told(*search, "--data.source.seed", "1")
    assert "must be 32-true" in told(*search, "--trainer.precision", "bf16-mixed")
    assert "one device" in told(*search, "--trainer.devices", "2")
    network = create_classifier("test_resnet", 10, 32)
    save_classifier("w.safetensors", network, class_names=list("abcdefghij"))
    other = told(*search, "--model.classifier", "w.safetensors")
    assert "`classifier`=w.safetensors knows other classes (a, b, c, ...)" in other
    Path("runs/random/patterns/more.safetensors").touch()
    assert "has several files, name one: " in told(*search)
    file = "runs/random/patterns/random.safetensors"
    Path("elsewhere.safetensors").write_bytes(Path(file).read_bytes())
    data = ["--data.source", "Shapes", "--data.source.test_count"]
    assert "`--from` names the classifier" in told(
        "--patterns", "elsewhere.safetensors", *data, "100"
    )
    assert not Path("runs/x").exists()


@pytest.mark.usefixtures("_runs")
def test_another_classifier_than_that_of_the_run():
    main(["describe", "--from", "runs/random", *TRAINED[:2], *FEW, "--run", "d"])
    found = results("d")
    assert found["tested_classifier_hash"] == found["provenance"]["classifier_hash"]
    assert found["tested_classifier_hash"] != found["provenance"]["searched_in"]


def test_objects_are_those_of_the_test_images():
    data = ImageDataModule(Shapes(train_count=20, test_count=30, size=16, seed=2))
    drawn = draw_shapes(30, size=16, seed=7)
    assert torch.equal(data.test_images.pixels(range(30)), drawn.images)
    assert torch.equal(objects_of(data), shape_masks(30, size=16, seed=7))
    assert objects_of(ImageDataModule(MNIST())) is None
