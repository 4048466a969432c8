"""The runs on CIFAR-10: networks, and what is found in them.

`cifar10` is a folder of image files. Searches take the shipped weights, so that they can be
repeated without a day of training. Backdoored networks with augmentation are not shipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from on_shapes import (
    HARD_LOSS,
    LARGE,
    LOCAL,
    LONG,
    MORE_SEEDS,
    QUICK,
    ROOT,
    SIZES,
    SMALL,
    TRIGGERS,
    USUAL,
    VARIANTS,
)

CONFIGS = ROOT / "configs"
WEIGHTS = ROOT / "checkpoints"
IMAGES = ["--data.source", "ImageFolder", "--data.source.root", "cifar10"]
COMPILED = ["--data.batch_size", "125", "--model.compile", "true"]  # 125 divides all splits
NATURAL = [
    *("fit", "-c", str(CONFIGS / "experiment/natural_cifar10_folder.yaml"), *COMPILED),
    *("--data.source.root", "cifar10"),
]
NO_CALLBACKS = ["--trainer.callbacks", "[]"]
ADVERSARIAL = {  # norm: seed
    "linf": 4,
    "l2": 6,
}
UNDERFIT = {  # natural twins, about as accurate as an adversarial network: seed, epochs
    "underfit_linf": (5, 2),
    "underfit_l2": (7, 4),
}
IMAGES_OF = {"robust": "l2", "nonrobust": "natural_1"}  # D_R, D_NR: with whose features
AS_ON_SHAPES = [*LONG, "--data.search_fraction", "0.02"]  # as many images, and so evaluations
# of ten classes: on all images measuring takes longer than searching
FEWER = ["--model.measure_images", "2000"]
OVERLAPS = str(ROOT / "docs/claims/overlaps.py")
INVERSIONS = {  # other ways to invert triggers: what runs are called, options
    "many_image_inversion": LONG,
    "small_step_inversion": [
        *("--model.search.variant", "TriggerInversion", "--model.search.search_epochs", "3"),
        *("--model.search.search_batch_size", "16"),
    ],
    "large_step_inversion": [
        *("--model.search.variant", "TriggerInversion", "--model.search.search_epochs", "27"),
        *("--model.search.search_batch_size", "16", "--data.search_fraction", "0.02"),
        *("--model.search.variant.learning_rate", "0.1"),
        *("--model.search.variant.canvas_learning_rate", "0.2"),
    ],
}
NATURALS = {0: "resnet20", 1: "natural_1", 2: "natural_2"}  # seed: network
OTHERS = {  # what searches are called: network
    **{norm: norm for norm in ADVERSARIAL},
    "fast": "resnet20_fast_linf",
    "robust_data": "robust_data",
    "nonrobust_data": "nonrobust_data",
}


def commands() -> dict[str, list[str]]:
    """Return the arguments of `python -m iscp_lightning` of every run."""
    return {f"cifar10_{name}": each for name, each in (networks() | measured()).items()}


def networks() -> dict[str, list[str]]:
    """Return the trainings; natural network 0 is shipped and was trained for results.md."""
    made = {
        f"natural_{seed}": [*NATURAL, *NO_CALLBACKS, "--seed_everything", str(seed)]
        for seed in (1, 2)
    }
    made["start"] = [
        *(*NATURAL, *NO_CALLBACKS, "--seed_everything", "3", "--trainer.max_epochs", "4")
    ]
    for name, (seed, epochs) in UNDERFIT.items():
        made[name] = [*NATURAL, *NO_CALLBACKS, "--seed_everything", str(seed)]
        made[name] += ["--trainer.max_epochs", str(epochs)]
    for norm, seed in ADVERSARIAL.items():
        made[norm] = [
            *short(f"madry_{norm}", "start", 12, seed),
            *("--model.optimizer.lr", "0.1"),
        ]
    made["longer_0"] = [
        *(*NATURAL, *NO_CALLBACKS, "--seed_everything", "0", "--trainer.max_epochs", "40"),
        *("--model.label_smoothing", "0.1"),
    ]
    made["longest_0"] = [
        *(*NATURAL, *NO_CALLBACKS, "--seed_everything", "0", "--trainer.max_epochs", "20"),
        *("--model.classifier", "runs/cifar10_longer_0/checkpoints/last.ckpt"),
        *("--model.label_smoothing", "0.1", "--model.optimizer.lr", "0.1"),
        *("--data.augmentation.crop_padding", "0", "--data.augmentation.shift", "4"),
    ]
    for name, classifier in IMAGES_OF.items():
        made[f"{name}_images"] = [
            *("predict", "--from", weights(classifier), *IMAGES, "--data.val_fraction", "0"),
            *("--seed_everything", "0", "--model.fraction", "0.4", "--model.settings.steps", "200"),
            *("--model.compile", "true", "--trainer.precision", "bf16-mixed"),
        ]
        made[f"{name}_data"] = [
            *("fit", "-c", str(CONFIGS / f"experiment/{name}_data_cifar10.yaml"), *COMPILED),
            *("-c", str(CONFIGS / "overlay/small_cifar10.yaml"), "--model.classifier", "resnet20"),
            *("--data.source.root", f"runs/cifar10_{name}_images/robust_data"),
            *("--data.source.origin", "ImageFolder", "--data.source.origin.root", "cifar10"),
            *("--data.val_fraction", "0.025", "--model.optimizer.lr", "0.1"),
            *("--trainer.max_epochs", "40", "--seed_everything", "0"),
        ]
    for name in TRIGGERS:
        for suffix, epochs in (("", 2), ("_augmented", 4)):
            made[f"badnets_{name}{suffix}"] = [
                *(*short(f"badnets{suffix}", "natural_1", epochs, 0), *poison(name))
            ]
    return made


def poison(name: str) -> list[str]:
    """Return the trigger and its target; a pattern that is found is compared with the trigger."""
    target, (trigger, place) = TRIGGERS[name]
    return [
        *("--data.poison.target", str(target)),
        *("--data.poison.trigger.name", trigger, "--data.poison.trigger.place", place),
    ]


def short(experiment: str, start: str, epochs: int, seed: int) -> list[str]:
    """Return a training that starts from another network."""
    return [
        *("fit", "-c", str(CONFIGS / f"experiment/{experiment}_cifar10.yaml")),
        *("-c", str(CONFIGS / "overlay/small_cifar10.yaml"), *IMAGES, *COMPILED),
        *("--model.classifier", f"runs/cifar10_{start}/checkpoints/last.ckpt"),
        *("--trainer.max_epochs", str(epochs), "--seed_everything", str(seed)),
    ]


def measured() -> dict[str, list[str]]:
    """Return searches, attacks, descriptions of what searches find, and its transfer."""
    found = {}
    for seed, network in NATURALS.items():
        for canvas in ("positive", "negative", "random", "white"):
            options = ["--model.search.canvas", canvas, *FEWER]
            found[f"{canvas}_{seed}"] = search(network, seed, SIZES, options)
        found[f"long_inversion_{seed}"] = search(network, 1, f"[{SMALL}]", AS_ON_SHAPES)
    for name, (target, _) in TRIGGERS.items():
        network = f"badnets_{name}"
        for canvas in ("positive", "white"):
            options = ["--model.classes", f"[{target}]", "--model.search.canvas", canvas]
            options += poison(name)
            found[f"{canvas}_{network}"] = search(network, 0, f"[{SMALL}]", options)
            found[f"{canvas}_{network}_augmented"] = search(
                f"runs/cifar10_{network}_augmented", 0, f"[{SMALL}]", options
            )
        options = [*poison(name), *FEWER]
        found[f"all_{network}"] = search(network, 0, f"[{SMALL},{USUAL}]", options)
        options = [*poison(name), *AS_ON_SHAPES]
        found[f"long_inversion_{network}"] = search(network, 1, f"[{SMALL}]", options)
        of_target = ["--model.classes", f"[{target}]", *poison(name)]
        for seed in MORE_SEEDS if name in LOCAL else ():
            found[f"long_inversion_{network}_{seed}"] = search(
                network, seed, f"[{SMALL}]", [*of_target, *AS_ON_SHAPES]
            )
        for way, options in INVERSIONS.items() if name in LOCAL else ():
            found[f"{way}_{network}"] = search(network, 1, f"[{SMALL}]", [*of_target, *options])
    for variant in ("total_variation", "weak_variation", "learned_canvas", "area_constrained"):
        for seed, network in NATURALS.items():
            if seed == 0 or variant == "area_constrained":
                options = [*VARIANTS[variant], *FEWER]
                found[f"{variant}_{seed}"] = search(network, seed, SIZES, options)
    for epsilon in ("8", "16", "32"):  # the paper's Table 5
        options = ["--model.search.variant", "UniversalPerturbation", *FEWER]
        options += ["--model.search.variant.epsilon", f"{epsilon}/255"]
        found[f"perturbation_{epsilon}"] = search(NATURALS[0], 0, "[1]", options)
        options += ["--data.search_fraction", "1", "--model.measure_on", "full"]
        found[f"perturbation_{epsilon}_everywhere"] = search(NATURALS[0], 0, "[1]", options)
    for seed, network in NATURALS.items():
        pasted = ["--model.search.winner_size", str(USUAL), *FEWER]
        found[f"winner_{seed}"] = search(network, seed, SIZES, pasted)
    for name, network in OTHERS.items():
        found[f"positive_{name}"] = search(network, 0, SIZES, FEWER)
    for name, norm, radius in (
        ("linf", "linf", "8/255"),
        ("l2", "l2", "0.5"),
        ("fast", "linf", "8/255"),
    ):
        found[f"attacked_{name}"] = [
            *("test", "--from", weights(OTHERS[name]), *IMAGES, "--attacks", "pgd20"),
            *("--attack_norm", norm, "--attack_epsilon", radius, "--attack_images", "1000"),
        ]
    searches = {f"{name}": f"positive_{name}" for name in (*NATURALS, *OTHERS)}
    others = ("weak_variation_0", "total_variation_0", "learned_canvas_0")
    for name, of in (searches | dict(zip(others, others, strict=True))).items():
        found[f"described_{name}"] = [
            *("describe", "--from", f"runs/cifar10_{of}", "--images", "1000"),
            *("--pattern_sizes", str(USUAL), str(LARGE)),
        ]
    found["five_canvases_0"] = [  # as the paper's Table 1, with its schedule
        *("search", "--from", weights("resnet20"), *IMAGES, "--trainer.logger", "false"),
        *FEWER,
    ]
    found["hard_loss_0"] = [
        *(HARD_LOSS, "runs/cifar10_five_canvases_0", weights("resnet20"), "--images", "cifar10")
    ]
    for seed in NATURALS:
        for canvas in ("negative", "random", "white"):
            runs = (f"runs/cifar10_positive_{seed}", f"runs/cifar10_{canvas}_{seed}")
            found[f"overlap_{canvas}_{seed}"] = [OVERLAPS, *runs]
    for variant in ("weak_variation", "total_variation"):
        runs = ("runs/cifar10_positive_0", f"runs/cifar10_{variant}_0")
        found[f"overlap_{variant}_0"] = [OVERLAPS, *runs]
    every = [*NATURALS.values(), *(f"badnets_{name}" for name in TRIGGERS), *ADVERSARIAL]
    found["transfer"] = [
        *("transfer", "--patterns", *(f"runs/cifar10_positive_{seed}" for seed in NATURALS)),
        *(f"runs/cifar10_all_badnets_{name}" for name in TRIGGERS),
        *(f"runs/cifar10_positive_{norm}" for norm in ADVERSARIAL),
        "runs/cifar10_area_constrained_0",
        *("--classifiers", *(weights(network) for network in every)),
        *("--pattern_sizes", str(SMALL), "0.02", str(USUAL), "--images", "200"),
    ]
    found["probe"] = [
        *("probe", "-c", str(CONFIGS / "experiment/probe_cifar10.yaml"), *IMAGES),
        *("--images", "500", "--maps", "0", "--classifiers"),
        *(weights(network) for network in (NATURALS[0], *UNDERFIT, *OTHERS.values())),
    ]
    return found


def search(network: str, seed: int, sizes: str, options: Sequence[str] = ()) -> list[str]:
    """Return one search in a shipped network, or in that of a run."""
    return [
        *("search", "--from", network if "/" in network else weights(network), *IMAGES),
        *("--seed_everything", str(seed), *QUICK),
        *("--trainer.logger", "false", "--model.pattern_sizes", sizes),
        *("--model.measure_canvases", "winners", *options),
    ]


def weights(network: str) -> str:
    """Return the file of a shipped network."""
    return str(WEIGHTS / f"cifar10_{network}.safetensors")
