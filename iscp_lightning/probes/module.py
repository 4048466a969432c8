"""AdaINModule: the training of a style network's decoder on the user's own images."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from iscp_lightning.classifiers.checkpoints import load_trained
from iscp_lightning.data import Batch
from iscp_lightning.data.images import to_float
from iscp_lightning.probes.adain import StyleNetwork, decoder_of, encoder_of
from iscp_lightning.probes.style import style_set
from iscp_lightning.probes.style_files import save_style_network
from iscp_lightning.records import Findings
from iscp_lightning.runs import may_write
from iscp_lightning.seeds import named_generator


class AdaINModule(L.LightningModule):
    """Trains the decoder of an AdaIN style network; the encoder is a frozen classifier's trunk.

    `style_network.safetensors` in the run folder holds both once the training has ended: it is the
    `network` of `Stylised`. Checkpoints hold the decoder alone.

    Args:
        classifier: A weights file, the name of a timm network with trained weights, or any module
            from images in [0, 1] to logits; `Stylised` takes only networks known by name.
        optimizer: Made from the decoder's parameters.
        style_weight: How much the style loss counts; the content loss counts 1.
        styles: A folder of images, or `textures`; None takes the batch itself in another order.
        styles_count: How many of them are used, and held in memory: see `Stylised`.
        weights: Weights file for a classifier given as a module.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Size of the images, likewise.

    Raises:
        ValueError: if the classifier has no feature map to decode, or a number is out of range.
    """

    def __init__(
        self,
        classifier: str | nn.Module,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-4),
        style_weight: float = 10.0,
        styles: str | None = None,
        styles_count: int | None = None,
        weights: str | None = None,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        if not style_weight >= 0:
            raise ValueError(f"`style_weight` must be 0 or more, got {style_weight}")
        given = load_trained(classifier, weights, num_classes, image_size)
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        channels = [part.in_channels for part in given.modules() if isinstance(part, nn.Conv2d)]
        self.image_shape = (channels[0] if channels else 3, height, width)
        images = torch.zeros(1, *self.image_shape)
        encoder = encoder_of(given, images)
        self.decoder = decoder_of(encoder, images)
        # a tuple hides the encoder: it is no part of checkpoints, and no rank has to agree on it
        self._network = (StyleNetwork(encoder, self.decoder),)
        self.optimizer = optimizer
        self.style_weight = style_weight
        self.styles = styles
        self.styles_count = styles_count
        self._style_images: Tensor | None = None

    @property
    def network(self) -> StyleNetwork:
        """Encoder and decoder."""
        return self._network[0]

    @property
    def path(self) -> Path:
        """Where the network is written."""
        return Path(self.trainer.default_root_dir) / "style_network.safetensors"

    @property
    def findings(self) -> dict[str, Findings]:
        """Where the network lies, once it is trained."""
        return {"": Findings(lines=[str(self.path)])} if self.path.is_file() else {}

    def setup(self, stage: str) -> None:
        """Move the encoder to the device, and read the styles.

        Raises:
            MisconfigurationException: for a Trainer precision without fp32 images.
            ValueError: if there are no such styles.
        """
        del stage
        if self.trainer.precision not in ("32-true", "bf16-mixed"):
            raise MisconfigurationException(
                f"`trainer.precision` must be 32-true or bf16-mixed for {type(self).__name__}, "
                f"got {self.trainer.precision}"
            )
        self.network.encoder.to(self.trainer.strategy.root_device)
        if self.styles is not None and self._style_images is None:
            size = (self.image_shape[1], self.image_shape[2])
            styles = style_set(self.styles, size, self.styles_count, self._seed)
            self._style_images = styles.read(torch.arange(len(styles)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the content loss and the weighed style loss of one batch."""
        return self._loss("train", batch, "training", self.current_epoch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log both losses, with the same styles in every epoch."""
        self._loss("val", batch, "validation", batch_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log both losses of one of the test sets."""
        data = getattr(self.trainer, "datamodule", None)
        name = getattr(data, "test_names", ["test"])[dataloader_idx]
        self._loss(name, batch, "test", dataloader_idx, batch_idx)

    def on_train_end(self) -> None:
        """Write the network."""
        if may_write(self.trainer):
            save_style_network(self.path, self.network, self.image_shape)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the decoder's optimiser."""
        return self.optimizer(self.decoder.parameters())

    def _loss(self, prefix: str, batch: Batch, *draw: str | int) -> Tensor:
        losses = self.network.losses(batch.image, self._styles_of(batch.image, *draw))
        self.log_dict(
            {f"{prefix}/content_loss": losses.content, f"{prefix}/style_loss": losses.style},
            prog_bar=prefix == "train",
            sync_dist=prefix != "train",
            batch_size=len(batch.image),
            add_dataloader_idx=False,
        )
        return losses.content + self.style_weight * losses.style

    def _styles_of(self, images: Tensor, *draw: str | int) -> Tensor:
        generator = named_generator(self._seed, "styles", *draw, self.global_rank)
        if self._style_images is None:
            return images[torch.randperm(len(images), generator=generator).to(images.device)]
        chosen = torch.randint(len(self._style_images), (len(images),), generator=generator)
        return to_float(self._style_images[chosen].to(images.device))

    @property
    def _seed(self) -> int:
        return getattr(getattr(self.trainer, "datamodule", None), "seed", 0)
