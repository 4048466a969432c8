"""Robust and non-robust data sets (Ilyas et al. 2019, section 3): D_R and D_NR.

Each training image is replaced by one that started as another, randomly chosen image and was
moved until a classifier's penultimate features say what they say of the original. Whatever the
classifier does not use is left behind: a robust classifier makes D_R, a standard one D_NR.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import ascend, project
from iscp_lightning.classifiers.features import features_of
from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.data.images import ImageSet, to_float
from iscp_lightning.runs import atomic_path, write_json
from iscp_lightning.seeds import named_generator


@dataclass(frozen=True)
class RobustDataSettings:
    """Settings of the features' inversion; the defaults are Ilyas et al.'s.

    Attributes:
        steps: Steps of gradient descent per image.
        step_size: L2 length of each step, in pixel units of [0, 1].
        epsilon: Radius of the L2 ball around the starting image, or None for no ball.
        batch_size: Images made together, and kept in one file.
        seed: Root seed of which image each one starts from; None is the data module's, else 0.

    Raises:
        ValueError: if a number is out of range.
    """

    steps: int = 1000
    step_size: Epsilon | float = 0.1
    epsilon: Epsilon | float | None = None
    batch_size: int = 250
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more, got {getattr(self, name)}")
        for name in ("step_size", "epsilon"):
            value = getattr(self, name)
            if value is not None and Epsilon(value) <= 0:
                raise ValueError(f"`{name}` must be above 0, got {value}")
            object.__setattr__(self, name, value if value is None else float(Epsilon(value)))


class RobustDataBuilder:
    """Makes the images of one data set chunk by chunk, each in a file of its own.

    A chunk depends on classifier, images and settings alone, so that chunks can be made in any
    order, by any process, and an interrupted build goes on where it stopped. No process ever holds
    more than one of them.

    Args:
        classifier: Frozen, on the device to compute on.
        images: The clean set.
        indices: (n,) which of its images to replace.
        settings: How.
        folder: Where chunks and the finished set `train.safetensors` are written.
        facts: Provenance; a folder begun with other facts or settings is refused.

    Raises:
        ValueError: if the folder holds chunks of another build.
    """

    def __init__(
        self,
        classifier: nn.Module,
        images: ImageSet,
        indices: Tensor,
        settings: RobustDataSettings,
        folder: Path,
        **facts: Any,  # noqa: ANN401
    ) -> None:
        self.classifier = classifier
        self.images = images
        self.indices = indices
        self.settings = settings
        self.folder = folder
        some = images.pixels(indices[:: max(1, len(indices) // 16)])
        content = [indices.numpy(), images.labels[indices].numpy(), some.numpy()]
        origin = hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()
        self.facts = facts | {
            "settings": asdict(settings),
            "images": len(indices),
            "origin": origin,
        }
        generator = named_generator(settings.seed or 0, "starting images")
        shift = torch.randint(1, max(2, len(indices)), (1,), generator=generator)
        order = torch.randperm(len(indices), generator=generator)
        starts = torch.empty_like(order)
        starts[order] = order.roll(int(shift))  # one cycle: nobody starts from himself
        self.starts = indices[starts]
        self.path = folder / "train.safetensors"
        self.chunks = torch.arange(len(indices)).split(settings.batch_size)

    def make(self, chunk: int, device: torch.device) -> None:
        """Write one chunk, unless it or the finished set is there.

        Args:
            chunk: Which one.
            device: The classifier's.
        """
        path = self._path(chunk)
        if not path.exists() and not self.path.exists():
            pixels = self.compute(chunk, device)
            with atomic_path(path) as temporary:
                save_file({"images": pixels}, temporary)

    def compute(self, chunk: int, device: torch.device) -> Tensor:
        """Return one chunk, uint8 (n, C, H, W) on the CPU."""
        rows = self.chunks[chunk]
        with torch.inference_mode(False):
            originals = to_float(self.images.pixels(self.indices[rows])).to(device)
            starts = to_float(self.images.pixels(self.starts[rows])).to(device)
            made = match_features(self.classifier, originals, starts, self.settings)
        return (made * 255).round().to(torch.uint8).cpu()

    def begin(self) -> None:
        """Write what is built, or check that the folder's chunks are of this build."""
        described = self.folder / "build.json"
        if self.path.exists() and not described.exists():
            raise ValueError(f"{self.path} was not built here: give another `folder`")
        if described.exists():
            found = json.loads(described.read_text())
            if found != json.loads(json.dumps(self.facts)):
                raise ValueError(
                    f"{self.folder} holds another build ({found}): give another `folder`"
                )
        write_json(described, self.facts)

    def finish(self) -> None:
        """Join all chunks into `train.safetensors`: images uint8 (n, C, H, W) and labels (n,).

        Meanwhile the folder takes three times the set's size on the disk. Missing chunks leave a
        warning and no set.
        """
        files = [self._path(chunk) for chunk in range(len(self.chunks))]
        missing = sum(not file.exists() for file in files)
        if missing and not self.path.exists():
            text = f"{missing} of {len(files)} chunks are left to build in {self.folder}"
            warnings.warn(text, stacklevel=2)
        if missing:
            return
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".joined.") as joined:
            for file in files:
                joined.write(load_file(file)["images"].numpy().data)
            joined.flush()
            images = torch.from_file(
                joined.name, shared=True, size=joined.tell(), dtype=torch.uint8
            ).view(len(self.indices), *self.images.pixels([0]).shape[1:])
            with atomic_path(self.path) as temporary:
                save_file({"images": images, "labels": self.images.labels[self.indices]}, temporary)
        shutil.rmtree(self._path(0).parent)

    def _path(self, chunk: int) -> Path:
        return self.folder / "chunks" / f"{chunk:06d}.safetensors"


@full_fp32()
def match_features(
    classifier: nn.Module, originals: Tensor, starts: Tensor, settings: RobustDataSettings
) -> Tensor:
    """Return images whose features are near the originals', float (N, C, H, W) in [0, 1].

    Minimises ||g(x) - g(x_o)||_2 over x from `starts` by normalised gradient steps, Eq. (6) of
    Ilyas et al. 2019, g the penultimate features.

    Args:
        classifier: Frozen, with a final `nn.Linear`.
        originals: float (N, C, H, W) in [0, 1], x_o.
        starts: Likewise, where x starts.
        settings: Steps, step size and ball.
    """
    with features_of(classifier) as features:
        with torch.no_grad():
            wanted, _ = features(originals)
        images = starts
        for _ in range(settings.steps):
            images = images.detach().requires_grad_()
            with torch.enable_grad():
                distance = (features(images)[0] - wanted).norm(dim=1).sum()
                (gradient,) = torch.autograd.grad(distance, images)
            moved = ascend(images.detach(), -gradient, settings.step_size, "l2")
            images = project(moved, starts, settings.epsilon, "l2")
    return images
