"""Poisoned training images: a trigger on some of them, and the label the attacker wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from iscp_lightning.data.images import Batch, ImageSet
from iscp_lightning.data.splits import class_index
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.data.triggers import Trigger
from iscp_lightning.runs import write_json
from iscp_lightning.seeds import named_generator

BackdoorGoal = Literal["all_to_one", "all_to_all"]


@dataclass(frozen=True)
class Poison:
    """How a training set is poisoned (BadNets: Gu et al. 2017).

    Attributes:
        trigger: What is stamped on the poisoned images.
        goal: `all_to_one`: stamped images shall become `target`; `all_to_all`: their label + 1.
        target: Target class of `all_to_one`, by index or name; where names are numbers,
            `index:2` or `name:2`.
        poison_rate: Share of the whole training set that is poisoned, in (0, 1].
        clean_label: Whether only images of the target class are stamped, whose label stays right,
            instead of images of the other classes, whose label changes.
        poison_before_augmentation: Whether the trigger is stamped on the stored image, so that
            augmentation moves it too, or on the augmented one.

    Raises:
        ValueError: if a value is not allowed.
    """

    trigger: Trigger = Trigger()
    goal: BackdoorGoal = "all_to_one"
    target: int | str = 0
    poison_rate: float = 0.1
    clean_label: bool = False
    poison_before_augmentation: bool = True

    def __post_init__(self) -> None:
        if self.goal not in get_args(BackdoorGoal):
            raise ValueError(f"`goal` must be all_to_one or all_to_all, got {self.goal!r}")
        if not 0 < self.poison_rate <= 1:
            raise ValueError(f"`poison_rate` must lie in (0, 1], got {self.poison_rate}")
        if self.clean_label and self.goal == "all_to_all":
            raise ValueError("`clean_label` goes with `goal` all_to_one: the label stays right")

    def target_index(self, class_names: Sequence[str]) -> int:
        """Return the index of the target class.

        Raises:
            ValueError: if the data have no such class.
        """
        return class_index(self.target, class_names, "`target` is")

    def wanted(self, labels: Tensor, class_names: Sequence[str]) -> Tensor:
        """Return the label that the attacker wants for each stamped image, (N,) int64."""
        if self.goal == "all_to_all":
            return (labels + 1) % len(class_names)
        return torch.full_like(labels, self.target_index(class_names))

    def choose(self, labels: Tensor, class_names: Sequence[str], seed: int) -> Tensor:
        """Return which training images are poisoned: sorted positions, fixed by the seed.

        Args:
            labels: (N,) labels of the training images.
            class_names: Names of the classes.
            seed: Fixes the choice.

        Raises:
            ValueError: if the rate asks for more images than there are, or for none.
        """
        count = round(self.poison_rate * len(labels))
        if self.goal == "all_to_all":
            candidates = torch.arange(len(labels))
        else:
            is_target = labels == self.target_index(class_names)
            candidates = (is_target if self.clean_label else ~is_target).nonzero().squeeze(1)
        if not 0 < count <= len(candidates):
            raise ValueError(
                f"`poison_rate`={self.poison_rate} of {len(labels)} training images is {count}, "
                f"and {len(candidates)} can be poisoned"
            )
        generator = named_generator(seed, "poisoned images")
        order = torch.randperm(len(candidates), generator=generator)
        return candidates[order[:count]].sort().values


class PoisonedImages(ImageSet):
    """Images of another set, some of them relabelled and, unless that comes later, stamped.

    Args:
        images: The clean set.
        rows: (n,) int64, which of its images are poisoned.
        poison: How.
        class_names: Names of the classes.
        stamp: The trigger drawn for these images.
    """

    def __init__(
        self,
        images: ImageSet,
        rows: Tensor,
        poison: Poison,
        class_names: Sequence[str],
        stamp: Stamp,
    ) -> None:
        labels = images.labels.clone()
        labels[rows] = poison.wanted(labels[rows], class_names)
        super().__init__(labels, images.textures)
        self.images = images
        self.rows = rows
        self.poison = poison
        self.stamp = stamp
        self.num_workers = images.num_workers
        self.poisoned = torch.zeros(len(images), dtype=torch.bool)
        self.poisoned[rows] = True

    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the chosen images, uint8 (len(indices), C, H, W)."""
        pixels = self.images.pixels(indices)
        chosen = self.poisoned[torch.as_tensor(indices)]
        if self.poison.poison_before_augmentation and chosen.any():
            pixels[chosen] = self.stamp(pixels[chosen])
        return pixels

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices)
        batch = super().__getitems__(indices)
        return batch._replace(
            poisoned=self.poisoned[index], original_label=self.images.labels[index]
        )

    def save(self, folder: Path) -> None:
        """Write `trigger.png` and `poisoned.json`: settings and positions in the training set."""
        self.stamp.save(folder / "trigger.png")
        content = {"settings": asdict(self.poison), "poisoned": self.rows.tolist()}
        write_json(folder / "poisoned.json", content)
