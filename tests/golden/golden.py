"""What the code finds, in small: numbers that no change of structure may move.

    python tests/golden/golden.py      stores them anew, after a change that is meant to move them

They are bit-equal where torch and the CPU are those that they were stored with. Another CPU sums in
another order, so that a few signs differ, along which a search makes its last steps.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from iscp_lightning import PatternSet, SearchSettings, Shapes, load_classifier, search_patterns
from iscp_lightning.attacks import PGD
from iscp_lightning.attacks.robust_data import RobustDataSettings, match_features
from iscp_lightning.cli import main
from iscp_lightning.data import Poison, Trigger
from iscp_lightning.data.images import to_float

FOLDER = Path(__file__).parent
FILE = FOLDER / "golden.safetensors"
CHECKPOINT = FOLDER.parents[1] / "checkpoints" / "shapes_resnet20.safetensors"
SMALL = "--data.source=Shapes --data.source.init_args.train_count=60 --data.batch_size=20"
SMALL += " --data.source.init_args.test_count=100 --trainer.accelerator=cpu --run=r"
SIZES = (0.01, 0.05, 0.1)


def environment() -> dict[str, str]:
    known = torch.cpu.get_capabilities()
    instructions = sorted(name for name, has in known.items() if has is True)
    return {"torch": torch.__version__, "cpu": " ".join([known["cpu_name"], *instructions])}


def of_patterns(patterns: PatternSet) -> dict[str, Tensor]:
    names = ("targets", "canvas_indices", "masks", "mask_means", "objectives", "search_indices")
    return {name: getattr(patterns, name) for name in names}


def searches() -> dict[str, Tensor]:
    classifier = load_classifier(str(CHECKPOINT))
    images = Shapes(test_count=100).test()
    found = {}
    for kind, sparsity in (("positive", 0.2), ("random", 8.0), ("white", 0.2)):
        settings = SearchSettings(
            canvas=kind, sparsity=sparsity, search_epochs=2, canvases_per_class=2, seed=1
        )
        patterns = search_patterns(
            classifier, images, settings=settings, classes=[0, 3, 7], progress=False
        )
        power = patterns.predictive_power(classifier, images, pattern_sizes=SIZES)
        found |= {f"{kind}.{name}": tensor for name, tensor in of_patterns(patterns).items()}
        found[f"{kind}.predictive_power"] = power.predictive_power
        found[f"{kind}.clean_accuracy"] = power.clean_accuracy
    return found


def commands() -> dict[str, Tensor]:
    """What `search` and a training with a snapshot leave; run in an empty folder."""
    short = "--model.search.search_epochs=1 --model.search.canvases_per_class=2"
    classifier = f"--model.classifier={CHECKPOINT}"
    short += " --model.random_classes=3 --seed_everything=4"
    main(["search", "--model=PatternSearchModule", classifier, *SMALL.split(), *short.split()])
    patterns = PatternSet.load("runs/r/patterns/positive.safetensors")
    found = {f"command.{name}": tensor for name, tensor in of_patterns(patterns).items()}
    snapshot = "--trainer.callbacks+=PatternSnapshot --trainer.callbacks.classes=[1,2]"
    snapshot += " --trainer.callbacks.search.search_epochs=1 --trainer.max_epochs=1 --overwrite"
    snapshot += " --data.poison.target=2 --data.augmentation.shift=2"
    main(["fit", "--model=BadNetsModule", classifier, *SMALL.split(), *snapshot.split()])
    patterns = PatternSet.load("runs/r/patterns/epoch001.safetensors")
    found |= {f"snapshot.{name}": tensor for name, tensor in of_patterns(patterns).items()}
    weights = torch.load("runs/r/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    found["trained.fc"] = weights["classifier.network.fc.weight"]
    return found


def images_made() -> dict[str, Tensor]:
    classifier = load_classifier(str(CHECKPOINT)).eval().requires_grad_(False)
    images = Shapes(test_count=100).test()
    some, labels = to_float(images.pixels(range(6))), images.labels[:6]
    generator = torch.Generator().manual_seed(0)
    poison = Poison(trigger=Trigger("checkerboard", opacity=0.7), target=3)
    stamp = poison.trigger.draw((32, 32))
    return {
        "pgd_linf": PGD(steps=3)(classifier, some, labels, generator),
        "pgd_l2": PGD(0.5, 0.2, 3, "l2")(classifier, some, labels, generator),
        "robust_data": match_features(
            classifier, some[:2], some[2:4], RobustDataSettings(steps=3, epsilon=2.0)
        ),
        "poisoned": poison.choose(images.labels, [str(k) for k in range(10)], 5),
        "triggered": stamp(images.pixels(range(3))),
        "triggered_float": stamp(some[:3]),
    }


def numbers() -> dict[str, Tensor]:
    return searches() | commands() | images_made()


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "disabled"
    os.chdir(tempfile.mkdtemp())
    tensors = {name: tensor.contiguous() for name, tensor in numbers().items()}
    save_file(tensors, FILE, environment())
    sys.stdout.write(f"{len(tensors)} tensors, {FILE.stat().st_size:,} bytes\n")
