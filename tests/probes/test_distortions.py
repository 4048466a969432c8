"""Distortions against answers known by hand and numpy's Fourier transform."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import planted_trigger, subject_of

from iscp_lightning.attacks.pgd import PGD
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MNIST, MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.shapes import draw_shapes, shape_masks
from iscp_lightning.probes import (
    Adversarial,
    Clean,
    Distortion,
    Edges,
    Greyscale,
    HighPass,
    LowPass,
    Occlusion,
    PatchShuffle,
    Rotation,
    Saturation,
    Silhouette,
    Translation,
)
from iscp_lightning.probes.filters import (
    draw_permutations,
    edges,
    greyscale,
    high_pass,
    low_pass,
    saturate,
    shuffle_patches,
)


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def distorted(distortion: Distortion, subject: Subject, batch_size: int = 256) -> Tensor:
    batches = subject.batches(torch.arange(len(subject.images)), batch_size)
    return torch.cat([distortion(subject, batch) for batch in batches])


def subject_on_shapes(count: int = 20, size: int = 16) -> Subject:
    drawn = draw_shapes(count, size=size, seed=1)
    classifier, _ = planted_trigger(size)
    labels = drawn.labels % 2
    return subject_of(classifier, MemoryImages(drawn.images, labels), seed=3)


def test_saturation_of_single_values():
    values = torch.tensor([0.0, 0.1, 0.5, 0.68, 1.0]).view(1, 1, 1, 5)
    found = saturate(values, 4)[0, 0, 0]  # v becomes the root of |v|
    assert found.tolist() == pytest.approx([0, 0.5 - math.sqrt(0.8) / 2, 0.5, 0.8, 1])
    assert torch.allclose(saturate(values, 2), values)
    assert saturate(values, 1)[0, 0, 0].tolist() == pytest.approx([0, 0.18, 0.5, 0.5648, 1])
    assert saturate(values, 1e9)[0, 0, 0].tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_a_permutation_moves_tiles_as_it_says():
    images = torch.arange(16.0).view(1, 1, 4, 4) / 16
    found = shuffle_patches(images, torch.tensor([[3, 0, 2, 1]])) * 16
    assert found[0, 0].int().tolist() == [
        [10, 11, 0, 1],
        [14, 15, 4, 5],
        [8, 9, 2, 3],
        [12, 13, 6, 7],
    ]


def test_every_image_and_channel_is_shuffled_as_if_alone():
    images = random_images(5, 3, 6, 12)
    drawn = draw_permutations(0, torch.arange(5), 3)
    for image, permutation, found in zip(
        images, drawn, shuffle_patches(images, drawn), strict=True
    ):
        tiles = [tile for band in image.split(2, 1) for tile in band.split(4, 2)]
        moved = [tiles[i] for i in permutation]
        bands = [torch.cat(moved[i : i + 3], 2) for i in (0, 3, 6)]
        assert torch.equal(found, torch.cat(bands, 1))


def test_the_border_that_no_tile_covers_stays():
    images = random_images(1, 1, 8, 7)  # 2 x 2 pixels a tile, in the centred 6 x 6
    found = shuffle_patches(images, torch.arange(9).flip(0).unsqueeze(0))
    inside = torch.zeros(8, 7, dtype=torch.bool)
    inside[1:7, 0:6] = True
    assert torch.equal(found[..., ~inside], images[..., ~inside])
    assert torch.equal(found[..., 1:3, 0:2], images[..., 5:7, 4:6])
    assert torch.equal(found.flatten().sort().values, images.flatten().sort().values)


def test_permutations_are_uniform_without_the_identity():
    drawn = draw_permutations(5, torch.arange(4600), 2)
    counts = dict.fromkeys(permutations(range(4)), 0)
    for row in drawn.tolist():
        counts[tuple(row)] += 1
    assert counts.pop((0, 1, 2, 3)) == 0
    assert all(130 < count < 275 for count in counts.values())  # 200 expected, five sigma


def test_a_permutation_depends_on_seed_k_and_image_alone():
    drawn = draw_permutations(5, torch.arange(40), 4)
    assert torch.equal(draw_permutations(5, torch.tensor([7, 39]), 4), drawn[[7, 39]])
    assert not torch.equal(draw_permutations(6, torch.arange(40), 4), drawn)
    assert draw_permutations(5, torch.arange(0), 4).shape == (0, 16)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (7, 5)])
@pytest.mark.parametrize("radius", [1.0, 2.5, 3.0])
def test_filters_agree_with_numpy(size: tuple[int, int], radius: float):
    images = random_images(2, 3, *size)
    spectrum = np.fft.fftshift(np.fft.fft2(images.double().numpy()), axes=(2, 3))
    rows, columns = (np.arange(side) - side // 2 for side in size)
    inside = rows[:, None] ** 2 + columns**2 <= radius**2

    def back(kept: np.ndarray) -> Tensor:
        whole = np.fft.ifft2(np.fft.ifftshift(spectrum * kept, axes=(2, 3)))
        assert np.abs(whole.imag).max() < 1e-12
        return torch.from_numpy(whole.real.clip(0, 1)).float()

    assert torch.allclose(low_pass(images, radius), back(inside), atol=1e-5)
    middle = (rows[:, None] == 0) & (columns == 0)
    assert torch.allclose(high_pass(images, radius), back(~inside | middle), atol=1e-5)


def test_a_wave_passes_up_to_its_own_frequency():
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16)
    images = wave.expand(1, 1, 12, 16)
    grey = torch.full_like(images, 0.5)
    for radius, low, high in ((2.9, grey, images), (3, images, grey)):
        assert torch.allclose(low_pass(images, radius), low, atol=1e-5)
        assert torch.allclose(high_pass(images, radius), high, atol=1e-5)


def test_luma_of_the_primary_colours():
    colours = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 2, 2)
    for found, luma in zip(greyscale(colours), (0.299, 0.587, 0.114), strict=True):
        assert torch.allclose(found, torch.tensor(luma))
    grey = random_images(1, 1, 5, 7).expand(1, 3, 5, 7)
    assert torch.equal(greyscale(grey), grey)
    assert torch.equal(greyscale(grey[:, :1]), grey[:, :1])


def test_edges_of_a_step_and_a_corner():
    step = torch.zeros(1, 3, 4, 6)
    step[..., 3:] = 0.25
    expected = torch.ones(4, 6)
    expected[:, 2:4] = 0
    assert torch.allclose(edges(step)[0], expected.expand(3, 4, 6))
    corner = torch.zeros(1, 1, 5, 5)
    corner[..., 2:, 2:] = 1
    # Sobel (3, 3) beside the corner is the largest; (1, 1) at its tip, (0, 4) at its sides
    found = edges(corner)[0, 0]
    largest = math.hypot(3, 3)
    assert found[2, 2].item() == pytest.approx(0, abs=1e-6)
    assert found[1, 1].item() == pytest.approx(2 / 3, abs=1e-6)
    assert found[4, 1].item() == found[4, 2].item() == pytest.approx(1 - 4 / largest, abs=1e-6)
    assert found[0, 0].item() == found[4, 4].item() == 1


def test_an_image_of_one_colour_has_no_edges():
    colours = random_images(50, 3, 1, 1).expand(50, 3, 9, 13).contiguous()
    assert torch.equal(edges(colours), torch.ones(50, 3, 9, 13))


def test_silhouettes_are_the_masks_of_the_test_images():
    data = ImageDataModule(Shapes(train_count=20, test_count=30, size=16, seed=2))
    silhouette = Silhouette()
    silhouette.check(data)
    classifier, _ = planted_trigger(16)
    subject = Subject(classifier, data.test_images, data.class_names)
    batch = next(subject.batches(torch.tensor([4, 29])))
    objects = shape_masks(30, size=16, seed=7)[[4, 29]].unsqueeze(1).expand(2, 3, 16, 16)
    found = silhouette(subject, batch)
    assert torch.equal(found == 0, objects)
    assert torch.equal(found == 1, ~objects)


def test_silhouettes_need_shapes():
    with pytest.raises(ValueError, match="`source` must be Shapes, got MNIST"):
        Silhouette().check(ImageDataModule(MNIST()))
    subject = subject_on_shapes()
    with pytest.raises(ValueError, match="call `check` first"):
        distorted(Silhouette(), subject)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_images_lower_the_true_logit_in_the_ball(norm: str):
    subject = subject_on_shapes()
    attack = PGD(0.1, 0.03, 5, norm, random_start=False)
    distortion = Adversarial(attack)
    before, after = distorted(Clean(), subject), distorted(distortion, subject)
    assert distortion.about == {"distortion": f"adversarial {norm}", "strength": 0.1}
    order = math.inf if norm == "linf" else 2
    lengths = (after - before).flatten(1).norm(order, dim=1)
    assert lengths.max() <= 0.1 + 1e-5
    assert lengths.min() > 0
    labels = subject.images.labels.unsqueeze(1)
    change = subject.frozen(after) - subject.frozen(before)
    assert (change.gather(1, labels) < change.gather(1, 1 - labels)).all()


def test_the_default_attack():
    attack = Adversarial().attack
    assert attack == PGD("8/255", "2/255", 20, "linf", random_start=False)
    with pytest.raises(ValueError, match="`attack` must have random_start=False"):
        Adversarial(PGD())
    with pytest.raises(ValueError, match=r"must reach its epsilon: 20 steps of 0\.00784"):
        Adversarial(PGD(0.5, steps=20, norm="l2", random_start=False))


EVERY: list[Distortion] = [
    *(Clean(), Saturation(8), PatchShuffle(2), PatchShuffle(5), LowPass(3), HighPass(2)),
    *(Greyscale(), Edges(), Silhouette(), Adversarial()),
    *(Rotation(30), Rotation(180), Translation(0.01), Translation(0.4), Occlusion(0.3)),
]


@pytest.mark.parametrize("distortion", EVERY, ids=lambda d: f"{d.name} {d.strength}")
def test_batches_and_global_draws_do_not_matter(distortion: Distortion):
    data = ImageDataModule(Shapes(train_count=20, test_count=20, size=16))
    distortion.check(data)
    subject = subject_on_shapes(20)
    images = subject.images.images.clone()
    torch.manual_seed(0)
    whole = distorted(distortion, subject)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.allclose(distorted(distortion, subject, batch_size=3), whole, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    assert whole.shape == (20, 3, 16, 16)
    assert whole.dtype == torch.float32
    assert 0 <= whole.min() <= whole.max() <= 1
    assert torch.equal(subject.images.images, images)
    assert torch.equal(distorted(Clean(), subject), images.float() / 255)
    assert not whole.requires_grad


def test_what_records_are_about():
    assert Saturation(8).about == {"distortion": "saturation", "strength": 8.0}
    assert Edges().about == {"distortion": "edges"}
    names = {type(each): each.name for each in EVERY}
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_numbers_that_are_not_above_zero_or_not_finite(value: float):
    images = random_images(1, 3, 4, 4)
    for name, calls in (
        ("p", (Saturation, lambda v: saturate(images, v))),
        ("radius", (LowPass, HighPass)),
        ("radius", (lambda v: low_pass(images, v), lambda v: high_pass(images, v))),
    ):
        for call in calls:
            with pytest.raises(
                ValueError, match=f"`{name}` must be above 0 and finite, got {value}"
            ):
                call(value)


def test_tiles_that_images_do_not_have():
    with pytest.raises(ValueError, match="`k` must be 2 or more, got 1"):
        PatchShuffle(1)
    data = ImageDataModule(Shapes(train_count=20, test_count=20, size=8))
    PatchShuffle(8).check(data)
    with pytest.raises(ValueError, match=r"`k` must lie in \[2, 8\] for images of 8 x 8, got 9"):
        PatchShuffle(9).check(data)
    with pytest.raises(ValueError, match=r"`k` must lie in \[2, 3\]"):
        shuffle_patches(random_images(1, 3, 3, 9), torch.arange(16).unsqueeze(0))


@pytest.mark.parametrize(
    "function",
    [
        lambda images: saturate(images, 2),
        lambda images: low_pass(images, 2),
        lambda images: high_pass(images, 2),
        lambda images: shuffle_patches(images, torch.arange(4).unsqueeze(0)),
        greyscale,
        edges,
    ],
)
def test_what_are_no_images(function):
    images = random_images(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"`images` must lie in \[0, 1\], got \[.*, 2\]"):
        function(images + (images == images.max()) * (2 - images))
    with pytest.raises(ValueError, match=r"`images` must lie in \[0, 1\]"):
        function(images * torch.nan)
    with pytest.raises(ValueError, match=r"must be float \(N, C, H, W\), got torch.uint8"):
        function((images * 255).to(torch.uint8))
    with pytest.raises(ValueError, match=r"must be float \(N, C, H, W\), got .*\(3, 4, 4\)"):
        function(images[0])


def test_luma_needs_one_or_three_channels():
    with pytest.raises(ValueError, match="`images` must have 1 or 3 channels, got 2"):
        greyscale(random_images(1, 2, 4, 4))
