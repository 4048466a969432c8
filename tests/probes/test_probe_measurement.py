"""Probes as a measurement: what is refused, cues in conflict, and the course of a training."""

import json
from pathlib import Path

import pytest
from PIL import Image

from iscp_lightning.cli import main
from iscp_lightning.data import ImageFolder, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.probes import PatchShuffle, Saturation, ShapeAndTexture
from iscp_lightning.probes.measurement import conflicting_cues

SMALL = str(Path(__file__).parents[1] / "configs" / "small.yaml")


def folder_of(root: Path, size: int = 8) -> Path:
    for shape, texture in (("cat", "dog"), ("dog", "cat"), ("dog", "dog")):
        path = root / "cues" / shape / f"{shape}1-{texture}2.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size)).save(path)
    return root / "cues"


def data_of(root: Path, names=("bird", "dog", "cat")) -> ImageDataModule:
    for part in ("train", "test"):
        for name in names:
            path = root / "images" / part / name / "1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
    data = ImageDataModule(ImageFolder(str(root / "images")), val_fraction=0, num_workers=0)
    data.prepare_data()
    return data


def test_shapes_bring_their_own_conflicting_cues():
    for labels in ("texture", "shape_texture"):  # whose classes are no shapes
        data = ImageDataModule(Shapes(20, 10, 16, labels=labels))
        assert conflicting_cues(data, None, None) is None
    cues = conflicting_cues(ImageDataModule(Shapes(20, 10, 16)), None, None)
    assert len(cues.images) == 1000
    assert (cues.images.labels != cues.images.textures).all()
    assert cues.images.pixels([0]).shape[2:] == (16, 16)


def test_a_folder_whose_categories_are_classes(tmp_path):
    cues = conflicting_cues(data_of(tmp_path), str(folder_of(tmp_path)), None)
    names = data_of(tmp_path).class_names
    assert [names[k] for k in cues.images.labels] == ["cat", "dog", "dog"]
    assert [names[k] for k in cues.images.textures] == ["dog", "cat", "dog"]


def test_a_folder_with_a_file_of_classes(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"cat": [2, 0], "dog": [1]}))
    cues = conflicting_cues(data_of(tmp_path), str(folder_of(tmp_path)), str(file))
    assert cues.categories == [[2, 0], [1]]
    file.write_text(json.dumps({"cat": [3], "dog": [1]}))
    with pytest.raises(ValueError, match="names class 3, the data have 3 classes"):
        conflicting_cues(data_of(tmp_path), str(folder_of(tmp_path)), str(file))


def test_what_does_not_fit_is_refused(tmp_path):
    data = data_of(tmp_path, ("bird", "cat"))
    with pytest.raises(ValueError, match=r"categories that are no classes \(dog\)"):
        conflicting_cues(data, str(folder_of(tmp_path)), None)
    with pytest.raises(ValueError, match="`categories` goes with `cue_conflict`"):
        conflicting_cues(data, None, "c.json")
    assert conflicting_cues(data, None, None) is None
    with pytest.raises(ValueError, match="`images` must be 1 or more, got 0"):
        ShapeAndTexture(images=0)
    with pytest.raises(ValueError, match="`distortions` must differ"):
        ShapeAndTexture([Saturation(8), Saturation(8.0)])
    with pytest.raises(ValueError, match="k"):
        ShapeAndTexture([PatchShuffle(9)]).check(data)


def test_the_course_of_a_training_is_recorded_and_drawn():
    main(["fit", "-c", SMALL, "--trainer.max_epochs", "2", "--run", "r", *CALLBACK])
    (file,) = Path("runs/r/measurements").glob("*.json")
    measured = json.loads(file.read_text())["measured"]
    assert [each["provenance"]["epoch"] for each in measured] == [1, 2]
    rows = measured[1]["records"]
    found = {(row["measure"], row.get("distortion"), row.get("strength")) for row in rows}
    assert ("generalisation", "patch shuffle", 2.0) in found
    assert ("shape_bias", None, None) in found
    assert all(len(row["interval"]) == 2 for row in rows)
    assert {"accuracy.png", "shape_bias.png"} <= {f.name for f in Path("runs/r").rglob("*.png")}


CALLBACK = [
    "--trainer.callbacks",
    json.dumps(
        [
            {
                "class_path": "AtEpochs",
                "init_args": {
                    "measurement": {
                        "class_path": "ShapeAndTexture",
                        "init_args": {
                            "distortions": [{"class_path": "PatchShuffle", "init_args": {"k": 2}}],
                            "images": 20,
                        },
                    },
                    "epochs": [1],
                },
            }
        ]
    ),
]
