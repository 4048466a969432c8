"""Search the class-wise patterns of a classifier, measure them and draw them.

Examples:
    python -m iscp_lightning search --from runs/NAME
    python -m iscp_lightning search -c configs/experiment/search_imagenet.yaml --trainer.devices 4

Options that matter:
    --from runs/NAME              a run, or a weights file, with its classifier, images and poison
    -c FILE                       a configuration; of several, the later wins
    --model.classifier FILE       another classifier: a weights file, or a timm name with a tag
    --model.classes "[0, 3]"      target classes, by number or name; otherwise all
    --model.search.canvas white   what patterns are cut from: positive, negative, random, white
    --model.search.sparsity 8     weight of the mask's size, alpha
    --model.search.schedule quick
                                  40 % of the evaluations; --model.search.precision bf16 is faster,
                                  too
    --trainer.devices 4           shares the searches out over GPUs, or CPU processes
    --estimate                    prints what it would take, without running it
    --run NAME                    the folder under runs/; --overwrite replaces one
    --resume runs/NAME            goes on with a search that was interrupted, instead of all these
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iscp_lightning.commands._earlier import Earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.patterns.module import PatternSearchModule


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return a search in the classifier and the images that `--from` names."""
    del arguments
    classifier = earlier.classifier if earlier else {}
    model = {"class_path": "PatternSearchModule", "init_args": classifier}
    checkpoint = {"save_top_k": 0}  # last.ckpt alone: masks of many classes are large
    return {"model": model, "checkpoint": checkpoint} | (earlier.images if earlier else {})


def search(
    experiment: Experiment[PatternSearchModule],
    resume: str | None = None,
    ckpt_path: str | None = None,
    estimate: bool = False,
    from_: str | None = None,
) -> None:
    """Search class-wise patterns and measure their predictive power.

    Args:
        experiment: Model, data and Trainer.
        resume: run folder to go on with
        ckpt_path: checkpoint of an interrupted search to go on from, in a run of its own
        estimate: print what it would take, without running it
        from_: run folder or weights file whose classifier, images and poison are taken
    """
    del from_
    options = experiment.config.trainer
    if options.strategy == "auto" and experiment.processes > 1:
        options.strategy = "class_parallel"
    experiment.build(ckpt_path, resume, dry=estimate)
    if estimate:
        experiment.estimate()
        return
    model, data, trainer = experiment.model, experiment.datamodule, experiment.trainer
    trainer.search(model, datamodule=data, ckpt_path=experiment.ckpt_path)
    experiment.report()
