"""Seventy ordinary mistakes and the one line that each of them ends with."""

import re
import shlex
from pathlib import Path

import pytest

from iscp_lightning.cli import main
from iscp_lightning.data import Augmentation
from iscp_lightning.messages import mistake, one_line, suggestion

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "tests" / "configs" / "small.yaml"
FIT = f"fit -c {SMALL}"
TEST = f"test -c {SMALL}"
SEARCH = (
    f"search -c {SMALL} --model PatternSearchModule --data.source.size 32 "
    f"--model.classifier {ROOT}/checkpoints/shapes_resnet20.safetensors"
)
ATTACK = f"{TEST} --attacks fgsm"
SETTINGS = "--model.search"
# ruff: noqa: E501
MISTAKES = [
    ("fitt", "`fitt` is no command; did you mean fit?"),
    ("paint", "`paint` is no command; they are describe, fit, invert, predict, probe, search, test, transfer, validate"),
    ("search", "`model.classifier` is missing: give it, or `--from` a run or a weights file"),
    ("test", "`model` is missing: give it, or `--from` a run or a weights file"),
    ("fit --attacks", "unknown option `--attacks`"),
    ("test --resume runs/a", "unknown option `--resume`"),
    ("search --from", "`--from` needs a value: one argument"),
    ("search --from nowhere", "`--from nowhere` is neither a run folder nor a weights file"),
    ("search --from .", "`--from .`: config.yaml does not exist, so this is no run"),
    ("search --from page.ckpt", "`--from page.ckpt` is no weights file: it is a web page"),
    ("search --model.classifier page.ckpt --data.source Shapes", "page.ckpt cannot be read as plain weights (nothing in a file is executed): it is a web page"),
    (f"{TEST} -c from.yaml", "`from` must be typed: `--from runs/a`"),
    ("fit --nonsense 3", "unknown option `--nonsense`"),
    ("probe --classifiers a --distortions+ Edges", "unknown option `--distortions+`"),
    ("fit --data.sorce Shapes", "unknown option `--data.sorce`; did you mean --data.source?"),
    ("fit --trainer.max_epoch 3", "unknown option `--trainer.max_epoch`; did you mean --trainer.max_epochs?"),
    ("fit --overwritten", "unknown option `--overwritten`; did you mean --overwrite?"),
    ("fit --data", "`--data` needs a value: one argument"),
    ("fit -c missing.yaml", "`-c missing.yaml` cannot be read: No such file or directory"),
    ("fit -c broken.yaml", "`-c broken.yaml` is no YAML: while parsing a flow node"),
    ("fit -c binary.yaml", "`-c binary.yaml` is no YAML: 'utf-8' codec can't decode"),
    ("fit -c misspelt.yaml", "`modle` is no option of fit; did you mean model?"),
    ("fit --trainer.max_epochs three", "`trainer.max_epochs`=three must be a whole number"),
    ("fit --data.batch_size x", "`data.batch_size`=x must be a whole number"),
    ("fit --data.val_fraction half", "`data.val_fraction`=half must be a number"),
    ("fit --seed_everything x", "`seed_everything`=x must be one of true or false, a whole number"),
    ("fit --model NaturalModul", "`model`: NaturalModul is not known; did you mean NaturalModule?"),
    ("fit --model my.Module", "`model`=my.Module: No module named 'my'"),
    ("fit --model iscp_lightning.Naturel", "`model`=iscp_lightning.Naturel: module 'iscp_lightning' has no attribute 'Naturel'"),
    ("fit --model torch.nn.Linear", "`model`=torch.nn.Linear: Import path does not correspond to a subclass of LightningModule"),
    ("fit --model weights.pt", "`model`: takes a configuration file (.yaml, .yml, .json), not weights.pt"),
    ("fit --model NaturalModule --model.clasifier x", "NaturalModule has no argument `clasifier`; did you mean classifier?"),
    ("fit --model PatternSearchModule", "`model.classifier` is missing"),
    (f"{FIT} --data.batch_size 0", "`batch_size` must be 1 or more, got 0"),
    (f"{FIT} --data.num_workers -1", "`num_workers` must be 0 or more, got -1"),
    (f"{FIT} --data.source ImageFoldr", "`data.source`: ImageFoldr is not known; did you mean ImageFolder?"),
    (f"{FIT} --data.source ImageFolder", "`data.source.root` is missing"),
    (f"{FIT} --data.source ImageFolder --data.source.root nowhere", "`root`=nowhere must hold a folder `train`, `test` or `val`"),
    (f"{FIT} --data.val_fraction 1.5", "`val_fraction` must lie in [0, 1), got 1.5"),
    (f"{FIT} --data.augmentation.crop_padding -1", "`crop_padding` must be 0 or more pixels, got -1"),
    (f"{FIT} --data.poison.poison_rate 1.5", "`poison_rate` must lie in (0, 1], got 1.5"),
    (f"{FIT} --data.poison.goal all", "`data.poison.goal`=all must be one of all_to_one, all_to_all"),
    (f"{FIT} --data.poison.target circel", "`target` is 'circel' (did you mean 'circle'?); allowed are 0 to 9 and the names"),
    (f"{FIT} --data.poison.trigger.name square", "`trigger.name`='square' is neither an existing PNG file nor one of white_square"),
    (f"{FIT} --data.poison.trigger.place middle", "`trigger.place` must be one of top_left, top_right, bottom_left"),
    (f"{FIT} --model.classifier resnet2O", "`classifier`='resnet2O' is neither an existing weights file nor a network name; did you mean resnet2"),
    (f"{FIT} --model.classifier last.ckpt", "`classifier`=last.ckpt is not an existing file: give the path of a weights file"),
    (f"{FIT} --model.classifier page.ckpt", "page.ckpt cannot be read as plain weights (nothing in a file is executed): it is a web page"),
    (f"{FIT} --model.classifier empty.ckpt", "empty.ckpt cannot be read as plain weights (nothing in a file is executed): it is empty"),
    (f"{FIT} --model.classifier lfs.ckpt", "lfs.ckpt cannot be read as plain weights (nothing in a file is executed): it is a pointer of Git LFS"),
    ("probe --classifiers x --distortions Saturation Edge", "`distortions`: Edge is not known; did you mean Edges?"),
    (f"{FIT} --model.scheduler cosin", "`model.scheduler`=cosin: cosin is not known; did you mean cosine?"),
    (f"{FIT} --model.optimizer Sgd", "`model.optimizer`=Sgd: Sgd is not known; did you mean SGD?"),
    (f"{FIT} --model.optimizer.lr fast", "`model.optimizer.lr`=fast must be a number"),
    (f"{FIT} --model.label_smoothing 2", "`label_smoothing` must lie in [0, 1), got 2.0"),
    (f"{FIT} --model BadNetsModule", "BadNetsModule needs an ImageDataModule with `poison`"),
    (f"{FIT} --model MadryModule --model.attack.epsilon 8", "`epsilon` must lie in [0, 1] for linf: pixels do; got 8 (did you mean 8/255?)"),
    (f"{FIT} --model MadryModule --model.attack.steps 0", "`steps` must be 1 or more, got 0"),
    (f"{FIT} --model FreeModule --model.replays 0", "`replays` must be 1 or more, got 0"),
    (f"{FIT} --trainer.accelerator tpu", "the Trainer refuses `--trainer.accelerator tpu` `--trainer.devices 1`: "),
    (f"{FIT} --trainer.accelerator cppu", "the Trainer refuses `--trainer.accelerator cppu` `--trainer.devices 1`: You selected an invalid accelerator name"),
    (f"{FIT} --trainer.strategy dpp", "the Trainer refuses `--trainer.accelerator cpu` `--trainer.devices 1` `--trainer.strategy dpp`: You selected an invalid strategy name"),
    (f"{FIT} --trainer.precision 12", "`trainer.precision`=12 must be one of 64, 32, 16, "),
    (f"{FIT} --trainer.callbacks PatternSnapshott", "`trainer.callbacks`: PatternSnapshott is not known; did you mean PatternSnapshot?"),
    (f"{FIT} --trainer.callbacks PatternSnapshot --trainer.callbacks.epochs [0]", "`epochs` counts completed epochs from 1, got [0]"),
    (f"{FIT} --trainer.logger Wandb", "`trainer.logger`: Wandb is not known; did you mean WandbLogger?"),
    (f"{FIT} --run a/b", "`--run` must be a plain folder name under runs/, got 'a/b'"),
    (f"{FIT} --resume runs/nowhere", "`--resume runs/nowhere`: runs/nowhere/config.yaml does not exist, so this is no run"),
    (f"{FIT} --ckpt_path nowhere.ckpt", "`--ckpt_path nowhere.ckpt` is neither an existing file nor best or last"),
    (f"{FIT} --ckpt_path page.ckpt", "`--ckpt_path page.ckpt` is no checkpoint of a run: it is a web page"),
    (f"{FIT} --ckpt_path {ROOT}/README.md", f"`--ckpt_path {ROOT}/README.md` is no checkpoint of a run: it is no checkpoint"),
    (f"{TEST} --attacks pdg", "`attacks` must be among fgsm, pgd20, pgd100, autoattack, stadv, got ['pdg']"),
    (f"{TEST} --attack_images 5", "`--attack_epsilon` and `--attack_images` go with `--attacks`"),
    (f"{ATTACK} --attack_images 0", "`attack_images` must be 1 or more, got 0"),
    (f"{ATTACK} --attack_epsilon eight", "`attack_epsilon`=eight: 'eight' is not a number or a fraction such as 8/255"),
    (f"{ATTACK} --attack_norm l1", "`attack_norm`=l1 must be one of linf, l2"),
    (f"{SEARCH} {SETTINGS}.canvas whit", "`model.search.canvas`=whit must be one of positive, negative, random, white; did you mean white?"),
    (f"{SEARCH} {SETTINGS}.search_epochs 0", "`search_epochs` must be 1 or more, got 0"),
    (f"{SEARCH} {SETTINGS}.winner_size 0.05 {SETTINGS}.variant UniversalPerturbation --model.pattern_sizes [1.0]", "`winner_size` chooses among canvases: UniversalPerturbation has none to choose"),
    (f"search --model.classifier resnet20 --model.weights {ROOT}/checkpoints/cifar10_resnet20.safetensors --data.source Shapes --trainer.accelerator cpu", f"`classifier`={ROOT}/checkpoints/cifar10_resnet20.safetensors knows other classes (airplane, automobile, bird, ...) than the data have (circle, square, triangle, ...), from class 0 on"),
    (f"{SEARCH} {SETTINGS}.winner_size 0.0001", "`winner_size` must lie in (0, 1] and give at least one of 32 x 32 pixels, got 0.0001"),
    (f"search --model.classifier {ROOT}/checkpoints/cifar10_resnet20.safetensors --data.source Shapes --trainer.accelerator cpu", f"`classifier`={ROOT}/checkpoints/cifar10_resnet20.safetensors knows other classes (airplane, automobile, bird, ...) than the data have (circle, square, triangle, ...), from class 0 on"),
    (f"{SEARCH} {SETTINGS}.sparsity -1", "`sparsity` must be finite and 0 or more, got -1.0"),
    (f"{SEARCH} {SETTINGS}.sparsity .nan", "`sparsity` must be finite and 0 or more, got nan"),
    (f"{SEARCH} --model.classes '[starr]'", "`classes` has 'starr' (did you mean 'star'?); allowed are 0 to 9 and the names"),
    (f"{SEARCH} --model.random_classes 50", "`random_classes` must lie in 1 to 10, got 50"),
    (f"{SEARCH} --model.pattern_sizes [2.0]", "`pattern_size` must lie in (0, 1] and give at least one of 32 x 32 pixels, got 2.0"),
    (f"{SEARCH} --model.pattern_sizes [0.0001]", "`pattern_size` must lie in (0, 1] and give at least one of 32 x 32 pixels, got 0.0001"),
    (f"{SEARCH} {SETTINGS}.variant TotalVariation {SETTINGS}.variant.smoothness -1", "`smoothness` must be 0 or more, got -1"),
    (f"{SEARCH} {SETTINGS}.variant TriggerInversion {SETTINGS}.variant.pattern_size 0.0001 --model.pattern_sizes [0.01]", "`pattern_size` must lie in (0, 1] and give at least one of 32 x 32 pixels, got 0.0001"),
    (f"{SEARCH} --model.measure_on train", "`model.measure_on`=train must be one of held_out, searched, full"),
    (f"search {FIT[4:]}", "`search` needs a PatternSearchModule as `model`, got NaturalModule"),
    (
        "fit --model NaturalModule --data.source.train_count 400",
        "`data.source.train_count` needs `data.source` first: which class is meant",
    ),
]  # fmt: skip


