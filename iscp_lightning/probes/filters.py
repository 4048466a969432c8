"""What distortions do to pixels: functions of float images (N, C, H, W) in [0, 1].

All return images of the same shape, dtype, device and range, and raise a ValueError for images of
another kind and for numbers out of range.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from iscp_lightning.seeds import derived_seed


def saturate(images: Tensor, p: float) -> Tensor:
    """Return images whose values v = 2x - 1 became sign(v) |v|^(2/p) (Zhang & Zhu 2019).

    Args:
        images: float (N, C, H, W) in [0, 1].
        p: Above 0. 2 changes nothing, up to rounding; the larger, the closer all values are to 0
            and 1; below 2 they go to grey.
    """
    require_images(images)
    require_positive("p", p)
    values = 2 * images - 1
    return (values.sign() * values.abs() ** (2 / p) / 2 + 0.5).clamp_(0, 1)


def shuffle_patches(images: Tensor, permutations: Tensor) -> Tensor:
    """Return images whose k x k equal tiles have changed places (Zhang & Zhu 2019).

    Where k does not divide a side, the tiles share the largest centred area that it divides; the
    border around stays as it is.

    Args:
        images: float (N, C, H, W) in [0, 1].
        permutations: int64 (N, k*k), which tile comes to each place, both row after row.
    """
    require_images(images)
    k = math.isqrt(permutations.shape[1])
    require_tiles(k, (images.shape[2], images.shape[3]))
    count, _, rows, columns = images.shape
    height, width = rows // k, columns // k
    top, left = rows % k // 2, columns % k // 2
    area = (slice(top, top + k * height), slice(left, left + k * width))
    places = torch.arange(rows * columns, device=images.device).view(rows, columns)
    tiles = places[area].reshape(k, height, k, width).transpose(1, 2).reshape(k * k, height, width)
    moved = tiles[permutations].view(count, k, k, height, width).transpose(2, 3)
    sources = places.repeat(count, 1, 1)  # which pixel comes to each place
    sources[:, *area] = moved.reshape(count, k * height, k * width)
    sources = sources.view(count, 1, -1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, sources).view_as(images)


def draw_permutations(seed: int, indices: Tensor, k: int) -> Tensor:
    """Return a permutation of k*k tiles for each image, int64 (n, k*k) on the CPU.

    Each is drawn from all but the identity, with equal chances, and depends on nothing but the
    arguments and its image.

    Args:
        seed: Root seed.
        indices: (n,) int64, which images.
        k: Tiles a side, 2 or more.
    """
    generator, identity, drawn = Generator(), list(range(k * k)), []
    for index in indices.tolist():
        generator.manual_seed(derived_seed(seed, "patch shuffle", k, index))
        permutation = identity
        while permutation == identity:
            permutation = torch.randperm(k * k, generator=generator).tolist()
        drawn.append(permutation)
    return torch.tensor(drawn, dtype=torch.int64).view(-1, k * k)


def low_pass(images: Tensor, radius: float) -> Tensor:
    """Return images without the frequencies outside a disc, clamped to [0, 1].

    Args:
        images: float (N, C, H, W) in [0, 1].
        radius: Of the disc in the centred spectrum, in cycles per image, above 0.
    """
    require_images(images)
    require_positive("radius", radius)
    return _keep(images, _frequencies(images) <= radius)


def high_pass(images: Tensor, radius: float) -> Tensor:
    """Return images without the frequencies in a disc but their mean, clamped to [0, 1].

    Args:
        images: float (N, C, H, W) in [0, 1].
        radius: Of the disc in the centred spectrum, in cycles per image, above 0.
    """
    require_images(images)
    require_positive("radius", radius)
    frequencies = _frequencies(images)
    return _keep(images, (frequencies > radius) | (frequencies == 0))


def greyscale(images: Tensor) -> Tensor:
    """Return the luma of ITU-R BT.601 on all channels; grey images stay exactly as they are."""
    return luma(images).expand_as(images).contiguous()


def edges(images: Tensor) -> Tensor:
    """Return the edges of the luma, dark on white, on all channels.

    They are the magnitude of the Sobel gradient, as a share of the image's largest: that is black.
    An image without edges is white. Outside an image, its outermost pixels go on.
    """
    padded = F.pad(luma(images), (1, 1, 1, 1), mode="replicate")
    # differences first: those of equal values are exactly 0
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    magnitude = torch.hypot(across, down)
    largest = magnitude.amax((2, 3), keepdim=True).clamp_(min=torch.finfo(images.dtype).tiny)
    return (1 - magnitude / largest).expand_as(images).contiguous()


def luma(images: Tensor) -> Tensor:
    """Return 0.299 red + 0.587 green + 0.114 blue, (N, 1, H, W); one channel stays.

    Raises:
        ValueError: if there are neither one nor three channels.
    """
    require_images(images)
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(f"`images` must have 1 or 3 channels, got {images.shape[1]}")
    red, green, blue = images.split(1, 1)
    mixed: Tensor = red + 0.587 * (green - red) + 0.114 * (blue - red)
    return mixed.clamp_(0, 1)


def require_images(images: Tensor) -> None:
    """Raise a ValueError unless the images are float (N, C, H, W) in [0, 1]."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"`images` must be float (N, C, H, W), got {images.dtype} of {tuple(images.shape)}"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(
            f"`images` must lie in [0, 1], got [{images.min().item():g}, {images.max().item():g}]"
        )


def require_positive(name: str, value: float) -> None:
    """Raise a ValueError unless the value is above 0 and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be above 0 and finite, got {value}")


def require_tiles(k: int, size: tuple[int, int]) -> None:
    """Raise a ValueError unless images of (height, width) have k x k tiles to shuffle."""
    if not 2 <= k <= min(size):
        raise ValueError(
            f"`k` must lie in [2, {min(size)}] for images of {size[0]} x {size[1]}, got {k}"
        )


def _frequencies(images: Tensor) -> Tensor:
    """Return the cycles per image of each term of a real spectrum, (H, W // 2 + 1)."""
    height, width = images.shape[2:]
    down = torch.fft.fftfreq(height, 1 / height, device=images.device)
    across = torch.fft.rfftfreq(width, 1 / width, device=images.device)
    return torch.hypot(down.unsqueeze(1), across)


def _keep(images: Tensor, kept: Tensor) -> Tensor:
    """Return images with the kept terms of their spectra alone, clamped to [0, 1]."""
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * kept, s=images.shape[2:])
    return filtered.clamp_(0, 1)
