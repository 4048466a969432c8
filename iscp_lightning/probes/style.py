"""Stylised: test images painted in the style of other pictures, which takes their texture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import (
    Batch,
    ChosenImages,
    FileImages,
    ImageSet,
    MemoryImages,
    to_float,
)
from iscp_lightning.data.pool import NO_CLASS
from iscp_lightning.data.shapes import draw_textures
from iscp_lightning.probes.adain import Losses, StyleNetwork, losses_of
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.style_files import load_published, load_style_network
from iscp_lightning.records import Record
from iscp_lightning.seeds import derived_seed, named_generator

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule

TEXTURES = "textures"
OTHER_CLASSES = "other_classes"
PATCHES = "patches"
OF_IMAGES = OTHER_CLASSES, PATCHES
DRAWN = 1000  # textures, where nothing else is asked for
JUDGED_TOGETHER = 64  # images


class Stylised(Distortion):
    """Images in the style of others, one random style each (AdaIN, Huang & Belongie 2017).

    Geirhos et al. 2019 made Stylized-ImageNet so, with the published network, paintings as styles
    and `alpha` 1: local textures are the style's, larger shapes remain. Network and styles are
    those of the first data that it sees (`check`).

    Args:
        network: File of `AdaINModule`, or the two of naoto0804/pytorch-AdaIN: `vgg_normalised.pth`
            and `decoder.pth`. The latter draw blurred pictures of small images, of which their
            encoding keeps 1/8 of the sides.
        styles: A folder of images, at any depth, which are cropped around the centre and resized;
            `textures`, drawn ones; `other_classes`, whole test images with another label; or
            `patches` of these, half as high and wide, enlarged to their size.
        alpha: Share of the style, in [0, 1].
        styles_count: How many styles there are to choose from, chosen at random themselves; None
            means all images of the folder or all test images, and 1000 drawn textures.

    Raises:
        ValueError: if a number is out of range, or `network` is a list of other than two files.
    """

    name = "stylised"

    def __init__(
        self,
        network: str | list[str],
        styles: str = TEXTURES,
        alpha: float = 1.0,
        styles_count: int | None = None,
    ) -> None:
        if not isinstance(network, str) and len(network) != 2:
            raise ValueError(f"`network` must be one file or two, got {len(network)}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must lie in [0, 1], got {alpha}")
        if styles_count is not None and styles_count < 1:
            raise ValueError(f"`styles_count` must be 1 or more, got {styles_count}")
        self.network = network
        self.styles = styles
        self.alpha = alpha
        self.styles_count = styles_count
        self.strength = alpha
        self._loaded: tuple[StyleNetwork, ImageSet] | None = None

    @property
    def about(self) -> dict[str, str | float]:
        """What records are about, with the styles by their word or folder's name."""
        return {**super().about, "styles": Path(self.styles).name}

    def check(self, data: ImageDataModule) -> None:
        """Read network and styles.

        Raises:
            ValueError: if the network's files are others or do not fit the images, there are fewer
                styles than asked for, or a class has no images of others.
        """
        self._load(data.test_images, data.seed)

    @torch.no_grad()
    @full_fp32()
    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return the images with the style of others."""
        network = self.loaded(subject)
        return network.stylise(batch.image, self.style_images(subject, batch), self.alpha)

    def loaded(self, subject: Subject) -> StyleNetwork:
        """Return the network, on the subject's device."""
        network, _ = self._loaded or self._load(subject.images, subject.seed)
        return network.to(subject.device)

    def style_images(self, subject: Subject, batch: Batch) -> Tensor:
        """Return every image's style, float32 (n, C, H, W) in [0, 1] on the subject's device."""
        _, styles = self._loaded or self._load(subject.images, subject.seed)
        order = styles.labels.argsort(stable=True)
        labels = batch.label.cpu()
        start, stop = (
            torch.searchsorted(styles.labels[order], labels, right=right) for right in (False, True)
        )
        drawn = [derived_seed(subject.seed, "style", index) for index in batch.index.tolist()]
        chosen = torch.tensor(drawn) % (len(styles) - (stop - start))
        chosen += torch.where(chosen >= start, stop - start, 0)  # past those of the same label
        images = to_float(styles.pixels(order[chosen]).to(subject.device))
        return patches_of(images, drawn) if self.styles == PATCHES else images

    def _load(self, images: ImageSet, seed: int) -> tuple[StyleNetwork, ImageSet]:
        if isinstance(self.network, str):
            network = load_style_network(self.network)
        else:
            network = load_published(*self.network)
        some = to_float(images.pixels([0]))
        _, channels, height, width = some.shape
        if network.channels != channels:
            raise ValueError(
                f"`network`={self.network} paints images of {network.channels} channels, the test "
                f"images have {channels}"
            )
        if self.styles in OF_IMAGES:
            styles = choose(images, self.styles_count, seed, self.styles)
            if len(styles.labels.unique()) == 1:
                raise ValueError(f"`styles`={self.styles} needs images of two classes or more")
        else:
            styles = style_set(self.styles, (height, width), self.styles_count, seed)
        if styles.pixels([0]).shape[1] != channels:
            raise ValueError(
                f"`styles`={self.styles} are in colour, the test images have {channels} "
                f"channels: {' and '.join(f'`{each}`' for each in OF_IMAGES)} are like them"
            )
        try:
            with torch.no_grad():
                network.stylise(some, some)
        except RuntimeError as error:
            raise ValueError(
                f"`network`={self.network} cannot take images of {height} x {width}: {error}"
            ) from error
        self._loaded = network, styles
        return self._loaded