@pytest.fixture
def _files():
    for name, content in {
        "broken.yaml": b"a: [1,\n",
        "binary.yaml": b"\xff\xfe\x00",
        "misspelt.yaml": b"modle: NaturalModule\n",
        "from.yaml": b"from: runs/a\n",
        "weights.pt": b"class_path: evil.Net\n",
        "page.ckpt": b"<!DOCTYPE html><html>not found</html>",
        "empty.ckpt": b"",
        "lfs.ckpt": b"version https://git-lfs.github.com/spec/v1\n",
    }.items():
        Path(name).write_bytes(content)


def test_there_are_seventy():
    assert len(MISTAKES) >= 70


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(("command", "line"), MISTAKES, ids=[line[:60] for _, line in MISTAKES])
def test_a_mistake_is_one_line(command, line, capsys, monkeypatch):
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("W&B was started"))
    with pytest.raises(SystemExit) as done:
        main(shlex.split(command))
    assert done.value.code == 2
    said = capsys.readouterr()
    lines = [text for text in said.err.splitlines() if not text.startswith("Seed set")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {line}")
    assert not re.search(r"<class|Namespace|NestedArg|Traceback|usage:|Union", lines[0])
    assert "usage:" not in said.out
    assert not Path("runs").exists()


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("somebody else's")])
def test_other_errors_keep_their_traceback(error):
    assert mistake(raised(error)) is None


def test_the_first_cause_is_told():
    with pytest.raises(ValueError, match="shift") as inner:
        Augmentation(shift=-1)
    outer = ValueError("Does not validate against any of the Union subtypes")
    outer.__cause__ = inner.value
    assert mistake(raised(outer)) == "`shift` must be 0 or more pixels, got -1"


def test_a_type_error_of_the_code_is_no_mistake():
    with pytest.raises(TypeError) as caught:
        Augmentation(shift=None)
    assert mistake(caught.value) is None


def test_what_is_not_understood_is_still_one_line():
    assert one_line("something\n  else") == "something else"
    assert suggestion("zzz", ["abc"]) == ""
