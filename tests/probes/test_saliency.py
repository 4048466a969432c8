"""Saliency maps of networks whose gradients are known by hand."""

import pytest
import torch
from torch import nn
from toys import Linear, subject_of

from iscp_lightning.classifiers import classifier_hash, create_classifier
from iscp_lightning.data import MemoryImages
from iscp_lightning.probes.saliency import displayed, randomised, require_map, saliency_maps

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 3, 8, 8, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 0, 1])
WEIGHTS = torch.randn(3, 8, 8, generator=GENERATOR)
STORED = MemoryImages(IMAGES, LABELS)


class Squares(nn.Module):
    """Logits: the sum of the squares, weighed by one map of each class."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Parameter(WEIGHTS.clone())

    def forward(self, images):
        return torch.einsum("nchw,khw->nk", images**2, self.maps)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    network = create_classifier("resnet20", 3, 8)
    with torch.no_grad():
        network.train()(IMAGES)
    return subject_of(network.eval(), STORED)


@pytest.mark.parametrize("method", ["gradient", "smoothgrad"])
@pytest.mark.parametrize("inference", [False, True])
def test_the_map_of_a_linear_logit_is_its_weights_with_noise_too(method, inference):
    subject = subject_of(Linear(WEIGHTS), STORED)
    with torch.inference_mode(inference):
        images = IMAGES.clone()
        maps = saliency_maps(subject, images, LABELS, method, samples=3, noise=0.5, of="logit")
    torch.testing.assert_close(maps, 3 * WEIGHTS[LABELS].abs())
    assert not maps.requires_grad
    assert not maps.is_inference()


def test_the_gradient_of_the_loss_by_hand():
    network = Linear(WEIGHTS, scale=0.1)
    maps = saliency_maps(subject_of(network, STORED), IMAGES, LABELS, "gradient")
    excess = network(IMAGES).softmax(1) - nn.functional.one_hot(LABELS, 3)
    expected = 3 * torch.einsum("nk,khw->nhw", excess, 0.1 * WEIGHTS).abs()
    torch.testing.assert_close(maps, expected.detach())


def test_methods_of_captum_by_name():
    """Of a sum of squares from a black image on, the integrated gradients are its terms."""
    subject = subject_of(Squares(), STORED)
    terms = ((IMAGES**2).sum(1) * WEIGHTS[LABELS]).abs()
    for method, factor in (("IntegratedGradients", 1), ("InputXGradient", 2)):
        maps = saliency_maps(subject, IMAGES, LABELS, method, of="logit")
        torch.testing.assert_close(maps, factor * terms, rtol=1e-4, atol=1e-5)


def test_signs_go_after_the_mean():
    """Noise far above the values flips the signs of the gradients, whose mean stays."""
    subject = subject_of(Squares(), MemoryImages(IMAGES[:2], LABELS[:2]))
    images = IMAGES[:1].clamp(0.4, 0.6)
    maps = saliency_maps(subject, images, LABELS[:1], samples=4000, noise=10.0, of="logit")
    share = float((maps / (2 * images.sum(1) * WEIGHTS[:1].abs())).mean())
    # 4000 gradients with noise of a standard deviation of 2 per channel around 0.5
    assert share == pytest.approx(1, abs=0.05)


def test_the_noise_is_a_share_of_each_images_range():
    """Squared deviations from the noise-free gradient, 2 w x, are 4 w^2 variance / samples."""
    images = torch.cat([IMAGES[:1], 0.5 + 0.1 * IMAGES[:1]])
    subject = subject_of(Squares(), STORED)
    free, noisy = (
        saliency_maps(subject, images, LABELS[[0, 0]], samples=10, noise=noise, of="logit")
        for noise in (0.0, 0.2)
    )
    off = ((noisy - free) / (2 * WEIGHTS[0].abs())).square().mean((1, 2))
    ranges = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
    expected = 3 * (0.2 * ranges) ** 2 / 10  # of a sum over three channels
    torch.testing.assert_close(off, expected, rtol=0.5, atol=0)


def test_a_map_does_not_depend_on_other_images_nor_on_the_global_generator(resnet):
    indices = torch.tensor([7, 3, 9, 1, 4])
    whole = saliency_maps(resnet, IMAGES, LABELS, samples=4, indices=indices)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for rows in ([4, 0], [2]):
        some = saliency_maps(resnet, IMAGES[rows], LABELS[rows], samples=4, indices=indices[rows])
        assert torch.equal(some, whole[rows])
    assert torch.equal(torch.get_rng_state(), before)
    other = saliency_maps(resnet, IMAGES, LABELS, samples=4, indices=indices + 1)
    assert not any(torch.allclose(a, b) for a, b in zip(other, whole, strict=True))


def test_samples_go_through_in_passes(resnet, monkeypatch):
    """3 of 4 samples, then the last one: as many draws, in the same order."""
    network = subject_of(Linear(WEIGHTS), STORED)
    monkeypatch.setattr("iscp_lightning.probes.saliency.AT_ONCE", 3)
    sizes = []
    network.fast().register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    saliency_maps(network, IMAGES[:2], LABELS[:2], samples=4)
    assert sizes[1:] == [3, 1, 3, 1]  # the first one compares it with the classifier
    sizes.clear()
    saliency_maps(network, IMAGES, LABELS, "gradient")
    assert sizes[1:] == [3, 2]


def test_a_fast_copy_that_differs_is_not_asked():
    subject = subject_of(Linear(WEIGHTS), STORED)
    subject.fast().network = Linear(2 * WEIGHTS)
    maps = saliency_maps(subject, IMAGES, LABELS, "gradient", of="logit")
    torch.testing.assert_close(maps, 3 * WEIGHTS[LABELS].abs())


def test_the_classifier_is_left_as_it_is(resnet):
    before = [classifier_hash(each) for each in (resnet.classifier, resnet.frozen)]
    saliency_maps(resnet, IMAGES, LABELS, samples=2)
    assert [classifier_hash(each) for each in (resnet.classifier, resnet.frozen)] == before
    for network in (resnet.classifier, resnet.frozen, resnet.fast()):
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not any(part._forward_hooks or part._backward_hooks for part in network.modules())
    assert all(parameter.requires_grad for parameter in resnet.classifier.parameters())


def test_what_is_refused():
    subject = subject_of(Linear(WEIGHTS), STORED)
    for line, changed in (
        ("`method` must be one of smoothgrad, .*, got 'Saliency'", {"method": "Saliency"}),
        ("`of` must be one of loss, logit, got 'entropy'", {"of": "entropy"}),
        ("`samples` must be 1 or more .* got 0 and 0.1", {"samples": 0}),
        ("`noise` 0 or more, got 100 and -1", {"noise": -1}),
        (r"`images` must be floats in \[0, 1\], got torch.float32 from 0", {"images": 2 * IMAGES}),
        ("`images` .* got torch.uint8 from", {"images": STORED.images}),
    ):
        with pytest.raises(ValueError, match=line):
            saliency_maps(**{"subject": subject, "images": IMAGES, "labels": LABELS, **changed})
    assert saliency_maps(subject, IMAGES[:0], LABELS[:0]).shape == (0, 8, 8)


def test_a_map_that_is_not_finite_is_named():
    class Roots(Squares):
        def forward(self, images):
            return super().forward(images**0.25)

    images = IMAGES.clamp(min=0.1)
    images[2, 0, 0, 0] = 0
    with pytest.raises(ValueError, match="not finite, first image 2 of class 2: the classifier's"):
        saliency_maps(subject_of(Roots(), STORED), images, LABELS, "gradient")
    require_map(subject_of(Roots(), MemoryImages(images[:2], LABELS[:2])), "gradient")
    with pytest.raises(ValueError, match="not finite, first image 0"):
        require_map(subject_of(Roots(), MemoryImages(images[2:], LABELS[2:])), "gradient")


def test_displayed_maps_by_hand():
    maps = torch.zeros(3, 10, 10)
    maps[0] = torch.arange(100.0).view(10, 10)
    maps[1, 0, 0] = 5
    shown = displayed(maps)
    scale = torch.arange(100.0).quantile(0.99)
    torch.testing.assert_close(shown[0].flatten(), (torch.arange(100) / scale).clamp(max=1))
    assert shown[1].flatten().tolist() == [1.0] + [0.0] * 99
    assert not shown[2].any()


def test_new_random_weights(resnet):
    before, state = classifier_hash(resnet.classifier), torch.get_rng_state()
    one, same, other = (randomised(resnet.classifier, seed) for seed in (1, 1, 2))
    assert classifier_hash(resnet.classifier) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert classifier_hash(one) == classifier_hash(same)
    for a, b, c in zip(
        *(network.parameters() for network in (one, other, resnet.classifier)), strict=True
    ):
        if a.ndim > 1:  # biases and scales of batch normalisation start at 0 and 1
            assert not torch.equal(a, b)
            assert not torch.equal(a, c)
    attention = nn.MultiheadAttention(4, 2)
    for a, b in zip(attention.parameters(), randomised(attention, 3).parameters(), strict=True):
        assert a.ndim == 1 or not torch.equal(a, b)
    with pytest.raises(ValueError, match="`classifier` is a Linear without a part"):
        randomised(Linear(WEIGHTS), 0)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 3], [0, 1, -100, 0, 1], [0, 1]])
def test_labels_that_are_no_classes_are_refused(labels):
    subject = subject_of(Linear(WEIGHTS), STORED)
    with pytest.raises(ValueError, match="`labels` must be 5 classes from 0 to 2"):
        saliency_maps(subject, IMAGES, torch.tensor(labels))


@pytest.mark.parametrize("noise", [-1.0, torch.nan, torch.inf])
def test_noise_out_of_range_is_refused(noise):
    subject = subject_of(Linear(WEIGHTS), STORED)
    with pytest.raises(ValueError, match="`noise` 0 or more"):
        saliency_maps(subject, IMAGES, LABELS, noise=noise)
