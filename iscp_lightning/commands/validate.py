"""Measure a classifier on the validation images, as its training does after an epoch.

Examples:
    python -m iscp_lightning validate --from runs/NAME
    python -m iscp_lightning validate --from runs/NAME/checkpoints/epoch003.ckpt

Options that matter:
    --from runs/NAME              a run, or one of its checkpoints, with its images and poison
    -c FILE                       a configuration; of several, the later wins
    --model MadryModule           what is measured: MadryModule adds robust accuracy
    --model.classifier FILE       another classifier: a weights file
    --data.source CIFAR10         other images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --data.batch_size 256         images per step and device
    --trainer.devices 1           on how many GPUs, or CPU processes
    --trainer.precision bf16-mixed
                                  faster on new GPUs
    --seed_everything 1           another seed, and so other validation images
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

import lightning as L

from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands.test import base

__all__ = ["base", "validate"]


def validate(
    experiment: Experiment[L.LightningModule],
    ckpt_path: str | None = None,
    verbose: bool = True,
    from_: str | None = None,
) -> None:
    """Measure a classifier on the validation images.

    Args:
        experiment: Model, data and Trainer.
        ckpt_path: checkpoint whose weights are measured
        verbose: whether a table of all numbers is printed
        from_: run folder or weights file whose classifier, images and poison are taken
    """
    del from_
    experiment.build(ckpt_path)
    model, data, trainer = experiment.model, experiment.datamodule, experiment.trainer
    trainer.validate(model, datamodule=data, ckpt_path=experiment.ckpt_path, verbose=verbose)
    experiment.report(experiment.ckpt_path or experiment.weights)
