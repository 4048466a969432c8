"""BadNetsModule: training on poisoned images, and how well the backdoor works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.figures import prediction_matrix
from iscp_lightning.metrics.success import StampSuccess
from iscp_lightning.records import Findings
from iscp_lightning.runs import may_write, save_figure
from iscp_lightning.training.natural import NaturalModule


@dataclass(frozen=True)
class TriggeredPredictions(Findings):
    """What triggered images of each class were taken for.

    Attributes:
        matrices: K rows of K counts, true classes in rows, predictions in columns, by name.
    """

    matrices: Mapping[str, list[list[int]]] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Any]:
        """The matrices."""
        return dict(self.matrices)


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
        self.triggered = nn.ModuleDict()
        self.findings: dict[str, Findings] = {}

    def setup(self, stage: str) -> None:
        """Check the data, and make the metrics that count what the attacker wants of them.

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
        wanted = data.poison.wanted(torch.arange(data.num_classes), data.class_names)
        for part in ("val", "test"):
            metrics = [StampSuccess(wanted.unsqueeze(0)), MulticlassConfusionMatrix(len(wanted))]
            self.triggered[part] = nn.ModuleList(metrics).to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count predictions on clean and on triggered images."""
        super().validation_step(batch, batch_idx)
        self._count("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log clean accuracy and attack success."""
        super().on_validation_epoch_end()
        self._keep("val_triggered_predictions", self._log_attack("val"))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count predictions; on the test set proper also on triggered images."""
        super().test_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._count("test", batch)

    def on_test_epoch_end(self) -> None:
        """Log clean accuracy and attack success, and draw the matrix."""
        super().on_test_epoch_end()
        matrix = self._log_attack("test")
        self._keep("triggered_predictions", matrix)
        if may_write(self.trainer):
            names = self._trainer_data().class_names
            figure = prediction_matrix(
                matrix.numpy(), class_names=names, title="images with the trigger"
            )
            folder = Path(self.trainer.default_root_dir) / "figures"
            save_figure(folder / "triggered_predictions.png", figure)

    def _count(self, part: str, batch: Batch) -> None:
        success, matrix = self._metrics_of(part)
        changed = success.affects(0, batch.label)
        images, labels = batch.image[changed], batch.label[changed]
        predicted = labels
        if len(images):  # many networks cannot take an empty batch
            predicted = self(self._trainer_data().stamp(images)).argmax(1)
        success.update(0, predicted, labels)
        matrix.update(predicted, labels)

    def _log_attack(self, part: str) -> Tensor:
        """Log what was counted and return the matrix, int64 (K, K) on the CPU."""
        success, matrix = self._metrics_of(part)
        counted, predictions = success.compute(), matrix.compute().cpu()
        success.reset()
        matrix.reset()
        name = f"{part}/attack_success_rate"
        self.log(name, counted.rate.item(), prog_bar=True, sync_dist=True)
        robust = counted.robust_accuracy.item()
        self.log(f"{part}/robust_accuracy_on_triggered", robust, sync_dist=True)
        rates = counted.rate_by_class[0]
        for source in counted.shown[0].nonzero().squeeze(1).tolist():
            label = self._trainer_data().class_names[source]
            self.log(f"{name}/{label}", rates[source].item(), sync_dist=True)
        return predictions

    def _metrics_of(self, part: str) -> tuple[StampSuccess, MulticlassConfusionMatrix]:
        metrics: Any = self.triggered[part]
        return metrics[0], metrics[1]

    def _keep(self, name: str, matrix: Tensor) -> None:
        kept = self.findings[""].results if self.findings else {}
        self.findings = {"": TriggeredPredictions(matrices={**kept, name: matrix.tolist()})}
