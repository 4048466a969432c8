"""search_patterns: the whole search in one call, for any classifier, in one process or several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import ImageSet, MemoryImages
from iscp_lightning.data.pool import as_pool, require_pool
from iscp_lightning.data.splits import class_indices, stratified_split
from iscp_lightning.patterns.canvas import (
    Canvases,
    GivenCanvases,
    choose_canvases,
    given_canvases,
    joined_canvases,
)
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.pattern import PatternSet, winners_of
from iscp_lightning.patterns.pixels import pixel_count
from iscp_lightning.patterns.power import MeasuredCanvases, MeasuredOn
from iscp_lightning.patterns.settings import SearchSettings
from iscp_lightning.patterns.variants.base import Problems, Variant
from iscp_lightning.ranks import gather_to_first, sum_over_ranks
from iscp_lightning.seeds import derived_seed, named_generator

MOST_CLASSES = 50  # of which every canvas is measured: the paper's tables have no more


def search_patterns(
    classifier: nn.Module,
    images: Tensor | ImageSet,
    labels: Tensor | None = None,
    settings: SearchSettings = SearchSettings(),
    *,
    classes: Sequence[int | str] | None = None,
    class_names: Sequence[str] | None = None,
    canvases: GivenCanvases | None = None,
    search_fraction: float = 0.2,
    device: str | torch.device | None = None,
    progress: bool = True,
    search_images: Tensor | ImageSet | None = None,
) -> PatternSet:
    """Return the class-wise patterns of a classifier (Algorithm 1); the result is on the CPU.

    The same arguments give the same masks, bit for bit in fp32 on CPUs, however many processes of
    torch.distributed share the work; each of them returns the whole set.

    Args:
        classifier: Maps float32 images (N, C, H, W) in [0, 1] to logits (N, K). It is copied,
            never changed.
        images: The test set: uint8 or float in [0, 1] (N, C, H, W), or an image set.
        labels: (N,) class indices, for a tensor of images.
        settings: Settings of the search.
        classes: Target classes by index or name; None means all.
        class_names: Name of each class; None numbers them.
        canvases: Instead of `settings.canvas`: positions in the test set or images, which every
            class gets, or a pattern set (or its file) whose canvases are used again.
        search_fraction: Share of each class's test images that the search uses; nothing with
            `search_images`.
        device: Where to compute; None is the classifier's own device.
        progress: Whether to show progress bars.
        search_images: What the search uses instead of test images, all of them: uint8 or float in
            [0, 1] (M, C, H, W), which show none of the classes, or an image set, whose labels are
            those of the classes, -1 for none.

    Raises:
        ValueError: for arguments out of range, labels without a name, NaN logits, or a test set
            too small to search, or search images of another shape.
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
    require_canvas_free(settings.method, canvases)
    indices, pool = None, None
    if search_images is None:
        seed = derived_seed(settings.seed or 0, "split", "search")  # as ImageDataModule splits
        everything = torch.arange(len(images))
        indices, _ = stratified_split(images.labels, everything, search_fraction, seed)
    else:
        pool = as_pool(search_images)
        require_pool(pool, images)
    subject = Subject(
        classifier,
        images,
        names,
        indices,
        device=torch.device(device) if device else None,
        progress=progress,
        search_images=pool,
    )
    return run_search(subject, settings, class_indices(classes, names), canvases).gathered()


def problems_of(
    subject: Subject,
    settings: SearchSettings,
    classes: Sequence[int],
    canvases: GivenCanvases | None = None,
    skip_missing: bool = False,
) -> Canvases:
    """Return the (class, canvas) problems of a search.

    Args:
        subject: The classifier and the test images.
        settings: Settings of the search, with a seed.
        classes: Target classes.
        canvases: As for `search_patterns`.
        skip_missing: Leave classes without canvas out instead of raising.

    Raises:
        MissingCanvasError: if a class has no canvas.
        ValueError: if given canvases or the variant's options do not fit.
    """
    require_applicable(settings, subject.images)
    joint = settings.method.joint
    if canvases is not None:
        given = given_canvases(subject, classes, canvases, skip_missing, joint)
    _ = subject.logits  # raises where they are no logits, whatever the canvases
    if not settings.method.needs_canvas:
        return choose_canvases(subject, classes, "white", 1, 0)
    if canvases is not None:
        return given
    number = settings.canvases_per_class
    found = choose_canvases(
        subject, classes, settings.canvas, number, settings.seed or 0, skip_missing
    )
    number = 1 if settings.canvas == "white" else number
    return joined_canvases(subject, found, number) if joint else found


