"""Subject: a frozen classifier on the test images of a data set, which everything measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from iscp_lightning.classifiers.checkpoints import classifier_hash
from iscp_lightning.classifiers.frozen import frozen_copy, full_fp32, module_device, uncompiled
from iscp_lightning.classifiers.outputs import require_logits
from iscp_lightning.classifiers.prepared import Precision, Prepared, prepare, relative_change
from iscp_lightning.data.images import Batch, ChosenImages, ImageSet, to_float
from iscp_lightning.data.pool import NO_CLASS
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.data.testset import fingerprint, require_names
from iscp_lightning.ranks import rank_and_size, share, sum_over_ranks

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule

CHUNK = 256  # images; logits never depend on how many processes share them: chunks stay whole
SMALL_IMAGES = 100
ROUNDING = 1e-5  # share of a logit that the order of fp32 sums alone may change
CAUTION = 8  # how many times the largest seen difference of the fast copy counts as doubtful


class Subject:
    """A frozen classifier on the test images of a data set.

    Copies of the network, its logits and its hash are made when they are first asked for, once. The
    given classifier is never changed.

    Args:
        classifier: Maps float32 images (N, C, H, W) in [0, 1] to logits (N, K).
        images: The whole test set.
        class_names: Name of each class.
        search_indices: (n,) int64, the test images that searches may look at (D_n); none by
            default.
        device: Where to compute; None is the classifier's own.
        seed: Root seed of every draw.
        progress: Whether to show progress bars; only the first process does.
        search_images: Images of the same shape from elsewhere, which searches look at instead of
            test images; -1 labels those that show none of the classes.

    Raises:
        ValueError: if a label has no name, or both `search_indices` and `search_images` are given.
    """

    def __init__(
        self,
        classifier: nn.Module,
        images: ImageSet,
        class_names: Sequence[str],
        search_indices: Tensor | None = None,
        *,
        device: torch.device | None = None,
        seed: int = 0,
        progress: bool = False,
        search_images: ImageSet | None = None,
    ) -> None:
        require_names(images.labels, class_names)
        if search_images is not None and search_indices is not None and len(search_indices):
            raise ValueError("give `search_indices` or `search_images`, not both")
        self.classifier = uncompiled(classifier)  # which can be traced and folded
        self.images = images
        self.class_names = tuple(class_names)
        empty = torch.zeros(0, dtype=torch.int64)
        self.search_indices = empty if search_indices is None else search_indices
        self.search_images = search_images
        self.device = device or module_device(classifier)
        self.seed = seed
        self.progress = progress and rank_and_size()[0] == 0
        self._fast: dict[Precision, Prepared] = {}

    @classmethod
    def of(
        cls,
        classifier: nn.Module,
        data: ImageDataModule,
        device: torch.device | None = None,
        progress: bool = False,
        small: bool = False,
    ) -> Subject:
        """Return a classifier as the subject on a data module's test images.

        Args:
            classifier: As above, likewise `device` and `progress`.
            data: The images.
            device: Where to compute.
            progress: Whether to show progress bars.
            small: Whether about 100 of the images are enough, to try things out.
        """
        images, search_indices, pool = data.test_images, data.search_indices, data.search_images
        if small:
            images = ChosenImages(images, stratified_choice(images.labels, SMALL_IMAGES, 0))
            if pool is None:
                search_indices = torch.arange(0, len(images), 5)
            else:
                pool = ChosenImages(pool, stratified_choice(pool.labels, SMALL_IMAGES // 5, 0))
        return cls(
            classifier,
            images,
            data.class_names,
            search_indices,
            device=device,
            seed=data.seed,
            progress=progress,
            search_images=pool,
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the classifier's weights and buffers."""
        return classifier_hash(self.classifier)

    @cached_property
    def test_set(self) -> dict[str, Any]:
        """What tells the test set from others: see `fingerprint`."""
        return fingerprint(self.images)

    @cached_property
    def search_set(self) -> dict[str, Any] | None:
        """Likewise of search images from elsewhere; None without."""
        return None if self.search_images is None else fingerprint(self.search_images)

    @cached_property
    def frozen(self) -> nn.Module:
        """The copy in fp32 and eval mode whose answers count, on the device."""
        _ = self.hash  # of the same moment
        return frozen_copy(self.classifier, self.device)

    @cached_property
    def logits(self) -> Tensor:
        """(N, K) float32 logits of all test images, on the CPU; ranks share the work once.

        Raises:
            ValueError: if there are fewer logits than classes, the classifier returns
                probabilities, or a logit is NaN; names the label of the first such image.
        """
        chunks = share(torch.arange(len(self.images)).split(self.batch_size))
        logits: Tensor | None = None
        with torch.no_grad(), full_fp32(), self.bar(len(chunks), "classifying test images") as bar:
            for batch in self.images.batches(chunks):
                found = self.frozen(to_float(batch.image.to(self.device))).float().cpu()
                self._require_logits(found)
                if logits is None:
                    logits = torch.zeros(len(self.images), found.shape[1])
                logits[batch.index] = found
                bar.update()
        if logits is None:  # fewer chunks than ranks
            with torch.no_grad():
                some = to_float(self.images.pixels([0]).to(self.device))
                logits = torch.zeros(len(self.images), self.frozen(some).shape[1])
        logits = sum_over_ranks(logits)
        if logits.isnan().any():
            first = int(logits.isnan().any(1).nonzero()[0])
            raise ValueError(
                f"the classifier's logits are NaN, first for an image of class "
                f"{int(self.images.labels[first])} (index {first}): its weights or normalisation "
                "are broken"
            )
        return logits

    @cached_property
    def predictions(self) -> Tensor:
        """(N,) int64 predicted class of all test images, on the CPU."""
        return self.logits.argmax(1)

    def correct_and_seen(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many images of each class are predicted right, and how many there are.

        Args:
            indices: (n,) int64, which test images.

        Returns:
            Two int64 tensors (K,), K the number of class names, on the CPU.
        """
        labels, classes = self.images.labels[indices], len(self.class_names)
        right = self.predictions[indices] == labels
        return labels[right].bincount(minlength=classes), labels.bincount(minlength=classes)

    def fast(self, precision: Precision = "fp32") -> Prepared:
        """Return the fast copy of a precision: see `prepare`."""
        if precision not in self._fast:
            everything = torch.arange(len(self.images))
            indices = self.search_indices if len(self.search_indices) else everything
            some = to_float(self.images.pixels(indices[:4]).to(self.device))
            self._fast[precision] = prepare(self.frozen, precision, some)
        return self._fast[precision]

    @torch.no_grad()
    @full_fp32()
    def classify(self, images: Tensor) -> Tensor:
        """Return the class that the given classifier says in fp32, (N,) int64 on the device.

        -1 where a logit is NaN.

        The fast copy answers where its two best logits are further apart than `CAUTION` times what
        it was seen to differ from the given classifier; where they are closer, that is asked.

        Args:
            images: float32 (N, C, H, W) in [0, 1], on the device.
        """
        logits = self.fast()(images).float()
        best = logits.topk(min(2, logits.shape[1]), dim=1)
        spread = logits.amax(1) - logits.amin(1)
        doubt = CAUTION * 2 * self._difference * spread + ROUNDING * logits.abs().amax(1)
        doubtful = ~(best.values[:, 0] - best.values[:, -1] > doubt)
        predicted: Tensor = best.indices[:, 0]
        if doubtful.any():
            asked = self.frozen(images[doubtful])
            answers = asked.argmax(1).masked_fill(asked.isnan().any(1), NO_CLASS)
            predicted[doubtful] = answers
        return predicted

    def batches(self, indices: Tensor, batch_size: int = CHUNK) -> Iterator[Batch]:
        """Yield the chosen test images in order, float32 in [0, 1] on the device."""
        chunks = [chunk for chunk in indices.split(batch_size) if len(chunk)]
        for stored in self.images.batches(chunks):
            batch = Batch(*(move(part, self.device) for part in stored))
            yield batch._replace(image=to_float(batch.image))

    @property
    def batch_size(self) -> int:
        """How many images are classified together: on a CPU, more no longer fit into its caches."""
        return 128 if self.device.type == "cpu" else 512

    def bar(self, total: int, title: str) -> Any:  # noqa: ANN401
        """Return a progress bar, invisible unless `progress`."""
        return tqdm(total=total, desc=title, disable=not self.progress)

    @cached_property
    def _difference(self) -> float:
        """The largest change of the fast copy's logits seen, as a share of their spread."""
        some = torch.linspace(0, len(self.images) - 1, min(CHUNK, len(self.images))).long()
        images = to_float(self.images.pixels(some.unique()).to(self.device))
        mixed = torch.lerp(images, images.flip(0), 0.5)
        return max(
            relative_change(self.fast()(each).float(), self.frozen(each).float())
            for each in (images, mixed)
        )

    def _require_logits(self, logits: Tensor) -> None:
        if logits.shape[1] < len(self.class_names):
            raise ValueError(
                f"`classifier` has {logits.shape[1]} logits for {len(self.class_names)} classes"
            )
        if len(logits) > 1:  # a single row may look like probabilities by chance
            require_logits(logits)


def move(tensor: Tensor | None, device: torch.device) -> Any:  # noqa: ANN401
    """Return the tensor on `device`; None stays None."""
    return None if tensor is None else tensor.to(device)
