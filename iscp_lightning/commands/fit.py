"""Train a classifier and test it; alone, the demo: a small network learns drawn shapes.

Examples:
    python -m iscp_lightning fit -c configs/experiment/natural_cifar10.yaml --run natural
    python -m iscp_lightning fit --model MadryModule --data.source CIFAR10 --trainer.devices 4

Options that matter:
    -c FILE                       a configuration; of several, the later wins
    --model NaturalModule         how it is trained: NaturalModule, BadNetsModule, MadryModule, ...
    --model.classifier resnet18   resnet20, any timm name, or a weights file to start from
    --data.source CIFAR10         the images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --data.poison.target 0        poisons the training images: all that bear the trigger are 0
    --trainer.max_epochs 30       how long it is trained
    --trainer.devices 4           on how many GPUs, or CPU processes
    --trainer.precision bf16-mixed
                                  faster on new GPUs
    --estimate                    prints what it would take, without running it
    --run NAME                    the folder under runs/; --overwrite replaces one
    --resume runs/NAME            goes on with a run that was interrupted, instead of all these
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import yaml

from iscp_lightning.arguments import DEMO
from iscp_lightning.commands._earlier import Earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.runs import is_dry

OWN = re.compile(r"(-c|--config|--model|--data)(=.*)?$|-c.+")


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the demo's configuration, unless the user gives one, a model or data of his own.

    `--model.x` and `--data.x` change single values of the demo.
    """
    del earlier
    if any(OWN.match(item) for item in arguments):
        return {}
    demo: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    return demo


def fit(
    experiment: Experiment[L.LightningModule],
    resume: str | None = None,
    ckpt_path: str | None = None,
    estimate: bool = False,
) -> None:
    """Train a classifier, and test the best weights it has kept.

    Args:
        experiment: Model, data and Trainer.
        resume: run folder to go on with
        ckpt_path: checkpoint to go on from, in a run of its own
        estimate: print what it would take, without running it
    """
    experiment.build(ckpt_path, resume, dry=estimate)
    if estimate:
        experiment.estimate()
        return
    model, data, trainer = experiment.model, experiment.datamodule, experiment.trainer
    trainer.fit(model, datamodule=data, ckpt_path=experiment.ckpt_path)
    tested = None
    best = getattr(model, "best_checkpoint", None)  # of adversarial training
    if best and not is_dry(trainer):
        if best.is_file():
            tested = str(best)
        else:
            warnings.warn("no validation has run: the last weights are tested", stacklevel=2)
    trainer.test(model, datamodule=data, ckpt_path=tested, verbose=False)
    experiment.report(tested)