def require_applicable(
    settings: SearchSettings, images: ImageSet, sizes: Sequence[float] = ()
) -> None:
    """Try a search's variant on a black canvas, before anything is classified.

    Args:
        settings: The search's settings.
        images: The test images.
        sizes: Pattern sizes that will be measured.

    Raises:
        ValueError: if its options or a size do not fit the images, such as less than a pixel.
    """
    variant, winner_size = settings.method, settings.winner_size
    black = torch.zeros_like(images.pixels([0]))
    canvas = black.float()
    problem = Problems(canvas, torch.zeros(1, dtype=torch.int64), torch.zeros(1), 0.0)
    variables = variant.variables(canvas)
    variant.stamps(variables, problem)
    if winner_size is not None:
        if variant.joint or not variant.needs_canvas:
            raise ValueError(
                f"`winner_size` chooses among canvases: {type(variant).__name__} has none to choose"
            )
        pixel_count(winner_size, black.shape[2:], "winner_size")
        warn_of_unsearched(variant, [winner_size])
    if sizes:
        means = {name: variables[name] for name in variant.averaged}
        variant.pasted(variables, means, black, sizes)
    warn_of_unsearched(variant, sizes)


def warn_of_unsearched(variant: Variant, sizes: Sequence[float]) -> None:
    """Warn of pattern sizes that a variant which searches for some does not search for."""
    searched = sorted(set(variant.searched_sizes))
    if searched and (others := [size for size in sizes if size not in searched]):
        of, cut = (", ".join(f"{100 * size:g} %" for size in each) for each in (searched, others))
        name = type(variant).__name__
        warnings.warn(
            f"{name} searches for patterns of {of}: for {cut} it only ranks pixels", stacklevel=3
        )


def require_canvas_free(variant: Variant, canvases: object) -> None:
    """Raise a ValueError if canvases are given to a variant that needs none."""
    if canvases is not None and not variant.needs_canvas:
        raise ValueError(f"`canvases` cannot be given: {type(variant).__name__} needs none")


def run_search(
    subject: Subject,
    settings: SearchSettings,
    classes: Sequence[int],
    canvases: GivenCanvases | None = None,
    skip_missing: bool = False,
) -> PatternSearch:
    """Return a finished search; ranks share the problems. Arguments as for `problems_of`."""
    search = PatternSearch(
        subject, problems_of(subject, settings, classes, canvases, skip_missing), settings
    )
    with subject.bar(search.total_steps, f"{len(search.active)} problems") as bar:
        for step in range(search.total_steps):
            loss = search.step()
            bar.update()
            if subject.progress and step % 20 == 0 and len(loss):
                bar.set_postfix(objective=f"{loss.mean().item():.3f}")
    search.finish()
    return search


def measure_search(
    search: PatternSearch,
    pattern_sizes: Sequence[float],
    measure_on: MeasuredOn = "held_out",
    canvases: MeasuredCanvases | None = None,
    images: int | None = None,
) -> PatternSet | None:
    """Return the measured patterns of a finished search on rank 0, elsewhere None; a collective.

    Every rank measures what it owns. In one process on a CPU the set shares its memory with the
    search.

    Args:
        search: The search.
        pattern_sizes: Sizes as shares of the pixels.
        measure_on: The test images that the search has not seen, those that it has, or all.
        canvases: Whether every canvas is measured or the winners only; None is every canvas of up
            to `MOST_CLASSES` classes.
        images: How many images, as many of each class; None means all.
    """
    found = search.patterns()
    targets = search.canvases.targets
    rows = (~found.objectives.isinf()).nonzero().flatten()  # the variant dropped the others
    winners = torch.isin(search.owned, winning_problems(search)).nonzero().flatten()
    if measured_canvases(canvases, len(targets.unique())) == "winners":
        rows = winners
    found = found.measured(search.subject, pattern_sizes, measure_on, rows, winners, images)
    parts = gather_to_first((search.owned, found))
    if len(parts) == 1:  # one process: nothing to join, so nothing to copy
        return found
    return PatternSet.joined(parts) if parts else None


def measured_canvases(wanted: MeasuredCanvases | None, classes: int) -> MeasuredCanvases:
    """Return which canvases are measured: what is wanted, or what is affordable for the classes."""
    return wanted or ("all" if classes <= MOST_CLASSES else "winners")


def winning_problems(search: PatternSearch) -> Tensor:
    """Return the problem with the lowest objective of each class, by class; a collective.

    Args:
        search: A finished search.
    """
    objectives = torch.zeros(len(search.canvases.targets))
    objectives[search.owned] = search.objectives.cpu()
    return winners_of(search.canvases.targets, sum_over_ranks(objectives))


def random_classes(number: int, num_classes: int, seed: int) -> list[int]:
    """Return a seeded random choice of `number` classes, sorted (the paper's 50 of 1,000).

    Raises:
        ValueError: if there are fewer classes.
    """
    if not 1 <= number <= num_classes:
        raise ValueError(f"`random_classes` must lie in 1 to {num_classes}, got {number}")
    generator = named_generator(seed, "random classes")
    return sorted(torch.randperm(num_classes, generator=generator)[:number].tolist())
