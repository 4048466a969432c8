"""Tests of what is known of drawn test images: masks and factors."""

import torch

from iscp_lightning.data import MNIST, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.drawing import SHAPES, TEXTURES
from iscp_lightning.data.objects import factors_of, objects_of
from iscp_lightning.data.shapes import draw_shapes, shape_factors, shape_masks


def test_masks_and_factors_are_those_of_the_test_images():
    data = ImageDataModule(Shapes(20, 30, 16, seed=2, labels="shape_texture"))
    assert torch.equal(data.test_images.pixels(range(30)), draw_shapes(30, size=16, seed=7).images)
    assert torch.equal(objects_of(data), shape_masks(30, size=16, seed=7))
    factors = factors_of(data)
    for found, drawn in zip(factors, shape_factors(30, size=16, seed=7), strict=True):
        assert torch.equal(found[~found.isnan()], drawn[~found.isnan()])
    shapes, textures = data.test_images.labels // 10, data.test_images.labels % 10
    discs = torch.isin(shapes, torch.tensor([SHAPES.index("circle"), SHAPES.index("ring")]))
    assert torch.equal(factors.rotation.isnan(), discs)
    assert torch.equal(factors.second.isnan().all(1), textures == TEXTURES.index("plain"))


def test_circles_lie_where_the_factors_say():
    data = ImageDataModule(Shapes(20, 100, seed=1))
    circles = data.test_images.labels == SHAPES.index("circle")
    masks, factors = objects_of(data)[circles].double(), factors_of(data)
    place = torch.arange(32).double()
    count = masks.sum((1, 2))
    for across, centre in ((masks.sum(1), factors.x), (masks.sum(2), factors.y)):
        mean = (across * place).sum(1) / count
        torch.testing.assert_close(mean, centre[circles].double(), atol=0.3, rtol=0)
    area = torch.pi * factors.radius[circles].double() ** 2
    torch.testing.assert_close(count, area, atol=0, rtol=0.05)


def test_other_sources_do_not_know():
    assert objects_of(ImageDataModule(MNIST())) is None
    assert factors_of(ImageDataModule(MNIST())) is None
