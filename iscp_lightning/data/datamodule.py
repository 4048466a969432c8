"""The Lightning shell over an image source: fixed, disjoint splits and loaders that can resume."""

from __future__ import annotations

import math
import warnings

import lightning as L
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Generator, Tensor
from torch.utils.data import DataLoader, DistributedSampler, Sampler, Subset

from iscp_lightning.data.augment import Augmentation
from iscp_lightning.data.drawn import Shapes
from iscp_lightning.data.images import Batch, ChosenImages, ImageSet, as_is, to_float
from iscp_lightning.data.poison import Poison, PoisonedImages
from iscp_lightning.data.pool import require_pool, unlabelled
from iscp_lightning.data.sources import ImageSource
from iscp_lightning.data.splits import EpochOrder, stratified_split
from iscp_lightning.seeds import derived_seed, named_generator


class ImageDataModule(L.LightningDataModule):
    """Training, validation and test images of one source, and the images a search may look at.

    The training images are split into a training and a validation part; the test images into the
    class-stratified search images (D_n of the paper, section 4) and the held-out rest. All parts
    are disjoint and depend on `seed` alone. Search images can also come from elsewhere.

    Args:
        source: Where the images come from.
        batch_size: Images per step and device.
        augmentation: What happens to training images, on their device; default: nothing.
        val_fraction: Share of the training images set aside for validation, 0 for none.
        search_fraction: Share of the test images that searches use, in (0, 1]; nothing with
            `search_images`.
        test_fraction: Share of the training images that becomes the test set of a source
            without one.
        num_workers: Processes that read images, each time that this process reads some; None means
            the source's own for images which do not fit into memory, and none for the others. A
            source's own None is this process's share of the cores, at most 16. Fewer, with a
            warning, where /dev/shm cannot hold their batches.
        poison: How the training images are poisoned; None leaves them clean. Validation and test
            images are never poisoned.
        seed: Root seed of the run: splits, order, augmentation, poisoning, attacks and searches
            draw from seeds that derive from it by name. None is 0; on the command line it is
            `--seed_everything`.
        search_images: What searches use instead of test images, which are all held out then: all
            test images of another source such as `Noise`, its training images where it has no
            others. Images of a search's target are left out where the source has the class names
            of the data; otherwise its images show none of the classes.
    """

    def __init__(
        self,
        source: ImageSource | None = None,
        batch_size: int = 128,
        augmentation: Augmentation = Augmentation(),
        val_fraction: float = 0.05,
        search_fraction: float = 0.2,
        test_fraction: float = 0.2,
        num_workers: int | None = None,
        poison: Poison | None = None,
        seed: int | None = None,
        search_images: ImageSource | None = None,
    ) -> None:
        super().__init__()
        for name, value, low_ok, high_ok in (
            ("val_fraction", val_fraction, True, False),
            ("search_fraction", search_fraction, False, True),
            ("test_fraction", test_fraction, False, False),
        ):
            if not 0 <= value <= 1 or (value == 0 and not low_ok) or (value == 1 and not high_ok):
                allowed = f"{'[' if low_ok else '('}0, 1{']' if high_ok else ')'}"
                raise ValueError(f"`{name}` must lie in {allowed}, got {value}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"`num_workers` must be 0 or more, got {num_workers}")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be 1 or more, got {batch_size}")
        self.source = source or Shapes()
        if self.source.num_classes == 0:
            name = type(self.source).__name__
            raise ValueError(f"`source` must have classes, {name} has none: it is `search_images`")
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.val_fraction = val_fraction
        self.search_fraction = search_fraction
        self.test_fraction = test_fraction
        self.num_workers = num_workers
        self.poison = poison
        self.seed = seed or 0
        self.search_source = search_images and search_images.seeded(self.seed)
        self.stamp = poison.trigger.draw(self.source.image_size) if poison else None
        self._parts: dict[str, tuple[ImageSet, Tensor]] = {}
        self._draws: tuple[int, Generator] = (-1, Generator())

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.source.num_classes

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.source.image_size

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.source.class_names

    @property
    def test_images(self) -> ImageSet:
        """The whole test set, which `search_indices` and `held_out_indices` refer to."""
        return self._part("test")[0]

    @property
    def search_indices(self) -> Tensor:
        """(n,) int64, sorted: the test images that searches use; none with `search_images`."""
        indices = self._part("search")[1]
        return indices[:0] if self.search_source else indices

    @property
    def search_images(self) -> ImageSet | None:
        """What searches use instead of test images; None if they use these."""
        return self._part("search")[0] if self.search_source else None

    @property
    def search_labels(self) -> Tensor:
        """(m,) int64, of the images that searches use; -1 for none of the classes."""
        images, indices = self._part("search")
        return images.labels[indices]

    @property
    def held_out_indices(self) -> Tensor:
        """(n,) int64, sorted: the test images that no search has seen."""
        return self._part("held_out")[1]

    @property
    def has_training_images(self) -> bool:
        """Whether the source has training images."""
        self._part("test")  # reads them
        return "train" in self._parts

    @property
    def train_images(self) -> tuple[ImageSet, Tensor]:
        """The set that training images are taken from, and (n,) which of them, sorted."""
        return self._part("train")

    @property
    def poisoned_images(self) -> PoisonedImages:
        """The poisoned training set; only with `poison`."""
        images = self._part("train")[0]
        assert isinstance(images, PoisonedImages)
        return images

    def prepare_data(self) -> None:
        """Download or decode, in one process."""
        self.source.prepare()
        if self.search_source:
            self.search_source.prepare()

    def setup(self, stage: str) -> None:
        """Read the images and fix the splits, once, and tell the sets how many processes read."""
        del stage
        if not self._parts:
            self._read()
        for images, _ in self._parts.values():
            images.processes = getattr(self.trainer, "num_devices", 1)
            if self.num_workers is not None:
                images.num_workers = self.num_workers

    def _read(self) -> None:
        if self.poison and self.poison.goal == "all_to_one":
            self.poison.target_index(self.class_names)  # raises, also without training images
        train, test = self.source.train(), self.source.test()
        pool = torch.arange(len(train) if train else 0)
        if test is None and train is not None:
            chosen, pool = self._split(train, pool, "test", self.test_fraction)
            test = ChosenImages(train, chosen)
        if test is None:
            raise ValueError("`source` has neither training nor test images")
        test_pool, elsewhere = torch.arange(len(test)), self._elsewhere(test)
        if train is not None:
            val, pool = self._split(train, pool, "validation", self.val_fraction)
            self._parts |= {"train": (self._poisoned(train, pool), pool), "val": (train, val)}
        if elsewhere is None:
            search, held_out = self._split(test, test_pool, "search", self.search_fraction)
            searched = (test, search)
        else:
            searched, held_out = (elsewhere, torch.arange(len(elsewhere))), test_pool
        self._parts |= {
            "test": (test, test_pool),
            "search": searched,
            "held_out": (test, held_out),
        }
        for name, images in self.source.shifted_tests().items():
            self._parts[f"test_{name}"] = (images, torch.arange(len(images)))

    def _elsewhere(self, test: ImageSet) -> ImageSet | None:
        """Return the search images that are not from the test set, labelled as its classes."""
        source = self.search_source
        if source is None:
            return None
        images = source.test()
        images = source.train() if images is None else images
        if images is None:
            raise ValueError("`search_images` has neither test nor training images")
        require_pool(images, test)
        return images if source.class_names == self.class_names else unlabelled(images)

    def count(self, part: str) -> int:
        """Return the number of images of a part: `train`, `val`, `test`, `test_NAME`, `search`."""
        return len(self._part(part)[1])

    @property
    def test_names(self) -> list[str]:
        """Names of the test loaders in their order: `test`, then the shifted test sets."""
        return [name for name in self._parts if name.startswith("test")]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Yield shuffled training batches, in an order fixed by seed and epoch."""
        images, indices = self._part("train")
        self._draws = (-1, Generator())  # a second fit draws what the first one drew
        subset = Subset(images, indices.tolist())
        return self._loader(subset, EpochOrder(subset, *self._ranks, root_seed=self.seed))

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Yield the validation images; no loader without a validation part.

        Several processes see a few images twice, so that they make equally many steps.
        """
        images, indices = self._part("val")
        if len(indices) == 0:  # Lightning cannot know that no validation is what was asked for
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
            return []
        # a fit's validation goes through DDP, whose ranks must make equally many steps
        subset = Subset(images, indices.tolist())
        return self._loader(subset, DistributedSampler(subset, *self._ranks, shuffle=False))

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Yield the test images, each once, one loader per entry of `test_names`."""
        loaders = []
        for images, indices in (self._parts[name] for name in self.test_names):
            subset = Subset(images, indices.tolist())
            sampler = UnrepeatedDistributedSampler(subset, *self._ranks, shuffle=False)
            loaders.append(self._loader(subset, sampler))
        return loaders

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Return the batch with float32 images in [0, 1], augmented while training."""
        if not isinstance(batch, Batch):  # a search's own loader counts steps
            return batch
        images = to_float(batch.image)
        if self.trainer is not None and self.trainer.training:
            images = self.augmentation(images, self._epoch_generator())
            if self.poison and self.stamp and not self.poison.poison_before_augmentation:
                assert batch.poisoned is not None
                images[batch.poisoned] = self.stamp(images[batch.poisoned])
        return batch._replace(image=images)

    def _split(
        self, images: ImageSet, pool: Tensor, part: str, fraction: float
    ) -> tuple[Tensor, Tensor]:
        seed = derived_seed(self.seed, "split", part)
        return stratified_split(images.labels, pool, fraction, seed)

    def _poisoned(self, train: ImageSet, pool: Tensor) -> ImageSet:
        if self.poison is None or self.stamp is None:
            return train
        rows = pool[self.poison.choose(train.labels[pool], self.class_names, self.seed)]
        return PoisonedImages(train, rows, self.poison, self.class_names, self.stamp)

    def _epoch_generator(self) -> Generator:
        assert self.trainer is not None
        epoch, generator = self._draws
        if epoch != self.trainer.current_epoch:
            epoch, rank = self.trainer.current_epoch, self.trainer.global_rank
            generator = named_generator(self.seed, "augmentation", epoch, rank)
            self._draws = (epoch, generator)
        return generator

    def _part(self, name: str) -> tuple[ImageSet, Tensor]:
        if not self._parts:
            self.setup("fit")
        if name not in self._parts:
            raise ValueError(f"`source` {type(self.source).__name__} has no training images")
        return self._parts[name]

    @property
    def _ranks(self) -> tuple[int, int]:
        return (
            (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        )

    def _loader(self, subset: Subset[Batch], sampler: Sampler[int]) -> DataLoader[Batch]:
        images = subset.dataset
        assert isinstance(images, ImageSet)
        workers = images.workers(self.batch_size)
        return DataLoader(
            subset,
            batch_size=self.batch_size,
            sampler=sampler,  # not `batch_sampler`: Lightning would replace the sampler in DDP
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=as_is,
            generator=Generator(),  # the global one belongs to the training
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
        )


def planned_epochs(trainer: L.Trainer, data: ImageDataModule) -> int:
    """Return how many epochs a Trainer is to train on the images, the last one perhaps in part."""
    batches = math.ceil(data.count("train") / (data.batch_size * trainer.world_size))
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    limits = [epochs] if epochs >= 0 else []
    if trainer.max_steps >= 0:
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    return min(limits, default=1000)  # Lightning's own
