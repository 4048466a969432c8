"""The runs on drawn shapes: networks, searches, probes and inversions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
SMALL = 0.01
USUAL = 0.05
LARGE = 0.1
TRIGGERS = {  # name: target class and what draws it
    "square": (0, ["white_square", "bottom_right"]),
    "checkerboard": (3, ["checkerboard", "[5, 20]"]),
    "color": (7, ["color_patch", "bottom_left"]),
    "dark_l": (0, ["dark_l_shape", "top_right"]),
    "random": (3, ["random_patch", "top_left"]),
    "blended": (7, ["blended", "bottom_right"]),
}
LOCAL = tuple(name for name in TRIGGERS if name != "blended")
ONE_A_TARGET = ("square", "checkerboard", "color")
VARIANTS = {  # name of a search: its options
    "positive": ["--model.measure_canvases", "all"],
    "white": ["--model.search.canvas", "white"],
    "total_variation": [
        *("--model.search.variant", "TotalVariation"),
        *("--model.search.variant.smoothness", "1"),
    ],
    "learned_canvas": ["--model.search.variant", "LearnedCanvas"],
    "perturbation_8": ["--model.search.variant", "UniversalPerturbation"],
    "perturbation_32": [
        *("--model.search.variant", "UniversalPerturbation"),
        *("--model.search.variant.epsilon", "32/255"),
    ],
    "random": ["--model.search.canvas", "random"],
    "weak_variation": [
        *("--model.search.variant", "TotalVariation"),
        *("--model.search.variant.smoothness", "0.2"),
    ],
    "perturbation_16": [
        *("--model.search.variant", "UniversalPerturbation"),
        *("--model.search.variant.epsilon", "16/255"),
    ],
    "many_images": ["--data.search_fraction", "0.6"],
    "noise": ["--data.search_images", "Noise"],
    "area_constrained": ["--model.search.variant", "AreaConstrained"],
    "joint": ["--model.search.variant", "JointCanvases"],
    "halving": ["--model.search.variant", "SuccessiveHalving"],
    "on_searched": ["--model.measure_canvases", "all", "--model.measure_on", "searched"],
    "perturbation_8_everywhere": [
        *("--model.search.variant", "UniversalPerturbation"),
        *("--data.search_fraction", "1", "--model.measure_on", "full"),
    ],
}
LONG = [  # chosen on these networks with seed 0
    *("--model.search.variant", "TriggerInversion", "--model.search.search_epochs", "10"),
    *("--model.search.variant.learning_rate", "0.03"),
    *("--model.search.variant.canvas_learning_rate", "0.06"),
]
ATTACKERS = ("positive_0", "positive_2", "positive_adversarial_0", "positive_adversarial_2")
ATTACKED = ("natural_0", "natural_2", "adversarial_0", "adversarial_2", "another_architecture")
DESCRIBED = ("positive", "white", "total_variation", "learned_canvas")
QUICK = ["--model.search.schedule", "quick", "--model.search.canvases_per_class", "3"]
PAIRS = [  # a class for each pair of shape and texture
    *("--data.source", "Shapes", "--data.source.labels", "shape_texture"),
    *("--data.source.texture_correlation", "0.1"),
]
FEW_PAIRS = [*PAIRS, "--data.source.train_count", "10000"]
ASKED = (
    *("Reconstruction", "ClassMean", "Optimisation", "RightAndWrong"),
    *("NoiseResampling", "Factors", "TopLogits"),
)
INVERTED = {  # kind of network: its weights
    "natural": "last.ckpt",
    "adversarial": "robust.ckpt",
    "underfit": "last.ckpt",  # the only ones that are often wrong
}
BASELINES = {  # name of an inversion of the first natural network: its options
    "one_hot": ["--model.condition", "one_hot"],
    "dosovitskiy_brox": ["-c", str(ROOT / "configs/overlay/dosovitskiy_brox.yaml")],
}
ATTACKS = {  # kind of adversarial network: its attack
    "adversarial": ["--model.attack.steps", "3", "--model.attack.step_size", "4/255"],
    "small_radius": [
        *("--model.attack.epsilon", "2/255"),
        *("--model.attack.steps", "3", "--model.attack.step_size", "1/255"),
    ],
    "l2": [
        *("--model.attack.norm", "l2", "--model.attack.epsilon", "0.5"),
        *("--model.attack.steps", "3", "--model.attack.step_size", "0.25"),
    ],
    "flows": [
        *("--model.attack", "StAdv"),
        *("--model.attack.steps", "5", "--model.attack.learning_rate", "0.3"),
    ],
}
PAINTER = [  # textures in place of an image's own
    *("fit", "-c", str(ROOT / "configs/experiment/adain_cifar10.yaml"), "--seed_everything", "31"),
    *("--model.classifier", str(ROOT / "checkpoints/cifar10_resnet20.safetensors")),
    *("--data.source", "Shapes", "--data.source.train_count", "10000", "--data.batch_size", "16"),
    *("--model.styles", "textures", "--trainer.callbacks", "[]", "--trainer.max_epochs", "3"),
]
STYLISED = "{class_path: Stylised, init_args: {network: runs/painter/style_network.safetensors}}"
CORRELATED = ["--data.source", "Shapes", "--data.source.texture_correlation", "1.0"]
MORE_SEEDS = (2, 3)  # of the longer inversions of triggers, of the target alone
HARD_LOSS = str(ROOT / "docs/claims/hard_loss.py")
SIZES = f"[{SMALL},{USUAL},{LARGE}]"
PLAIN_SGD = [
    *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.05"),
    *("--model.optimizer.momentum", "0.9", "--model.optimizer.weight_decay", "5e-4"),
    *("--model.scheduler", "one_cycle", "--trainer.callbacks", "[]"),
]
AUGMENTED = [
    *("--data.augmentation.shift", "2", "--data.augmentation.crop_padding", "2"),
    *("--data.augmentation.horizontal_flip", "true"),
]


def commands() -> dict[str, list[str]]:
    """Return the arguments of `python -m iscp_lightning`, or script and arguments, of every run."""
    made = {
        f"natural_{seed}": ["fit", "--seed_everything", str(seed), "--trainer.callbacks", "[]"]
        for seed in SEEDS
    }
    made["demo"] = ["fit"]
    for suffix, options in (("", []), ("_augmented", AUGMENTED)):
        for name, (target, (trigger, place)) in TRIGGERS.items():
            made[f"badnets_{name}{suffix}"] = [
                *("fit", "-c", str(ROOT / "configs/experiment/badnets_cifar10.yaml")),
                *("--data.source", "Shapes"),
                *("--model.classifier", "runs/natural_1/checkpoints/last.ckpt", *PLAIN_SGD),
                *("--trainer.max_epochs", "4", "--data.poison.target", str(target)),
                *("--data.poison.trigger.name", trigger, "--data.poison.trigger.place", place),
                *options,
            ]
    for seed in SEEDS:
        made |= searches(f"natural_{seed}", seed, list(VARIANTS)[:6])
        made |= described(seed)
        made[f"described_anew_{seed}"] = describe(f"positive_{seed}")
    for name, (target, _) in TRIGGERS.items():
        networks = [f"badnets_{name}", f"badnets_{name}_augmented"]
        for network in networks:
            for canvas in ("positive", "white"):
                made[f"{canvas}_{network}"] = search(
                    network, 0, ["--model.search.canvas", canvas], f"[{SMALL}]", [str(target)]
                )
        made[f"inversion_badnets_{name}"] = search(
            networks[0], 0, ["--model.search.variant", "TriggerInversion"], f"[{SMALL}]"
        )
        made[f"all_badnets_{name}"] = search(networks[0], 0, [], f"[{SMALL},{USUAL}]")
    for seed in SEEDS:
        inverted = ["--model.search.variant", "TriggerInversion"]
        made[f"inversion_{seed}"] = search(f"natural_{seed}", seed, inverted, f"[{SMALL}]")
        made[f"long_inversion_{seed}"] = search(f"natural_{seed}", 1, LONG, f"[{SMALL}]")
    for name in LOCAL:
        network, target = f"badnets_{name}", str(TRIGGERS[name][0])
        made[f"long_inversion_{network}"] = search(network, 1, LONG, f"[{SMALL}]")
        for seed in MORE_SEEDS:
            made[f"long_inversion_{network}_{seed}"] = search(
                network, seed, LONG, f"[{SMALL}]", [target]
            )
    made["transfer"] = [
        *("transfer", "--patterns", *(f"runs/positive_{seed}" for seed in (0, 2))),
        *(f"runs/all_badnets_{name}" for name in TRIGGERS),
        *("--classifiers", "runs/natural_0", "runs/natural_2"),
        *(f"runs/badnets_{name}" for name in TRIGGERS),
        *("--pattern_sizes", str(SMALL), str(USUAL), "--images", "400"),
    ]
    for seed in SEEDS:
        made[f"start_{seed}"] = [
            *("fit", "--seed_everything", str(10 + seed), "--trainer.callbacks", "[]")
        ]
        for kind in ATTACKS:
            made[f"{kind}_{seed}"] = adversarial(f"start_{seed}", seed, 4, kind)
        made[f"positive_adversarial_{seed}"] = search(f"adversarial_{seed}", seed, [], SIZES)
        made[f"described_adversarial_{seed}"] = describe(f"positive_adversarial_{seed}")
    made["another_architecture"] = [
        *("fit", "--seed_everything", "40", "--model.classifier", "test_resnet"),
        *("--trainer.callbacks", "[]"),
    ]
    made["attacks"] = [
        *("transfer", "--patterns", *(f"runs/{name}" for name in ATTACKERS)),
        *("--classifiers", *(f"runs/{name}" for name in ATTACKED)),
        *("--pattern_sizes", "0.01", "0.02", "0.05", "--images", "200"),
    ]
    for seed in SEEDS:
        early = ["fit", "--seed_everything", str(20 + seed), "--trainer.callbacks", "[]"]
        made[f"underfit_{seed}"] = [*early, "--trainer.max_epochs", "2"]
        for kind in ("natural", "underfit", *ATTACKS):
            made[f"probe_{kind}_{seed}"] = probe(f"{kind}_{seed}")
        for kind in ("natural", "adversarial", "flows"):
            made[f"attacked_{kind}_{seed}"] = [
                *("test", "--from", f"runs/{kind}_{seed}", "--seed_everything", "0"),
                *("--attacks", "pgd20", "stadv", "--attack_images", "200"),
            ]
    for seed in SEEDS:
        made |= searches(f"natural_{seed}", seed, list(VARIANTS)[6:])
        made[f"hard_loss_{seed}"] = [HARD_LOSS, f"runs/positive_{seed}", f"runs/natural_{seed}"]
    return made | inversions() | correlated() | stylised()


def correlated() -> dict[str, list[str]]:
    """Return networks for which textures tell the class as well as shapes, and their probes."""
    made = {}
    for seed in SEEDS:
        recipe = ["fit", "--trainer.callbacks", "[]", *CORRELATED, "--seed_everything"]
        made[f"correlated_natural_{seed}"] = [*recipe, str(seed)]
        made[f"correlated_start_{seed}"] = [*recipe, str(10 + seed)]
        made[f"correlated_underfit_{seed}"] = [*recipe, str(20 + seed), "--trainer.max_epochs", "2"]
        for kind in ("adversarial", "l2"):
            made[f"correlated_{kind}_{seed}"] = [
                *adversarial(f"correlated_start_{seed}", seed, 4, kind),
                *CORRELATED,
            ]
        for kind in ("natural", "underfit", "adversarial", "l2"):
            made[f"probe_correlated_{kind}_{seed}"] = probe(f"correlated_{kind}_{seed}")
    return made


def stylised() -> dict[str, list[str]]:
    """Return the network that paints in other styles, and probes of what it has painted."""
    made = {"painter": PAINTER}
    for seed in SEEDS:
        for kind in ("natural", "underfit", "adversarial"):
            made[f"styled_{kind}_{seed}"] = [*probe(f"{kind}_{seed}"), "--distortions", STYLISED]
    return made


def probe(network: str) -> list[str]:
    """Return one network's probe."""
    return [
        *("probe", "--classifiers", f"runs/{network}", "--images", "500"),
        *("--maps", "10", "--seed_everything", "0"),
    ]


