"""`transfer`: the patterns of runs on the classifiers of others."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from iscp_lightning.classifiers import create_classifier, save_classifier
from iscp_lightning.cli import main
from iscp_lightning.commands._measuring import short_names
from iscp_lightning.commands.transfer import searched_in, warn_if_related

ROOT = Path(__file__).parents[2]
SMALL = str(ROOT / "tests" / "configs" / "small.yaml")
TRAINED = ["--model.classifier", str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")]
TRAINED += ["--data.source.size", "32", "--model.optimizer.lr"]
RELATED = r"one classifier descends from the other.*: a/last and b/last \(0\.9|1\.0"
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
QUICK = ["--model.search.canvas", "white", "--model.classes", "[star, ring]", *CPU]
QUICK += [
    "--model.search.search_epochs",
    "1",
    "--trainer.devices",
    "1",
    "--trainer.logger",
    "false",
]
FEW = ["--images", "20", "--pattern_sizes", "0.05", "0.1", *CPU]


@pytest.fixture
def _runs():
    """Two networks, one trained a little further than the other, with a search in each."""
    for name, rate in (("a", "0"), ("b", "0.001")):
        main(["fit", "-c", SMALL, *TRAINED, rate, "--run", name])
        main(["search", "--from", f"runs/{name}", *QUICK, "--run", f"of_{name}"])


def results(run: str) -> dict:
    return json.loads((Path("runs") / run / "results.json").read_text())


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(["transfer", *arguments, *CPU, "--run", "x"])
    assert done.value.code == 2
    assert not Path("runs/x").exists()
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("_runs")
def test_all_pairs_of_searches_and_their_classifiers(capsys):
    with pytest.warns(UserWarning, match=RELATED):
        main(["transfer", "--patterns", "runs/of_a", "runs/of_b", *FEW, "--run", "t"])
    with Path("runs/t/transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patterns"], row["classifier"], row["pattern_size"]) for row in rows] == [
        (of, on, size)
        for on in ("a/last", "b/last")
        for of in ("of_a", "of_b")
        for size in ("0.05", "0.1")
    ]
    assert set(rows[0]) >= {"transfer_rate", "robust_accuracy", "clean_accuracy", "mean_base_rate"}
    stored = results("t")
    assert stored["provenance"]["searched_in"] == {"of_a": "a/last", "of_b": "b/last"}
    assert stored["provenance"]["images"] == 20
    # the image choice is shared, so that one classifier has one accuracy
    accuracies = {
        (r["classifier"], r["value"]) for r in stored["records"] if r["measure"] == "clean_accuracy"
    }
    assert len(accuracies) == 2
    for row in rows:
        assert float(row["robust_accuracy"]) <= float(row["clean_accuracy"])
    assert {path.stem for path in Path("runs/t/figures").iterdir()} == {
        *("mean_predictive_power_5", "mean_predictive_power_10"),
        *("mean_attack_success_rate_5", "mean_attack_success_rate_10"),
        *("robust_accuracy_5", "robust_accuracy_10"),
    }
    text = capsys.readouterr().out
    assert "2 patterns of of_a, 2 patterns of of_b; 20 images that no search has used" in text
    with pytest.warns(UserWarning, match=RELATED):
        main(["transfer", "-c", "runs/t/config.yaml", "--run", "again"])
    assert results("again")["records"] == stored["records"]


@pytest.mark.usefixtures("_runs")
def test_files_instead_of_runs_and_classifiers_of_ones_choice(capsys):
    file = "runs/of_a/patterns/white.safetensors"
    assert searched_in(["runs/of_a", file]) == ["runs/a/checkpoints/last.ckpt"]
    main(["transfer", "--patterns", file, "--classifiers", "runs/b", *FEW, "--run", "t"])
    stored = results("t")
    assert list(stored["provenance"]["classifiers"]) == ["b"]
    assert stored["provenance"]["patterns"] == {"of_a/white": file}
    rates = [r["value"] for r in stored["records"] if r["measure"] == "transfer_rate"]
    assert rates == [None, None]
    assert "no rate of of_a/white: the classifier that was searched in" in capsys.readouterr().out


@pytest.mark.usefixtures("_runs")
def test_a_network_of_ones_own(capsys):
    Path("own.yaml").write_text(
        "model: {init_args: {classifier: {class_path: tests.commands.networks.Tiny, "
        "init_args: {width: 3}}}}"
    )
    main(["fit", "-c", SMALL, "-c", "own.yaml", "--run", "own"])
    given = ["--classifiers", "runs/own", "runs/a"]
    main(["transfer", "--patterns", "runs/of_a", *given, *FEW, "--run", "t"])
    assert list(results("t")["provenance"]["classifiers"]) == ["own", "a"]


@pytest.mark.usefixtures("_runs")
def test_mistakes_end_in_one_line(capsys):
    patterns = ["--patterns", "runs/of_a"]
    assert "`--patterns` names one or more runs" in refused(capsys)
    assert "`--classifiers x` is neither" in refused(capsys, *patterns, "--classifiers", "x")
    assert "got 0" in refused(capsys, *patterns, "--images", "0")
    assert "`pattern_size`" in refused(capsys, *patterns, "--pattern_sizes", "0")
    assert "works on one device" in refused(capsys, *patterns, "--trainer.devices", "2")
    for classes, size, line in ((7, 32, "knows 7 classes"), (10, 16, "images of 16 x 16")):
        save_classifier("w.safetensors", create_classifier("test_resnet", classes, size))
        assert line in refused(capsys, *patterns, "--classifiers", "w.safetensors")
    network = create_classifier("test_resnet", 10, 32)
    save_classifier("w.safetensors", network, class_names=list("abcdefghij"))
    line = refused(capsys, *patterns, "--classifiers", "w.safetensors")
    assert "`classifier`=w.safetensors knows other classes (a, b, c, ...) than the data" in line
    assert "the images (16, 16)" in refused(capsys, *patterns, "--data.source.size", "16")
    Path("p.safetensors").write_bytes(Path("runs/of_a/patterns/white.safetensors").read_bytes())
    line = refused(capsys, "--from", "runs/a", "--patterns", "p.safetensors")
    words = "`--classifiers` must be given: `--patterns p.safetensors` names no weights file"
    assert line == f"error: {words}"
    for name in "abcdefghij":
        for split in ("train", "test"):
            (Path("set") / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(Path("set") / split / name / "0.png")
    other = ["--data.source", "ImageFolder", "--data.source.root", "set"]
    line = refused(capsys, *patterns, *other, "--data.val_fraction", "0")
    assert "`patterns`=runs/of_a knows other classes (circle, " in line
    assert "than the data have (a, b, c, ...), from class 0 on" in line


def test_classifiers_that_descend_from_each_other_are_named(recwarn):
    torch.manual_seed(0)
    first, other, third = (create_classifier("test_resnet") for _ in range(3))
    third.load_state_dict(first.state_dict())
    with torch.no_grad():
        for weight in third.parameters():
            weight += 0.1 * torch.randn_like(weight) * weight.abs().mean()
    networks = {"first": first, "other": other, "third": third, "again": first}
    hashes = {"first": "1", "other": "2", "third": "3", "again": "1"}
    warn_if_related({"first": first, "other": other}, hashes)
    assert not recwarn
    warn_if_related(networks, hashes)
    text = str(recwarn.pop().message)
    assert "first and again (the same)" in text
    assert "first and third (0.9" in text or "first and third (1.0" in text
    assert "other" not in text.split(":", 1)[1].replace("others", "")


def test_short_names_are_unique():
    Path("runs/a/checkpoints").mkdir(parents=True)
    Path("runs/a/config.yaml").touch()
    places = ["runs/a", "runs/a/checkpoints/last.ckpt", "weights/b.safetensors"]
    assert short_names(places) == ["a", "a/last", "b"]
    assert short_names(["x/b.ckpt", "y/b.ckpt"]) == ["x/b.ckpt", "y/b.ckpt"]
