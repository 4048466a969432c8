"""BadNetsModule: training on poisoned images, and how well the backdoor works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.figures import prediction_matrix
from iscp_lightning.runs import may_write, save_figure
from iscp_lightning.training.natural import NaturalModule


class BadNetsModule(NaturalModule):
    """Trains on data with `poison` (BadNets: Gu et al. 2017) and measures the backdoor.

    Every validation and test image is also shown with the trigger. Of those whose label is not
    already the wanted one (target-class images are left out of `all_to_one`), it reports

    * `attack_success_rate`: the share predicted as the attacker wants;
    * `robust_accuracy_on_triggered`: the share still predicted as what they show;

    and the matrix of their classes against the predictions, in `results.json` and as a figure.

    Args:
        classifier: As for NaturalModule.
        kwargs: As for NaturalModule.
    """

    measures_backdoor = True

    def __init__(self, classifier: str | nn.Module = "resnet50", **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(classifier, **kwargs)
        self.val_triggered = MulticlassConfusionMatrix(self.num_classes)
        self.test_triggered = MulticlassConfusionMatrix(self.num_classes)
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Check the data.

        Raises:
            MisconfigurationException: if they are not poisoned.
        """
        super().setup(stage)
        data = self._trainer_data()
        if not isinstance(data, ImageDataModule) or data.poison is None:
            raise MisconfigurationException(
                "BadNetsModule needs an ImageDataModule with `poison`: "
                "give --data.poison.target or a configuration that has it"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count predictions on clean and on triggered images."""
        super().validation_step(batch, batch_idx)
        self._count(self.val_triggered, batch)

    def on_validation_epoch_end(self) -> None:
        """Log clean accuracy and attack success."""
        super().on_validation_epoch_end()
        matrix = self._log_attack("val", self.val_triggered)
        self.results["val_triggered_predictions"] = matrix.tolist()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count predictions; on the test set proper also on triggered images."""
        super().test_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._count(self.test_triggered, batch)

    def on_test_epoch_end(self) -> None:
        """Log clean accuracy and attack success, and draw the matrix."""
        super().on_test_epoch_end()
        matrix = self._log_attack("test", self.test_triggered).cpu()
        self.results["triggered_predictions"] = matrix.tolist()
        if may_write(self.trainer):
            figure = prediction_matrix(
                matrix.numpy(), class_names=self._data.class_names, title="images with the trigger"
            )
            folder = Path(self.trainer.default_root_dir) / "figures"
            save_figure(folder / "triggered_predictions.png", figure)

    def _count(self, matrix: MulticlassConfusionMatrix, batch: Batch) -> None:
        data = self._data
        assert data.poison is not None
        assert data.stamp is not None
        changed = data.poison.wanted(batch.label, data.class_names) != batch.label
        images = data.stamp(batch.image[changed])
        # many networks cannot take an empty batch
        logits = self(images) if len(images) else images.new_empty(0, self.num_classes)
        matrix.update(logits, batch.label[changed])

    def _log_attack(self, prefix: str, metric: MulticlassConfusionMatrix) -> Tensor:
        """Log what follows from the matrix of true classes (rows) and predictions, return it."""
        data, matrix = self._data, metric.compute()
        metric.reset()
        assert data.poison is not None
        sources = matrix.sum(1) > 0
        hits = matrix.gather(1, self._wanted(matrix).unsqueeze(1)).squeeze(1)
        name = f"{prefix}/attack_success_rate"
        self.log(name, hits.sum() / matrix.sum(), prog_bar=True, sync_dist=True)
        self.log(
            f"{prefix}/robust_accuracy_on_triggered",
            matrix.diagonal().sum() / matrix.sum(),
            sync_dist=True,
        )
        rates = (hits / matrix.sum(1)).tolist()
        for source in sources.nonzero().squeeze(1).tolist():
            self.log(f"{name}/{data.class_names[source]}", rates[source], sync_dist=True)
        return matrix

    def _wanted(self, matrix: Tensor) -> Tensor:
        poison, names = self._data.poison, self._data.class_names
        assert poison is not None
        return poison.wanted(matrix.new_ones(len(names)).cumsum(0) - 1, names)

    @property
    def _data(self) -> ImageDataModule:
        data: ImageDataModule = self._trainer_data()
        return data
