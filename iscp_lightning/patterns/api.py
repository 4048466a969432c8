"""search_patterns: the whole search in one call, for any classifier, in one process or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from iscp_lightning.classifiers.checkpoints import classifier_hash
from iscp_lightning.classifiers.frozen import frozen_copy, module_device
from iscp_lightning.data.images import ImageSet, MemoryImages
from iscp_lightning.data.splits import class_indices, stratified_split
from iscp_lightning.data.testset import fingerprint, require_names
from iscp_lightning.patterns.canvas import choose_canvases, predict
from iscp_lightning.patterns.descent import SignDescent
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.pool import SearchPool
from iscp_lightning.patterns.search import PatternSearch, SearchSettings
from iscp_lightning.ranks import rank_and_size, share, sum_rows
from iscp_lightning.runs import provenance
from iscp_lightning.seeds import derived_seed, named_generator


def search_patterns(
    classifier: nn.Module,
    images: Tensor | ImageSet,
    labels: Tensor | None = None,
    settings: SearchSettings = SearchSettings(),
    *,
    classes: Sequence[int | str] | None = None,
    class_names: Sequence[str] | None = None,
    search_fraction: float = 0.2,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> PatternSet:
    """Return the class-wise patterns of a classifier (Algorithm 1); the result is on the CPU.

    The same arguments give the same masks, bit for bit in fp32 on CPUs, however many processes of
    torch.distributed share the work; each of them returns the whole set.

    Args:
        classifier: Maps float32 images (N, C, H, W) in [0, 1] to logits (N, K). It is copied,
            never changed.
        images: The test set: uint8 or float in [0, 1] (N, C, H, W), or an image set.
        labels: (N,) class indices, for a tensor of images.
        settings: Settings of the algorithm.
        classes: Target classes by index or name; None means all.
        class_names: Name of each class; None numbers them.
        search_fraction: Share of each class's test images that the search uses.
        device: Where to compute; None is the classifier's own device.
        progress: Whether to show progress bars.

    Raises:
        ValueError: for arguments out of range, labels without a name, NaN logits, or a test set
            too small to search.
        MissingCanvasError: if a class has no canvas of the wanted kind.

    Example:
        >>> import torch
        >>> images = torch.rand(40, 3, 8, 8)
        >>> labels = torch.arange(40) % 2
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> patterns = search_patterns(
        ...     classifier, images, labels, SearchSettings(canvas="white"), progress=False
        ... )
        >>> patterns.masks.shape, patterns.selected(0.05).sum((1, 2))
        (torch.Size([2, 8, 8]), tensor([3, 3]))
    """
    if isinstance(images, Tensor):
        if labels is None:
            raise ValueError("`labels` must be given with a tensor of `images`")
        images = MemoryImages(images, labels)
    names = class_names or [str(k) for k in range(int(images.labels.max()) + 1)]
    settings = settings.seeded(0)
    seed = derived_seed(settings.seed or 0, "split", "search")  # as ImageDataModule splits
    pool, _ = stratified_split(images.labels, torch.arange(len(images)), search_fraction, seed)
    return run_search(
        classifier,
        images,
        pool,
        settings,
        classes=class_indices(classes, names),
        class_names=names,
        device=torch.device(device) if device else module_device(classifier),
        progress=progress,
    )


def run_search(
    classifier: nn.Module,
    images: ImageSet,
    search_indices: Tensor,
    settings: SearchSettings,
    *,
    classes: Sequence[int],
    class_names: Sequence[str],
    device: torch.device,
    progress: bool = False,
    skip_missing: bool = False,
    facts: dict[str, Any] | None = None,
) -> PatternSet:
    """Return the patterns of `classes`, searched on given test images; ranks share the problems.

    Args:
        classifier: As for `search_patterns`.
        images: The whole test set.
        search_indices: (n,) int64, the search images D_n.
        settings: Settings of the algorithm.
        classes: Target classes.
        class_names: Name of each class.
        device: Where to compute.
        progress: Whether to show progress bars.
        skip_missing: Leave classes without canvas out instead of raising.
        facts: Further provenance.

    Raises:
        ValueError: if a label has no name, and as for `search_patterns`.
    """
    require_names(images.labels, class_names)
    frozen = frozen_copy(classifier, device)
    show = progress and rank_and_size()[0] == 0
    predictions = predict(frozen, images, device, len(class_names), show)
    canvases = choose_canvases(
        predictions,
        images,
        classes,
        settings.canvas,
        settings.canvases_per_class,
        settings.seed or 0,
        class_names,
        skip_missing,
        show,
    )
    search = PatternSearch(
        frozen,
        canvases,
        SearchPool.take(images, search_indices, device, show),
        settings,
        len(class_names),
        owned=share(range(len(canvases.targets))),
    )
    masks, sums = search.initial_masks, torch.zeros_like(search.initial_masks)
    optimizer = SignDescent([masks], settings.step_size)
    total = settings.search_epochs * search.steps_per_epoch
    with tqdm(total=total, desc=f"{len(canvases.targets)} problems", disable=not show) as bar:
        for epoch in range(settings.search_epochs):
            for step in range(search.steps_per_epoch):
                loss = search.step(masks, sums, optimizer, (epoch, step))
                bar.update()
                if show and step % 20 == 0 and len(loss):
                    bar.set_postfix(objective=f"{loss.mean().item():.3f}")
    return collect(
        search,
        masks,
        sums,
        search.objectives(masks, show),
        search_indices,
        class_names,
        classifier_hash=classifier_hash(classifier),
        test_set=fingerprint(images),
        **(facts or {}),
    )


def collect(
    search: PatternSearch,
    masks: Tensor,
    mask_sums: Tensor,
    objectives: Tensor,
    search_indices: Tensor,
    class_names: Sequence[str],
    **facts: Any,  # noqa: ANN401
) -> PatternSet:
    """Return every rank's problems as one set on the CPU; a collective.

    Args:
        search: The engine; says which rows this rank owns.
        masks: (P, H, W) final masks.
        mask_sums: (P, H, W), sums over the last pass.
        objectives: (P,) float32.
        search_indices: (n,) the search images.
        class_names: Name of each class.
        facts: Provenance.
    """
    owned = search.owned.tolist()
    rows = [sum_rows(tensor.detach(), owned) for tensor in (masks, mask_sums, objectives)]
    steps = search.steps_of_problems.to(masks.device).view(-1, 1, 1)
    return PatternSet(
        targets=search.canvases.targets,
        canvas_indices=search.canvases.indices,
        canvases=search.canvases.images,
        masks=rows[0].cpu(),
        mask_means=(rows[1] / steps).cpu(),
        objectives=rows[2].cpu(),
        search_indices=search_indices,
        class_names=tuple(class_names),
        settings=asdict(search.settings),
        provenance=provenance(fast_copy=", ".join(search.network.changes) or "unchanged", **facts),
    )


def random_classes(number: int, num_classes: int, seed: int) -> list[int]:
    """Return a seeded random choice of `number` classes, sorted (the paper's 50 of 1,000).

    Raises:
        ValueError: if there are fewer classes.
    """
    if not 1 <= number <= num_classes:
        raise ValueError(f"`random_classes` must lie in 1 to {num_classes}, got {number}")
    generator = named_generator(seed, "random classes")
    return sorted(torch.randperm(num_classes, generator=generator)[:number].tolist())
