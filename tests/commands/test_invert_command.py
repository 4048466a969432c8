"""The `invert` command: which runs it takes, what it writes."""

import csv
import json
from pathlib import Path

import pytest

from iscp_lightning.classifiers import create_classifier, load_classifier, save_classifier
from iscp_lightning.cli import main
from iscp_lightning.data import Shapes

ROOT = Path(__file__).parents[2]
WEIGHTS = str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")
ROBUST = str(ROOT / "checkpoints" / "shapes_resnet20_linf.safetensors")
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with two inversions, `a` and `b`, and a classifier `c`."""
    folder = tmp_path_factory.mktemp("inversions")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.delenv("ISCP_RUN_FOLDER", raising=False)
        config = ["-c", str(ROOT / "configs" / "experiment" / "invert_shapes.yaml"), *QUIET]
        sizes = ["--data.source.train_count", "60", "--data.source.test_count", "40"]
        sizes += ["--model.architecture.width", "1", "--trainer.max_epochs", "1"]
        for name, weights in (("a", WEIGHTS), ("b", ROBUST)):
            main(["fit", *config, "--model.classifier", weights, *sizes, "--run", name])
        small = ["-c", str(ROOT / "tests" / "configs" / "small.yaml")]
        main(["fit", *small, "--data.source.size", "32", "--run", "c"])
    return folder


@pytest.fixture(autouse=True)
def _there(runs, monkeypatch):
    monkeypatch.chdir(runs)


def _refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main(["invert", *arguments, *QUIET])
    return capsys.readouterr().err


def test_a_training_ends_with_what_its_test_found():
    results = json.loads(Path("runs/a/results.json").read_text())
    measures = {row["measure"] for row in results["records"] if row["split"] == "all"}
    assert {"mse", "ssim", "class_agreement", "pixel_retrieval_rank"} <= measures
    assert results["provenance"]["condition"] == "features"
    assert Path("runs/a/figures/reconstruction.png").is_file()


def test_two_inversions_are_asked_and_drawn_side_by_side():
    asked = ["--analyses", "Reconstruction", "LogitScale", "--images", "20"]
    main(["invert", "runs/a", "runs/b", "--judge", "runs/c", *asked, "--run", "both", *QUIET])
    results = json.loads(Path("runs/both/results.json").read_text())
    rows = results["records"]
    assert {row["inversion"] for row in rows} == {"a", "b"}
    assert {row["analysis"] for row in rows} == {"reconstruction", "logit scale"}
    assert "judge_accuracy" in {row["measure"] for row in rows}
    with Path("runs/both/invert.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows)
    names = {file.name for file in Path("runs/both/figures").iterdir()}
    assert names == {
        *("reconstruction_a.png", "reconstruction_b.png", "logit_scale_curves.png"),
        *("logit_scale_a.png", "logit_scale_b.png", "inversions.png"),
    }
    own = {
        name: [row["value"] for row in rows if row["measure"] == "mse" and row["inversion"] == name]
        for name in ("a", "b")
    }
    (mse,) = (row for row in rows if row["measure"] == "mse_difference")
    assert (mse["inversion"], mse["other"]) == ("a", "b")
    assert mse["value"] == pytest.approx(own["a"][0] - own["b"][0])
    low, high = mse["interval"]
    assert low <= mse["value"] <= high
    (images,) = {r["value"] for r in rows if r["measure"] == "images" and r["split"] == "all"}
    assert images == 20


def test_a_network_of_another_size_and_of_other_classes_is_inverted():
    save_classifier("large.safetensors", create_classifier("resnet20", 12, 48))
    config = str(ROOT / "configs" / "experiment" / "invert_shapes.yaml")
    resized = "iscp_lightning.classifiers.Resized"
    main(
        [
            *("fit", "-c", config, *QUIET, "--model.classifier", resized),
            *("--model.classifier.classifier", "large.safetensors"),
            *("--model.classifier.image_size", "48", "--model.other_classes", "true"),
            *("--model.condition", "logits", "--model.architecture.width", "1"),
            *("--data.source.train_count", "60", "--data.source.test_count", "40"),
            *("--trainer.max_epochs", "1", "--run", "large"),
        ]
    )
    asked = ["--analyses", "Reconstruction", "ClassMean", "Factors", "--images", "20"]
    main(["invert", "runs/large", "--judge", "runs/c", *asked, "--run", "of_large", *QUIET])
    rows = json.loads(Path("runs/of_large/results.json").read_text())["records"]
    assert {row["analysis"] for row in rows} == {"reconstruction", "factors"}
    measures = {row["measure"] for row in rows}
    assert {"mse", "class_agreement", "judge_accuracy"} <= measures
    assert "judge_agreement" not in measures


def test_test_repeats_what_the_training_found():
    main(["test", "--from", "runs/a", "--run", "again", *QUIET])
    first, again = (
        json.loads(Path(f"runs/{name}/results.json").read_text())["records"]
        for name in ("a", "again")
    )
    assert first == again


def test_other_runs_are_refused(capsys):
    said = _refused(capsys, "runs/c", "--run", "no")
    assert "`invert runs/c`: it is a run of NaturalModule" in said
    assert "`invert` takes the runs of inversions" in _refused(capsys, "--images", "5")
    said = _refused(capsys, "runs/a", "runs/a")
    assert "inversions must differ from each other, got runs/a runs/a" in said
    assert "`invert runs/none` is neither a run folder" in _refused(capsys, "runs/none")
    assert not Path("runs/no").exists()


def test_images_of_other_classes_than_the_inverted_classifier_knows_are_refused(capsys):
    weights = load_classifier(WEIGHTS)
    save_classifier("named.safetensors", weights, class_names=list(Shapes().class_names))
    config = ["-c", str(ROOT / "configs" / "experiment" / "invert_shapes.yaml"), *QUIET]
    sizes = ["--data.source.train_count", "60", "--data.source.test_count", "40"]
    sizes += ["--model.architecture.width", "1", "--trainer.max_epochs", "1"]
    main(["fit", *config, "--model.classifier", "named.safetensors", *sizes, "--run", "named"])
    said = _refused(capsys, "runs/named", "--data.source.labels", "texture", "--run", "no")
    assert "`classifier`=named.safetensors knows other classes (circle, square, triangle" in said
    assert not Path("runs/no").exists()


def test_a_judge_must_be_another_classifier(capsys):
    said = _refused(capsys, "runs/a", "--judge", WEIGHTS, "--run", "no")
    assert "`judge` must be another classifier than the inverted one" in said
    assert "`images` must be 1 or more, got 0" in _refused(capsys, "runs/a", "--images", "0")
    assert not Path("runs/no").exists()


def test_distortions_are_shown_the_data_first():
    silhouette = "{class_path: DistortedInputs, init_args: {distortions: [Silhouette]}}"
    main(["invert", "runs/a", "--analyses", silhouette, "--images", "10", *QUIET, "--run", "s"])
    assert Path("runs/s/figures/distorted_inputs.png").is_file()
