"""The hard loss of patterns: the cross-entropy for their class when they are pasted on D_n.

    python docs/claims/hard_loss.py SEARCH NETWORK [--images FOLDER] --run NAME

SEARCH is the run folder of a search, NETWORK the weights file of the network that it searched, or
its run folder; the images are those of `Shapes`, or of a folder. runs/NAME/results.json gets one
record for each class and canvas.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from iscp_lightning import PatternSet, load_classifier
from iscp_lightning.data import ImageFolder, Shapes
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns.pasting import pasted_loss
from iscp_lightning.patterns.stored import load_patterns

SIZE = 0.05


@torch.inference_mode()
def hard_loss(
    network: nn.Module, patterns: PatternSet, row: int, images: Tensor, labels: Tensor
) -> float:
    """Return the mean cross-entropy of one pattern on the images that its search has mixed it with.

    Args:
        network: From images to logits.
        patterns: All patterns of a search.
        row: Which of them.
        images: uint8 (N, C, H, W), the test set.
        labels: (N,) int64.
    """
    target, at = patterns.targets[row], torch.tensor([row])
    seen = patterns.search_indices
    seen = seen[(labels[seen] != target) & (seen != patterns.canvas_indices[row])]
    losses = pasted_loss(
        network, patterns.stamps([SIZE]), at, patterns.targets[at], to_float(images[seen])
    )
    return float(losses.mean())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--images", help="a folder of images instead of Shapes")
    parser.add_argument("--run", required=True)
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args()
    place = given.network
    weights = place / "checkpoints" / "last.ckpt" if place.is_dir() else place
    network = load_classifier(str(weights)).eval()
    source = ImageFolder(given.images) if given.images else Shapes()
    source.prepare()
    test = source.test()
    patterns = load_patterns(str(given.search), test, source.class_names)
    images = test.read(torch.arange(len(test)))
    records = [
        {
            "measure": "hard_loss",
            "value": hard_loss(network, patterns, row, images, test.labels),
            "class": patterns.class_names[target],
            "pattern_size": SIZE,
        }
        for target in patterns.targets.unique().tolist()
        for row in (patterns.targets == target).nonzero().flatten().tolist()
    ]
    folder = Path("runs") / given.run
    folder.mkdir(parents=True, exist_ok=given.overwrite)
    (folder / "results.json").write_text(json.dumps({"records": records}, indent=1))


if __name__ == "__main__":
    main()
