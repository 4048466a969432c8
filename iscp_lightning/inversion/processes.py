"""What several processes need to train one generator and one discriminator."""

from __future__ import annotations

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from iscp_lightning.internals import expects_all_gradients, syncs_batch_norm


def require_processes(trainer: L.Trainer) -> None:
    """Raise a MisconfigurationException if several processes would not train one network.

    Raises:
        MisconfigurationException: if they wait for gradients of the network whose turn it is not,
            or if GPUs normalise by their own parts of a batch alone (CPUs cannot do otherwise).
    """
    if expects_all_gradients(trainer):
        raise MisconfigurationException(
            "generator and discriminator take turns: several processes need "
            "`--trainer.strategy ddp_find_unused_parameters_true`"
        )
    cuda = trainer.strategy.root_device.type == "cuda"
    if cuda and trainer.world_size > 1 and not syncs_batch_norm(trainer):
        raise MisconfigurationException(
            "the generator normalises over a whole batch: several GPUs need "
            "`--trainer.sync_batchnorm true`"
        )
