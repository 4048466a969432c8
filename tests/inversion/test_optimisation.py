"""Tests of inversion by optimisation: what it finds, and how it treats images and bad input."""

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import total_variation

from iscp_lightning.inversion.optimisation import invert_by_optimisation

SHAPE = (3, 6, 6)


def images_of(count: int) -> Tensor:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))
    images[0] = images[0].round()  # the ends of the range
    return images


def turned(images: Tensor) -> Tensor:
    """An invertible linear map: a rotation, three times as long."""
    values = images[0].numel()
    matrix = torch.randn(values, values, generator=torch.Generator().manual_seed(1)).double()
    return images.flatten(1) @ (3 * torch.linalg.qr(matrix)[0].float())


def halves(images: Tensor) -> Tensor:
    """Each image on its own, bit for bit, and half of its pixels are not asked for."""
    return (2 * images.flatten(1)[:, : images[0].numel() // 2]).sin()


def test_an_invertible_map_gives_the_image_back():
    images = images_of(5)
    found = invert_by_optimisation(turned, turned(images), SHAPE, smoothness=0)
    torch.testing.assert_close(found, images, atol=1e-4, rtol=0)
    assert not found.requires_grad


def test_images_end_where_the_range_does():
    wanted = torch.tensor([-1.0, 2.0]).repeat(1, 54)
    found = invert_by_optimisation(lambda images: images.flatten(1), wanted, SHAPE, smoothness=0)
    assert torch.equal(found.flatten(1), wanted.clamp(0, 1))


def test_smoothness_lowers_total_variation():
    wanted = turned(images_of(4))
    rough, smooth, smoother = (
        total_variation(
            invert_by_optimisation(turned, wanted, SHAPE, smoothness=weight), reduction="none"
        )
        for weight in (0, 1, 4)
    )
    assert (smooth < 0.9 * rough).all()
    assert (smoother < 0.9 * smooth).all()


def test_pixels_that_the_vector_does_not_depend_on_stay_grey_or_become_smooth():
    wanted = halves(images_of(3))
    rough, smooth = (
        invert_by_optimisation(halves, wanted, SHAPE, smoothness=weight).flatten(1)[:, 54:]
        for weight in (0, 1)
    )
    assert (rough - 0.5).abs().max() < 0.05
    assert torch.equal(rough, rough[:1].expand_as(rough))
    assert (smooth - rough).abs().max() > 0.02


def test_an_image_does_not_depend_on_the_others():
    wanted = halves(images_of(7))
    together = invert_by_optimisation(halves, wanted, SHAPE, steps=30)
    apart = invert_by_optimisation(halves, wanted[[4, 2]], SHAPE, steps=30)
    assert torch.equal(together[[4, 2]], apart)


def test_the_seed_is_all_that_is_random():
    wanted = halves(images_of(2))
    state = torch.get_rng_state()
    one, same, other = (
        invert_by_optimisation(halves, wanted, SHAPE, steps=3, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_get_no_gradient():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 4))
    with torch.no_grad():
        wanted = network(images_of(2))
        invert_by_optimisation(network, wanted, SHAPE, steps=2)
    assert all(weight.grad is None for weight in network.parameters())


def broken(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :4] * torch.tensor([[1.0], [torch.nan]])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "`steps` must be finite and 1 or more, got 0"),
        ({"step_size": 0.0}, "`step_size` must be finite and above 0, got 0.0"),
        ({"step_size": float("nan")}, "`step_size` must be finite and above 0, got nan"),
        ({"smoothness": -1.0}, "`smoothness` must be finite and 0 or more, got -1.0"),
        ({"vectors": torch.zeros(4)}, r"`vectors` must be \(N, D\) with an image, got \(4,\)"),
        ({"vectors": torch.zeros(0, 4)}, r"`vectors` must be \(N, D\) with an image, got \(0, 4\)"),
        (
            {"vectors": torch.tensor([[0.0] * 4, [torch.nan] * 4])},
            "`vectors` must be finite; for image 1 it is not",
        ),
        ({"vectors": torch.zeros(2, 5)}, r"`vectors_of` must return \(2, 5\), the shape of"),
        ({"vectors_of": broken}, "`vectors_of` must be finite; for image 1 it is not"),
    ],
)
def test_what_it_refuses(changed, message):
    given = {"vectors_of": lambda images: images.flatten(1)[:, :4], "vectors": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match=message):
        invert_by_optimisation(**{**given, "image_shape": SHAPE, **changed})