def adversarial(start: str, seed: int, epochs: int, kind: str = "adversarial") -> list[str]:
    """Return one adversarial training from a natural network."""
    return [
        *("fit", "--seed_everything", str(10 + seed), "--model", "MadryModule"),
        *ATTACKS[kind],
        *("--model.classifier", f"runs/{start}/checkpoints/last.ckpt", *PLAIN_SGD),
        *("--trainer.max_epochs", str(epochs), "--data.augmentation.crop_padding", "2"),
    ]


def inversions() -> dict[str, list[str]]:
    """Return inversions, also of networks of pairs, and what is asked of them."""
    made = {"judge": ["fit", "--seed_everything", "30", "--trainer.callbacks", "[]"]}
    asked = {}
    for seed in SEEDS:
        asked[f"asked_patterns_{seed}"] = [
            *ask(f"natural_{seed}", []),
            f"{{class_path: ForeignInputs, init_args: {{patterns: runs/positive_{seed}}}}}",
            *("--judge", "runs/judge"),
        ]
        for kind, checkpoint in INVERTED.items():
            network = f"runs/{kind}_{seed}/checkpoints/{checkpoint}"
            made[f"invert_{kind}_{seed}"] = inversion(network, seed)
            asked[f"asked_{kind}_{seed}"] = ask(f"{kind}_{seed}")
        for kind in ("natural", "adversarial"):
            asked[f"seen_{kind}_{seed}"] = ask(f"{kind}_{seed}", ["Factors"])
    for name in ONE_A_TARGET:
        target, (trigger, place) = TRIGGERS[name]
        shown = f"{{trigger: {{name: {trigger}, place: {place}}}, target: {target}}}"
        options = [f"{{class_path: ForeignInputs, init_args: {shown}}}", "--judge", "runs/judge"]
        network = f"runs/badnets_{name}/checkpoints/last.ckpt"
        made[f"invert_badnets_{name}"] = inversion(network, 0)
        asked[f"asked_badnets_{name}"] = [*ask(f"badnets_{name}", []), *options]
        asked[f"asked_trigger_{name}"] = [*ask("natural_0", []), *options]
    for name, options in BASELINES.items():
        network = "runs/natural_0/checkpoints/last.ckpt"
        made[f"invert_{name}_0"] = inversion(network, 0, options)
        asked[f"asked_{name}_0"] = ask(f"{name}_0")
    recipe = ["fit", "--trainer.callbacks", "[]", *FEW_PAIRS, "--trainer.max_epochs", "4"]
    made["pairs_judge"] = [*recipe, "--seed_everything", "30"]
    for seed in SEEDS:
        made[f"pairs_natural_{seed}"] = [*recipe, "--seed_everything", str(seed)]
        made[f"pairs_start_{seed}"] = [*recipe, "--seed_everything", str(10 + seed)]
        made[f"pairs_adversarial_{seed}"] = [
            *adversarial(f"pairs_start_{seed}", seed, epochs=3),
            *FEW_PAIRS,
        ]
        for kind in ("natural", "adversarial"):
            name = f"pairs_{kind}_{seed}"
            options = [*PAIRS, "--model.condition", "logits", *BASELINES["dosovitskiy_brox"]]
            made[f"invert_{name}"] = inversion(
                f"runs/{name}/checkpoints/{INVERTED[kind]}", seed, options
            )
            questions = ["Reconstruction", "ClassMean", "Factors"]
            asked[f"asked_{name}"] = [*ask(name, questions), "--judge", "runs/pairs_judge"]
    return made | asked


