"""Test a classifier on the test sets, if asked also under attack.

Examples:
    python -m iscp_lightning test --from runs/NAME
    python -m iscp_lightning test --from runs/NAME --attacks fgsm pgd20 --attack_images 1000

Options that matter:
    --from runs/NAME              a run, or a weights file, with its classifier, images and poison
    -c FILE                       a configuration; of several, the later wins
    --model.classifier FILE       another classifier: a weights file
    --data.poison.trigger.name checkerboard
                                  another trigger, of a classifier with a backdoor
    --attacks fgsm pgd100         fgsm, pgd20, pgd100, autoattack, stadv; alone, the three first
    --attack_norm l2              the ball of the attacks: linf or l2
    --attack_epsilon 1/255        its radius in pixel units of [0, 1]
    --attack_images 1000          how many images are attacked, as many of each class
    --trainer.devices 1           on how many GPUs, or CPU processes
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

# ruff: noqa: PT028 - `test` is a command, no test
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import Norm
from iscp_lightning.callbacks.robustness import RobustAccuracy, RobustnessEvaluation
from iscp_lightning.commands._earlier import Earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.messages import fail


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the model, the weights and the images that `--from` names."""
    del arguments
    if earlier is None:
        return {}
    return {"model": earlier.model, "ckpt_path": earlier.checkpoint} | earlier.images


def test(
    experiment: Experiment[L.LightningModule],
    attacks: list[str] | None = None,
    attack_epsilon: Epsilon | None = None,
    attack_norm: Norm = "linf",
    attack_images: int | None = None,
    ckpt_path: str | None = None,
    verbose: bool = True,
    from_: str | None = None,
) -> None:
    """Test a classifier, if asked also under attack.

    Args:
        experiment: Model, data and Trainer.
        attacks: attack the classifier: fgsm, pgd20, pgd100, autoattack, stadv; alone: the three
            first
        attack_epsilon: radius of the attacks in pixel units of [0, 1]; default 8/255, for l2 0.5
        attack_norm: ball of the attacks
        attack_images: how many test images are attacked, as many of each class; default all
        ckpt_path: checkpoint whose weights are tested
        verbose: whether a table of all numbers is printed
        from_: run folder or weights file whose classifier, images and poison are taken
    """
    del from_
    callbacks = []
    if attack_images is not None and attack_images < 1:
        fail(f"`attack_images` must be 1 or more, got {attack_images}")
    if attacks is not None:
        measurement = RobustAccuracy(attacks, attack_epsilon, attack_norm, attack_images)
        callbacks = [RobustnessEvaluation(measurement)]
    elif attack_epsilon is not None or attack_images is not None:
        fail("`--attack_epsilon` and `--attack_images` go with `--attacks`")
    experiment.build(ckpt_path, callbacks=callbacks)
    model, data, trainer = experiment.model, experiment.datamodule, experiment.trainer
    trainer.test(model, datamodule=data, ckpt_path=experiment.ckpt_path, verbose=verbose)
    experiment.report(experiment.ckpt_path or experiment.weights)
