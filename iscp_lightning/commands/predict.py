"""Build the robust or non-robust version of the training images from a classifier's features.

Examples:
    python -m iscp_lightning predict --from runs/NAME --model.folder data/cifar10_robust
    python -m iscp_lightning predict --from runs/NAME --model.fraction 0.1 --run tenth

Options that matter:
    --from runs/NAME              a run, or a weights file, with its classifier and images
    -c FILE                       a configuration; of several, the later wins
    --model.classifier FILE       whose features are kept: a robust one makes D_R, a standard D_NR
    --model.folder data/robust    where the set is written, else in the run folder; an interrupted
                                  build goes on there
    --estimate                    prints what it would take, without running it
    --model.fraction 0.1          a share of the training images, as many of each class
    --model.settings.steps 100    steps of the descent on each image
    --model.settings.step_size 0.3
                                  their length
    --data.source CIFAR10         other images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --trainer.devices 4           shares the images out over GPUs, or CPU processes
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from iscp_lightning.commands._earlier import Earlier
from iscp_lightning.commands._experiment import Experiment


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the building of a set from all training images of what `--from` names."""
    del arguments
    classifier = earlier.classifier if earlier else {}
    images = earlier.images if earlier else {}
    model = {"class_path": "RobustDataWriter", "init_args": classifier}
    return {"model": model} | images | {"data": images.get("data", {}) | {"val_fraction": 0}}


def predict(
    experiment: Experiment[L.LightningModule],
    ckpt_path: str | None = None,
    estimate: bool = False,
    from_: str | None = None,
) -> None:
    """Let a module predict; a RobustDataWriter builds a set.

    Args:
        experiment: Model, data and Trainer.
        ckpt_path: checkpoint whose weights predict
        estimate: print what it would take, without running it
        from_: run folder or weights file whose classifier, images and poison are taken
    """
    del from_
    experiment.build(ckpt_path, dry=estimate)
    if estimate:
        experiment.estimate()
        return
    model, data, trainer = experiment.model, experiment.datamodule, experiment.trainer
    trainer.predict(
        model, datamodule=data, ckpt_path=experiment.ckpt_path, return_predictions=False
    )
    experiment.report()
