"""Tests of stAdv: flows and their roughness by hand, and what the attack keeps to."""

import pytest
import torch
from toys import Linear

from iscp_lightning.attacks.spatial import StAdv, limited, moved, roughness
from iscp_lightning.data import Shapes
from iscp_lightning.data.images import to_float


def constant(right: float, down: float, size: int = 5) -> torch.Tensor:
    return torch.tensor([float(right), float(down)]).view(1, 2, 1, 1).expand(1, 2, size, size)


def test_pixels_are_read_from_where_the_flow_points():
    images = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved(images, constant(0, 0)), images)
    right, down = moved(images, constant(1, 0)), moved(images, constant(0, -2))
    torch.testing.assert_close(right[..., :-1], images[..., 1:])
    torch.testing.assert_close(right[..., -1], images[..., -1])  # the border goes on
    torch.testing.assert_close(down[:, :, 2:], images[:, :, :-2])
    half = moved(images, constant(0.5, 0))
    torch.testing.assert_close(half[..., :-1], (images[..., 1:] + images[..., :-1]) / 2)


def test_a_flow_is_shortened_without_turning():
    flow = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]).T.view(1, 2, 1, 3)
    short = limited(flow, 1.0)[0, :, 0].T
    torch.testing.assert_close(short, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_roughness_counts_each_pixel_and_each_neighbour():
    assert roughness(constant(3, 4)).item() == pytest.approx(0, abs=0.01)
    flow = torch.zeros(1, 2, 3, 3)
    flow[0, :, 1, 1] = torch.tensor([3.0, 4.0])  # 5 from each of four neighbours, and back
    assert roughness(flow).item() == pytest.approx(40, abs=0.01)


def test_a_bright_stripe_is_moved_to_where_it_counts():
    columns = torch.arange(9.0)
    model = Linear(torch.stack([torch.zeros(9, 9), (columns - 4).expand(9, 9)]))
    image = (-(columns - 4).square() / 8).exp().expand(2, 1, 9, 9).clone()
    labels = torch.tensor([0, 1])  # away from 0 is to the right
    found = StAdv(max_flow=1, smoothness=0)(model, image, labels)
    one_further = image[0, 0, 0, 1:7]
    torch.testing.assert_close(found[0, 0, :, 2:4], one_further[:2].expand(9, 2))
    torch.testing.assert_close(found[0, 0, :, 5:8], one_further[3:].expand(9, 3))
    torch.testing.assert_close(found[1], found[0].flip(2))
    still = StAdv(max_flow=0)(model, image, labels)
    torch.testing.assert_close(still, image)


def test_it_fools_a_network_that_random_flows_do_not(trained):
    test = Shapes(40, 40).test()
    images, labels = to_float(test.pixels(range(40))), test.labels

    def right(given: torch.Tensor) -> float:
        with torch.no_grad():
            return float((trained(given).argmax(1) == labels).double().mean())

    flows = {
        smoothness: StAdv(smoothness=smoothness, steps=10).flow(trained, images, labels)
        for smoothness in (0.0, 0.0005)
    }
    for flow in flows.values():
        assert torch.linalg.vector_norm(flow, dim=1).max() <= 1 + 1e-5
        noise = torch.randn(flow.shape, generator=torch.Generator().manual_seed(0))
        noise *= (flow.square().sum() / noise.square().sum()).sqrt()
        assert right(moved(images, flow)) < 0.7 < 0.85 < right(moved(images, noise))
    assert roughness(flows[0.0005]).mean() < 0.7 * roughness(flows[0.0]).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_flow": -1}, "`max_flow` must be finite and 0 or more, got -1"),
        ({"smoothness": float("nan")}, "`smoothness` must be finite and 0 or more, got nan"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be finite and 0 or more, got inf"),
        ({"steps": 0}, "`steps` must be finite and 1 or more, got 0"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        StAdv(**arguments)
