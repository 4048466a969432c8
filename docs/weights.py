"""The shipped weights: their table, and how one is added.

python docs/weights.py writes the table in checkpoints/README.md from the files' own metadata;
python docs/weights.py RUN NAME first adds checkpoints/NAME.safetensors from a run that trained, or
to it what a run of `test` measured under PGD-20.
"""

import argparse
import hashlib
import json
import re
import shlex
from pathlib import Path

import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from iscp_lightning import load_classifier, save_classifier
from iscp_lightning.classifiers import class_names_in, classifier_hash
from iscp_lightning.runs import provenance

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "checkpoints"
OURS = re.compile(  # in whatever copy of the repository
    r"^/.*?/((?:tests/)?configs/|checkpoints/(?=[^/]+\.safetensors$))"
)
MARKS = "<!-- table -->", "<!-- end -->"
MEASURES = {
    "test/clean_accuracy": "accuracy",
    "test_random_texture/clean_accuracy": "with random textures",
    "test/attack_success_rate": "ASR",
    "test/robust_accuracy": "under the training's own test attack",
}


def add(run: Path, name: str) -> None:
    """Ship the classifier of a run, with what its files say of it."""
    folder = run / "checkpoints"
    best = next(file for file in (folder / "robust.ckpt", folder / "last.ckpt") if file.is_file())
    results = json.loads((run / "results.json").read_text())
    typed = json.loads((run / "run.json").read_text())["commands"][0]["arguments"]
    source = yaml.safe_load((run / "config.yaml").read_text())["data"]["source"]
    folders = re.findall(r'"root": "([^"]+)"', json.dumps(source))  # are somebody's own
    given = [each for each in folders if not each.startswith("runs/")]
    arguments = ["DIR" if each in given else OURS.sub(r"\1", each) for each in typed]
    facts = provenance(
        command=shlex.join(["python", "-m", "iscp_lightning", *arguments]),
        checkpoint=best.name,
        test={key: results["test"][key] for key in MEASURES if key in results["test"]},
        class_names=class_names_in(best),
    )
    if not folders:
        facts["data"] = {"source": source}
    network = load_classifier(str(best))
    halve(network)
    save_classifier(FOLDER / f"{name}.safetensors", network, **facts)


def add_attacked(run: Path, name: str) -> None:
    """Add what a run of `test` measured of a shipped classifier under PGD-20.

    Raises:
        ValueError: if it was measured of another, or not at all.
    """
    file = FOLDER / f"{name}.safetensors"
    results = json.loads((run / "results.json").read_text())
    if "pgd20" not in results.get("robustness", {}).get("accuracy", {}):
        raise ValueError(f"{run} has not trained, nor tested with `--attacks pgd20`")
    if results["tested_classifier_hash"] != classifier_hash(load_classifier(str(file))):
        raise ValueError(f"{run} has not tested {file}")
    with safe_open(file, "pt") as weights:
        metadata = weights.metadata()
    facts, found = json.loads(metadata["provenance"]), results["robustness"]
    facts["robustness"] = {key: found[key] for key in ("images", "norm", "epsilon")}
    facts["robustness"]["pgd20"] = found["accuracy"]["pgd20"]
    save_file(load_file(file), file, metadata | {"provenance": json.dumps(facts)})


def halve(network: nn.Module) -> None:
    """Store kernels and matrices in half precision; biases and statistics keep theirs."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()


def table() -> str:
    """Return a line for each file: what it is, how it was made, what was measured, its hash."""
    lines = ["| file | network | command | measured | SHA-256 |", "| --- | --- | --- | --- | --- |"]
    for file in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            metadata = weights.metadata()
        facts, spec = (json.loads(metadata[key]) for key in ("provenance", "classifier_spec"))
        size = " x ".join(map(str, spec["image_size"]))
        measured = facts.get("test") or {"test/clean_accuracy": facts["test_accuracy"]}
        values = [
            f"{MEASURES[key]} {value:.3f}" for key, value in measured.items() if key in MEASURES
        ]
        if robust := facts.get("robustness"):
            of = f"{robust['norm']} {robust['epsilon']:.3g}, {robust['images']:,} images"
            values.append(f"PGD-20 ({of}) {robust['pgd20']:.3f}")
        cells = [
            f"`{file.name}`",
            f"{spec['architecture']}, {size}, {spec['num_classes']} classes",
            f"`{facts['command'].removeprefix('python -m iscp_lightning ')}`",
            ", ".join(values),
            hashlib.sha256(file.read_bytes()).hexdigest()[:12],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """Return a text with the table between its marks."""
    before, _, rest = text.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def main() -> None:
    """Add, if asked, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("name", nargs="?")
    given = parser.parse_args()
    if given.run is not None:
        if given.name is None:
            parser.error("give a name besides the run")
        trained = (given.run / "checkpoints").is_dir()
        (add if trained else add_attacked)(given.run, given.name)
    readme = FOLDER / "README.md"
    readme.write_text(written(readme.read_text()))


if __name__ == "__main__":
    main()
