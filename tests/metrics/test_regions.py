import pytest
import torch

from iscp_lightning.metrics import corner_region, edge_region, share_within


def test_share_within_one_or_many_regions():
    selected = torch.zeros(3, 4, 4, dtype=torch.bool)
    selected[0, :, 0] = True
    selected[1, 0] = True
    top = torch.zeros(4, 4, dtype=torch.bool)
    top[:2] = True
    assert share_within(selected, top)[:2].tolist() == [0.5, 1.0]
    assert share_within(selected, top)[2].isnan()
    each = torch.stack([~top, ~top, top])
    assert share_within(selected, each)[:2].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("shape", [(8, 8), (8, 12), (9, 11)])
def test_corners_are_squares_of_a_quarter_of_the_side(shape):
    corners = corner_region(shape)
    assert corners.shape == shape
    assert corners.sum() == 4 * 2 * 2
    assert corners[0, 0]
    assert corners[-2, -2]
    assert not corners[2, 0]
    assert torch.equal(corners, corners.flip(0, 1))


def bars(*columns: int) -> torch.Tensor:
    """Grey images with a bright half from a column on."""
    images = torch.full((len(columns), 3, 6, 8), 40, dtype=torch.uint8)
    for image, column in zip(images, columns, strict=True):
        image[..., column:] = 200
    return images


def test_edges_are_where_the_brightness_changes():
    edges = edge_region(bars(4, 2), 12)
    expected = torch.zeros(2, 6, 8, dtype=torch.bool)
    expected[0, :, 3:5] = True
    expected[1, :, 1:3] = True
    assert torch.equal(edges, expected)  # and so the frame is none


def test_the_strongest_edges_go_first():
    image = bars(4)
    image[..., 6:] = 250  # a weaker one
    edges = edge_region(image, 12)
    assert edges[0].nonzero()[:, 1].unique().tolist() == [3, 4]
    assert edge_region(image, 13).sum() == 13


def test_one_channel_is_enough_for_an_edge():
    image = bars(4)
    image[:, 1:] = 40
    assert torch.equal(edge_region(image, 12), edge_region(bars(4), 12))


def test_an_even_image_has_no_edges():
    even = torch.full((1, 3, 6, 6), 255, dtype=torch.uint8)
    assert not edge_region(even, 5).any()
    assert edge_region(bars(4), 40).sum() == 12