def inversion(network: str, seed: int, options: Sequence[str] = ()) -> list[str]:
    """Return one inversion of one network."""
    return [
        *("fit", "-c", str(ROOT / "configs/experiment/invert_shapes.yaml")),
        *("--seed_everything", str(seed), "--model.classifier", network, *options),
    ]


def ask(name: str, analyses: Sequence[str] = ASKED) -> list[str]:
    """Return what is asked of one inversion."""
    judge = ["--judge", "runs/judge"] if analyses is ASKED else []
    return [
        *("invert", f"runs/invert_{name}", *judge, "--images", "500"),
        *("--data.seed", "0", "--analyses", *analyses),
    ]


def searches(network: str, seed: int, variants: Sequence[str]) -> dict[str, list[str]]:
    """Return searches of one network."""
    found = {}
    for name in variants:
        sizes = "[1.0]" if name.startswith("perturbation") else SIZES
        found[f"{name}_{seed}"] = search(network, seed, VARIANTS[name], sizes)
    return found


def search(
    network: str, seed: int, options: Sequence[str], sizes: str, classes: Sequence[str] = ()
) -> list[str]:
    """Return one search."""
    measured = [] if "--model.measure_canvases" in options else ["--model.measure_canvases"]
    measured += ["winners"] if measured else []
    chosen = ["--model.classes", f"[{', '.join(classes)}]"] if classes else []
    return [
        *("search", "--from", f"runs/{network}", "--seed_everything", str(seed), *QUICK),
        *("--trainer.logger", "false"),
        *("--model.pattern_sizes", sizes, *measured, *chosen, *options),
    ]


def described(seed: int) -> dict[str, list[str]]:
    """Return the descriptions of one network's searches."""
    return {f"described_{name}_{seed}": describe(f"{name}_{seed}") for name in DESCRIBED}


def describe(of: str) -> list[str]:
    """Return one description."""
    return [
        *("describe", "--from", f"runs/{of}", "--images", "400"),
        *("--pattern_sizes", str(USUAL), str(LARGE)),
    ]
