"""Tests of building D_R on the command line, in one process and with two."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from iscp_lightning.cli import main

WEIGHTS = str(Path(__file__).parents[2] / "checkpoints" / "shapes_resnet20.safetensors")


COMMAND = [
    *("predict", "--model", "RobustDataWriter", "--model.init_args.classifier", WEIGHTS),
    *("--model.init_args.settings.batch_size", "8", "--data.source", "Shapes"),
    *("--model.init_args.settings.steps", "3", "--data.val_fraction", "0"),
    *("--data.source.init_args.train_count", "40", "--data.source.init_args.test_count", "20"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
]


def build(folder: str, *arguments: str) -> dict[str, torch.Tensor]:
    main([*COMMAND, "--model.init_args.folder", folder, "--run", Path(folder).name, *arguments])
    return load_file(Path(folder) / "train.safetensors")


def test_a_built_set_can_be_trained_on(capsys):
    built = build("set")
    assert "\nset/train.safetensors\n" in capsys.readouterr().out
    assert built["images"].shape == (40, 3, 32, 32)
    origin = ["--data.source.init_args.origin", "Shapes"]
    main(
        [
            *("fit", "--model", "NaturalModule", "--model.init_args.classifier", "resnet20"),
            *("--data.source", "RobustData", "--data.source.init_args.root", "set", *origin),
            *("--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"),
        ]
    )


def test_without_a_folder_it_lies_in_the_run(capsys):
    main([*COMMAND, "--run", "r"])
    path = Path("runs/r/robust_data/train.safetensors")
    assert f"\n{path}\n" in capsys.readouterr().out
    half = ["--model.init_args.fraction", "0.5", "--overwrite"]
    main([*COMMAND, "--run", "r", *half])  # what the run leaves goes with it
    assert len(load_file(path)["labels"]) == 20
    built = json.loads((path.parent / "build.json").read_text())
    assert built["images"] == 20
    results = json.loads(Path("runs/r/results.json").read_text())
    assert results["records"] == [{"measure": "images", "value": 20}]
    assert results["provenance"] == built


def test_a_fraction_is_stratified():
    built = build("set", "--model.init_args.fraction", "0.5")
    assert built["labels"].bincount().tolist() == [2] * 10


@pytest.mark.slow
def test_two_processes_build_what_one_does():
    alone = build("one")
    both = build("two", "--trainer.devices", "2", "--trainer.strategy", "ddp_fork")
    assert torch.equal(alone["labels"], both["labels"])
    assert torch.equal(alone["images"], both["images"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--data.poison.target", "star"], "leave `data.poison` out"),
        (["--trainer.precision", "bf16-mixed"], "holds another build"),
        (["--model.init_args.fraction", "0"], "`fraction` must lie in (0, 1]"),
    ],
)
def test_what_does_not_fit_is_refused(option, message, capsys):
    build("set")
    with pytest.raises(SystemExit):
        build("set", *option, "--overwrite")
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        (["--model.init_args.settings.seed", "3"], 3),
        (["--data.seed", "2"], 2),
        (["--seed_everything", "5"], 5),
        (["--data.seed", "2", "--model.init_args.settings.seed", "3"], 3),
    ],
)
def test_the_seed_is_its_own_or_that_of_the_data(options, seed):
    build("set", *options, "--model.init_args.fraction", "0.25")
    built = json.loads(Path("set/build.json").read_text())
    assert f'"seed": {seed}' in json.dumps(built["settings"])


def test_what_it_takes_is_said_before(capsys):
    main([*COMMAND, "--run", "r", "--model.init_args.fraction", "0.5", "--estimate"])
    building = capsys.readouterr().out.splitlines()[1].split()
    assert building[:3] == ["building", "20", "60"]  # 20 images, 3 steps each
    assert not Path("runs").exists()


def test_the_network_is_compiled_when_asked(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    plain = build("plain")
    assert not compiled
    built = build("compiled", "--model.init_args.compile", "true")
    assert [network.training for network in compiled] == [False]
    assert built["images"].equal(plain["images"])
