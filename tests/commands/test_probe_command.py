"""`probe`: classifiers on distorted images, compared with each other."""

import csv
import json
from pathlib import Path

import pytest
import torch

from iscp_lightning.classifiers import create_classifier, save_classifier
from iscp_lightning.cli import main
from iscp_lightning.commands.probe import courses
from iscp_lightning.data import Shapes
from iscp_lightning.probes.adain import StyleNetwork, decoder_of, encoder_of
from iscp_lightning.probes.measurement import ShapeAndTexture
from iscp_lightning.probes.saliency import require_map
from iscp_lightning.probes.style_files import save_style_network

ROOT = Path(__file__).parents[2]
SMALL = str(ROOT / "tests" / "configs" / "small.yaml")
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def _runs():
    for seed in ("0", "1"):
        main(["fit", "-c", SMALL, "--seed_everything", seed, "--run", f"n{seed}"])


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(["probe", *arguments, *CPU, "--run", "x"])
    assert done.value.code == 2
    assert not Path("runs/x").exists()
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("_runs")
def test_two_classifiers_are_probed_and_compared(capsys):
    few = ["--images", "30", "--maps", "2"]
    main(["probe", "--classifiers", "runs/n0", "runs/n1", *CPU, *few, "--run", "p"])
    shown = capsys.readouterr().out
    assert "saturation 1024 *" in shown
    assert "error consistency (kappa): n0, n1 = " in shown
    assert "shape bias and cue share: 1000 images whose cues are in conflict" in shown
    head, rule, first, *_ = Path("runs/p/probe.md").read_text().splitlines()
    assert (head, rule) == ("|  | n0 | n1 |", "| --- | --- | --- |")
    assert first.startswith("| clean accuracy | 0.")
    with Path("runs/p/probe.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = json.loads(Path("runs/p/results.json").read_text())["records"]
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert row["measure"] == record["measure"]
        assert row["value"] == ("" if record["value"] is None else str(record["value"]))
    kinds = {(row["classifier"], row["other"]) for row in rows}
    assert kinds == {("n0", ""), ("n1", ""), ("n0", "n1")}
    of = {(r["classifier"], r["measure"], r["distortion"], r["strength"]): r for r in rows}
    clean = [float(of[name, "clean_accuracy", "", ""]["value"]) for name in ("n0", "n1")]
    (difference,) = (r for r in rows if r["measure"] == "clean_accuracy_difference")
    assert float(difference["value"]) == pytest.approx(clean[0] - clean[1])
    ginis = [float(of[n, "saliency_gini", "clean", ""]["value"]) for n in ("n0", "n1")]
    (difference,) = (
        r for r in rows if r["measure"] == "saliency_gini_difference" and r["distortion"] == "clean"
    )
    assert float(difference["value"]) == pytest.approx(ginis[0] - ginis[1])
    assert f"| saliency gini | {ginis[0]:.3f} (" in Path("runs/p/probe.md").read_text()
    drawn = {file.name for file in Path("runs/p/figures").iterdir()}
    assert {"shape_texture_plane.png", "accuracy_saturation.png", "saliency.png"} <= drawn
    assert ("n1", "saliency_gini", "saturation", "1024.0") in of
    assert ("n1", "saliency_on_object", "clean", "") in of
    main(["probe", "-c", "runs/p/config.yaml", "--run", "again"])
    again = json.loads(Path("runs/again/results.json").read_text())["records"]
    assert again == records


def test_what_trainings_measured_at_epochs_is_drawn_together():
    overlay = str(ROOT / "configs" / "overlay" / "probed_at_epochs.yaml")
    for name in ("a", "b"):
        main(["fit", "-c", SMALL, "-c", overlay, "--trainer.max_epochs", "2", "--run", name])
    main(["fit", "-c", SMALL, "--run", "without"])
    few = ["--images", "10", "--maps", "0", *CPU, "--classifiers", "runs/a", "runs/without"]
    checkpoint = "runs/b/checkpoints/last.ckpt"
    main(["probe", *few, checkpoint, "--run", "one"])
    assert not Path("runs/one/figures/probe_course.png").exists()
    main(["probe", *few, "runs/b", "--run", "two"])
    assert Path("runs/two/figures/probe_course.png").is_file()
    places = {"A": "runs/a", "B": "runs/b", "without": "runs/without", "file": checkpoint}
    ((title, past),) = courses(places).items()
    assert (title, list(past)) == ("probe", ["A", "B"])
    assert [found.provenance["epoch"] for found in past["B"]] == [1, 2]
    assert courses({"A": "runs/a", "without": "runs/without"}) == {}


@pytest.mark.usefixtures("_runs")
def test_a_classifier_of_other_classes_is_refused(capsys):
    names = list(Shapes().class_names)
    checkpoint = Path("runs/n1/checkpoints/last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    assert content["class_names"] == names
    content["class_names"] = [*names[:8], "cat", "dog"]
    torch.save(content, checkpoint)
    words = f"(cat, dog, ...) than the data have ({names[8]}, {names[9]}, ...), from class 8 on"
    for place in ("runs/n1", str(checkpoint)):
        said = refused(capsys, "--classifiers", "runs/n0", place)
        assert said == f"error: `classifier`={checkpoint} knows other classes {words}"
    names[0] = "cat"
    network = create_classifier("resnet20", image_size=16)
    save_classifier("c.safetensors", network, class_names=names)
    said = refused(capsys, "--classifiers", "runs/n0", "c.safetensors")
    assert "`classifier`=c.safetensors knows other classes (cat, " in said


@pytest.mark.usefixtures("_runs")
def test_maps_are_compared_with_patterns_of_the_same_classifier(capsys):
    quick = ["--model.search.search_epochs", "1", "--model.search.canvas", "white"]
    quick += ["--trainer.logger", "false", "--model.measure_canvases", "winners"]
    main(["search", "--from", "runs/n0", *quick, *CPU, "--run", "s"])
    few = ["--images", "10", "--maps", "1", "--patterns", "runs/s"]
    main(["probe", "--classifiers", "runs/n0", *few, *CPU, "--run", "p"])
    records = json.loads(Path("runs/p/results.json").read_text())["records"]
    assert {"saliency_overlap", "chance_saliency_overlap"} <= {r["measure"] for r in records}
    said = refused(capsys, "--classifiers", "runs/n1", *few)
    assert "`--patterns`: those given for n1 were searched in another classifier" in said


@pytest.mark.usefixtures("_runs")
def test_a_network_without_maps_is_refused_before_anything_is_measured(capsys, monkeypatch):
    def refuse(subject, *_):
        require_map(subject, "none")

    monkeypatch.setattr("iscp_lightning.commands.probe.require_map", refuse)
    monkeypatch.setattr(ShapeAndTexture, "probe", lambda *_: pytest.fail("measured"))
    few = ["--classifiers", "runs/n0", *CPU, "--images", "10", "--maps", "1"]
    assert "`method` must be one of" in refused(capsys, *few)


@pytest.mark.usefixtures("_runs")
def test_distortions_are_named_in_words_and_in_yaml(capsys):
    Path("p.yaml").write_text(
        "distortions:\n- Greyscale\n- {class_path: LowPass, init_args: {radius: 3}}\n"
    )
    few = ["--classifiers", "runs/n0", *CPU, "--images", "10", "--maps", "0"]
    main(["probe", "-c", "p.yaml", *few, "--run", "a"])
    main(["probe", "--distortions", "Edges", "Silhouette", *few, "--run", "b"])
    shown = capsys.readouterr().out
    for name in ("greyscale *", "low-pass 3 *", "edges *", "silhouette *"):
        assert name in shown


@pytest.mark.usefixtures("_runs")
def test_a_stylised_set_is_judged_once(capsys):
    zeros = torch.zeros(1, 3, 16, 16)
    encoder = encoder_of(create_classifier("resnet20", image_size=16), zeros)
    network = StyleNetwork(encoder, decoder_of(encoder, zeros))
    save_style_network("net.safetensors", network, (3, 16, 16))
    painted = '{"class_path": "Stylised", "init_args": {"network": "net.safetensors"}}'
    few = ["--images", "10", "--maps", "0", *CPU, "--distortions", painted, "Edges"]
    main(["probe", "--classifiers", "runs/n0", "runs/n1", *few, "--run", "p"])
    records = json.loads(Path("runs/p/results.json").read_text())["records"]
    losses = {(r["measure"], r["pictures"]): r for r in records if "pictures" in r}
    assert len(losses) == len([r for r in records if "_loss" in r["measure"]]) == 6
    assert not any("classifier" in record for record in losses.values())
    assert losses["style_loss", "style"]["value"] == 0
    with Path("runs/p/probe.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["pictures"]]
    assert [float(row["value"]) for row in rows] == [r["value"] for r in losses.values()]
    kept, mine = (
        f"{losses['content_loss', name]['value']:.3f}" for name in ("stylised", "content")
    )
    shown = capsys.readouterr().out
    assert f"content loss, stylised 1 textures: {kept}; images as they are {mine}, styles" in shown


def test_what_cannot_be_probed_is_refused_before_anything_runs(capsys):
    assert "`--classifiers` names" in refused(capsys)
    assert "neither a run folder nor" in refused(capsys, "--classifiers", "no.safetensors")
    for size, classes, words in ((16, 10, "images of 16 x 16"), (32, 3, "knows 3 classes")):
        save_classifier("c.safetensors", create_classifier("resnet20", classes, image_size=size))
        said = refused(capsys, "--classifiers", "c.safetensors", "--data.source", "Shapes")
        assert words in said
    shapes = ["--data.source", "Shapes", "--classifiers", WEIGHTS]
    again = [*shapes, WEIGHTS]
    assert "`--classifiers` must differ from each other" in refused(capsys, *again)
    assert "`maps` must be 0 or more, got -1" in refused(capsys, *shapes, "--maps", "-1")
    two = [*shapes, "--patterns", "runs/a", "runs/b"]
    assert "`noise` must be 0 or more, got -1" in refused(capsys, *shapes, "--noise", "-1")
    said = refused(capsys, "--classifiers", "c.safetensors")
    assert "`--classifiers c.safetensors` does not say which images it was trained on" in said
    assert "`--patterns` names 2 searches for 1 classifiers" in refused(capsys, *two)
    assert "`images` must be 1 or more" in refused(capsys, *shapes, "--images", "0")
    tiles = '{"class_path": "PatchShuffle", "init_args": {"k": 99}}'
    assert "99" in refused(capsys, *shapes, "--distortions", "Edges", tiles)
    wrong = '{"class_path": "Saturation", "init_args": {"p": 0}}'
    assert "`p` must be above 0" in refused(capsys, *shapes, "--distortions", wrong)
    assert "must hold images" in refused(capsys, *shapes, "--cue_conflict", "/nowhere")


WEIGHTS = str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")