def style_set(styles: str, size: tuple[int, int], count: int | None, seed: int) -> ImageSet:
    """Return style images of a folder, or drawn textures, all without a class.

    Args:
        styles: The folder, whose files are read when they are asked for; or `textures`.
        size: (height, width) that they get.
        count: How many; None means all of a folder, and 1000 textures.
        seed: Root seed of the choice or the drawing.

    Raises:
        ValueError: if the folder has no images, or fewer than `count`.
    """
    if styles == TEXTURES:
        count = count or DRAWN
        side = max(8, *size)
        drawn = draw_textures(count, size=side, seed=derived_seed(seed, "style textures"))
        labels = torch.full((count,), NO_CLASS)
        return MemoryImages(drawn[:, :, : size[0], : size[1]], labels)
    from torchvision.datasets.folder import IMG_EXTENSIONS

    walk = os.walk(styles, followlinks=True)
    paths = sorted(str(Path(at) / name) for at, _, names in walk for name in names)
    paths = [path for path in paths if path.lower().endswith(IMG_EXTENSIONS)]
    if not paths:
        raise ValueError(
            f"`styles`={styles} is no folder with images, nor `{TEXTURES}`, `{OTHER_CLASSES}` or "
            f"`{PATCHES}`"
        )
    labels = torch.full((len(paths),), NO_CLASS)
    return choose(FileImages(paths, labels, size), count, seed, styles)


def patches_of(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return a patch of each image, half as high and wide, enlarged to the image's size.

    Args:
        images: float (N, C, H, W) in [0, 1].
        seeds: N seeds of where the patches are.
    """
    sides = [max(1, side // 2) for side in images.shape[2:]]
    patches = []
    for image, seed in zip(images, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        top, left = (
            int(torch.randint(whole - side + 1, (), generator=generator))
            for whole, side in zip(image.shape[1:], sides, strict=True)
        )
        patches.append(image[:, top : top + sides[0], left : left + sides[1]])
    enlarged: Tensor = F.interpolate(
        torch.stack(patches), size=images.shape[2:], mode="bilinear", align_corners=False
    )
    return enlarged


def choose(images: ImageSet, count: int | None, seed: int, name: str) -> ImageSet:
    """Return `count` of the images, chosen at random; all of them if it is None.

    Args:
        images: The images.
        count: How many.
        seed: Root seed of the choice.
        name: What they are called in a message.

    Raises:
        ValueError: if there are fewer.
    """
    if count is None:
        return images
    if count > len(images):
        raise ValueError(f"`styles_count` is {count}, but `styles`={name} are {len(images)} images")
    order = torch.randperm(len(images), generator=named_generator(seed, "styles"))
    return ChosenImages(images, order[:count].sort().values)


class StyleJudgement(NamedTuple):
    """Mean losses of three sets of pictures, as the network's own encoder sees them.

    A stylised set has kept the content where its content loss is much smaller than that of the
    style images, and taken the style where its style loss is much smaller than that of the content
    images.

    Attributes:
        stylised: Of the stylised images.
        content: Of the content images as they are: what nothing was done to.
        style: Of the style images as they are; their style loss is 0.
    """

    stylised: Losses
    content: Losses
    style: Losses

    def records(self, about: Mapping[str, str | float]) -> list[Record]:
        """Return `content_loss` and `style_loss` of each, named by `pictures`.

        Args:
            about: What all of them are about besides: the distortion.
        """
        return [
            Record(f"{loss}_loss", float(value), {**about, "pictures": pictures})
            for pictures, losses in self._asdict().items()
            for loss, value in losses._asdict().items()
        ]


@torch.no_grad()
@full_fp32()
def judge_style(stylised: Stylised, subject: Subject, indices: Tensor) -> StyleJudgement:
    """Return how much content was kept and how much style taken, against images left as they are.

    Args:
        stylised: What is judged.
        subject: The test images; its classifier has no say.
        indices: (n,) int64, which of them.
    """
    network = stylised.loaded(subject)
    sums = torch.zeros(3, 2, dtype=torch.float64)
    for batch in subject.batches(indices, JUDGED_TOGETHER):
        styles = stylised.style_images(subject, batch)
        target, style_maps = network.target(batch.image, styles), network.encoder(styles)
        painted = network.stylise(batch.image, styles, stylised.alpha)
        for row, pictures in enumerate((painted, batch.image, styles)):
            losses = losses_of(network.encoder(pictures), target, style_maps)
            sums[row] += len(batch.image) * torch.stack(losses).cpu()
    return StyleJudgement(*(Losses(*row) for row in sums / len(indices)))
