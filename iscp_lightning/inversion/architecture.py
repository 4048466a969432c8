"""Architecture: how large generator and discriminator are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COARSEST = 4  # pixels a side of the generator's first map
STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {  # by side; BigGAN's, D's at 32 not
    32: ((4, 4, 4, 4), (4, 4, 4, 4)),
    64: ((16, 16, 8, 4, 2), (1, 2, 4, 8, 16)),
    128: ((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)),
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of generator and discriminator, by default those of BigGAN (Brock et al. 2019).

    For 32 x 32 the discriminator halves its maps once more than BigGAN's for CIFAR-10.

    Stages are multiples of the width: the generator's are the channels of its maps from 4 x 4 on,
    each of twice the side of the one before; the discriminator's go the other way.

    Attributes:
        width: Channels that stages are multiples of.
        generator_stages: As many as lead from 4 to the side of the images; none is BigGAN's for
            images of 32, 64 or 128 pixels.
        discriminator_stages: As many; likewise.
        embedding_size: Into how many numbers the generator maps what it is conditioned on.
        noise_per_stage: Of the generator's noise, how many numbers every stage gets.
        attention: Side of the maps that both look at themselves with (self-attention); None: none.

    Raises:
        ValueError: if a number is out of range.
    """

    width: int = 64
    generator_stages: Sequence[int] = ()
    discriminator_stages: Sequence[int] = ()
    embedding_size: int = 128
    noise_per_stage: int = 20
    attention: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "embedding_size", "noise_per_stage"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more, got {getattr(self, name)}")

    def stages(self, image_size: int | tuple[int, int]) -> tuple[list[int], list[int]]:
        """Return the channels of the generator's and the discriminator's stages for images.

        Args:
            image_size: (height, width) of the images, or both.

        Raises:
            ValueError: if the images are not square with a side of 16, 32, 64, ... or the stages do
                not lead to it.
        """
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        side = size[0]
        if size[0] != size[1] or side < 4 * COARSEST or side & (side - 1):
            raise ValueError(
                f"images must be square with a side of 16, 32, 64, ... pixels to be "
                f"generated, got {size[0]} x {size[1]}: `data.source` resizes with `image_size`"
            )
        length = (side // COARSEST).bit_length()
        sides = [side >> halved for halved in range(1, length - 1)]
        if self.attention is not None and self.attention not in sides:
            raise ValueError(
                f"`attention` must be a side of maps between {2 * COARSEST} and {side // 2}, a "
                f"power of 2, got {self.attention}"
            )
        found = []
        for name, usual in zip(
            ("generator_stages", "discriminator_stages"),
            STAGES.get(side, ((), ())),
            strict=True,
        ):
            stages = getattr(self, name) or usual
            if not stages:
                raise ValueError(
                    f"`{name}` must be given for images of {side} pixels: {length} numbers"
                )
            if len(stages) != length or min(stages) < 1:
                raise ValueError(
                    f"`{name}` must be {length} numbers of 1 or more, which lead from {COARSEST} "
                    f"to {side} pixels, got {list(stages)}"
                )
            found.append([self.width * stage for stage in stages])
        return found[0], found[1]
