"""Describe the patterns of a search in numbers, with chance beside each, and compare with Grad-CAM.

Examples:
    python -m iscp_lightning describe --from runs/NAME
    python -m iscp_lightning describe --patterns FILE --from runs/NAME --images 1000

Options that matter:
    --from runs/NAME              a search, with its patterns, classifier and images; with
                                  `--patterns` any run or weights file
    --patterns FILE               the patterns: a file, or a run folder with one
    -c FILE                       a configuration; of several, the later wins
    --model.classifier FILE       another classifier: a weights file
    --pattern_sizes 0.05 0.1      shares of the pixels; otherwise those that the search measured
    --images 1000                 on how many test images patterns are pasted, as many of each class
    --attention false             without Grad-CAM, which needs a network with convolutions
    --data.source CIFAR10         the images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --trainer.accelerator cpu     where it is computed: cpu, gpu
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.commands._earlier import Earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands._measuring import (
    Measuring,
    build,
    chosen_images,
    configuration,
    require_fitting,
    source_of,
)
from iscp_lightning.data.objects import objects_of
from iscp_lightning.messages import fail
from iscp_lightning.patterns.description import describe_patterns
from iscp_lightning.patterns.portraits import attention_figure, measure_figures
from iscp_lightning.patterns.search import warn_of_unsearched
from iscp_lightning.patterns.stored import load_patterns, measured_sizes
from iscp_lightning.records import Findings
from iscp_lightning.runs import may_write, provenance, save_figure


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the measuring of the classifier and the patterns that `--from` names."""
    earlier = source_of(arguments, earlier)
    below = configuration(earlier)
    if earlier is not None:
        below["model"]["init_args"] = earlier.classifier
        if (Path(earlier.place) / "patterns").is_dir():
            below["patterns"] = earlier.place
    return below


def describe(
    experiment: Experiment[Measuring],
    patterns: str | None = None,
    pattern_sizes: list[float] | None = None,
    images: int | None = None,
    attention: bool = True,
    from_: str | None = None,
) -> None:
    """Describe patterns in numbers.

    Args:
        experiment: Model, data and Trainer.
        patterns: pattern file, or run folder with one; default that of `--from`
        pattern_sizes: shares of the pixels, default those that the search measured
        images: on how many test images patterns are pasted, as many of each class; default all
            that the search has not used
        attention: whether the patterns are compared with Grad-CAM, which needs convolutions
        from_: run folder or weights file whose classifier and images are taken
    """
    del from_
    if patterns is None:
        fail("`--patterns` names a pattern file, or a run folder with one; `--from` a search's run")
    data = build(experiment)
    model, trainer = experiment.model, experiment.trainer
    if model.classifier is None:
        fail("`--from` names the classifier: a run folder or a weights file")
    weights = experiment.weights
    require_fitting(weights or "model", model.classifier, data, weights)
    found = load_patterns(patterns, data.test_images, data.class_names)
    sizes = sorted(set(pattern_sizes or measured_sizes([found])))
    found[found.winners[:1]].stamps(sizes)  # raises where a size does not fit
    warn_of_unsearched(found.variant, sizes)
    indices = chosen_images(experiment, [found], images)
    show = trainer.progress_bar_callback is not None
    subject = Subject.of(model.classifier, data, trainer.strategy.root_device, show)

    def measure() -> Findings:
        described = describe_patterns(subject, found, sizes, indices, objects_of(data), attention)
        if may_write(trainer):
            drawn = measure_figures(described)
            if attention:
                winners = found[found.winners]
                drawn["attention"] = attention_figure(subject, winners, sizes[-1], indices)
            for name, figure in drawn.items():
                save_figure(experiment.run.folder / "figures" / f"{name}.png", figure)
        searched_in = found.provenance.get("classifier_hash")
        other = "" if searched_in == subject.hash else "; searched in another classifier"
        return Findings(
            described.records,
            lines=[f"{patterns}, pasted on {len(indices)} images{other}", *described.lines],
            provenance=provenance(
                classifier_hash=subject.hash,
                searched_in=searched_in,
                patterns=patterns,
                images=len(indices),
            ),
        )

    model.measure = measure
    trainer.test(model, datamodule=data, verbose=False)
    experiment.report()
