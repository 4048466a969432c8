import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from toys import Linear
from trainers import Crash
from wandb_records import read_offline_run

from iscp_lightning.classifiers import create_classifier, save_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.cli import main
from iscp_lightning.data import MemoryImages, Noise, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.testset import fingerprint
from iscp_lightning.patterns import PatternSet, SearchSettings, search_patterns
from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.patterns.search import run_search
from iscp_lightning.trainer import EpochCheckpoint, Trainer
from iscp_lightning.training import NaturalModule

SETTINGS = SearchSettings(canvas="random", canvases_per_class=2, search_epochs=2)


@pytest.fixture
def shapes() -> ImageDataModule:
    data = ImageDataModule(Shapes(train_count=20, test_count=100), batch_size=50)
    data.setup("fit")
    return data


@pytest.fixture
def weights(tmp_path, trained) -> str:
    path = tmp_path / "trained.safetensors"
    save_classifier(path, trained)
    return str(path)


def module_for(classifier, **kwargs) -> PatternSearchModule:
    arguments = {"search": SETTINGS, "classes": [1, 4], "pattern_sizes": [0.05]}
    return PatternSearchModule(classifier, **(arguments | kwargs))


def trainer_for(folder, **kwargs) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    arguments = quiet | {"accelerator": "cpu", "devices": 1, "default_root_dir": str(folder)}
    checkpoint = EpochCheckpoint(
        Path(folder) / "checkpoints",
        filename="epoch{epoch:03d}",
        auto_insert_metric_name=False,
        save_top_k=-1,
    )
    arguments["callbacks"] = [checkpoint]
    return Trainer(**({"max_epochs": 1} | arguments | kwargs))


def search(trainer: Trainer, module: PatternSearchModule, data: ImageDataModule) -> None:
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)


def results_of(module: PatternSearchModule) -> dict:
    return module.findings[""].results


def directly(classifier, data: ImageDataModule, settings=SETTINGS) -> PatternSet:
    subject = Subject.of(classifier, data)
    return run_search(subject, settings.seeded(data.seed), [1, 4]).gathered()


def test_search_equals_the_function_and_writes_the_run(tmp_path, trained, shapes, weights):
    module = module_for(weights)
    search(trainer_for(tmp_path), module, shapes)
    expected = directly(trained, shapes)
    stored = PatternSet.load(tmp_path / "patterns" / "random.safetensors")
    for name in ("targets", "canvas_indices", "canvases", "masks", "mask_means", "objectives"):
        assert torch.equal(getattr(stored, name), getattr(expected, name)), name
    results = results_of(module)
    power = expected.predictive_power(trained, shapes.test_images, pattern_sizes=[0.05])
    assert results["classes"][0]["name"] == "square"
    values = [c["predictive_power"]["0.05"] for e in results["classes"] for c in e["canvases"]]
    assert values == pytest.approx(power.predictive_power[:, 0].tolist())
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "patterns.png",
        "canvases.png",
        "predictive_power.png",
    }


def test_the_masks_are_all_that_is_trained_and_saved(tmp_path, weights, shapes):
    module = module_for(weights)
    trainer_for(tmp_path).fit(module, datamodule=shapes)
    assert list(module.named_parameters()) == []  # ranks hold rows of their own
    checkpoint = torch.load(tmp_path / "checkpoints" / "epoch002.ckpt", weights_only=True)
    assert checkpoint["state_dict"] == {}
    rows = checkpoint["pattern_search"]["rows"]
    assert set(rows) == {"variable mask", "sum mask", "objectives", "pass"}
    assert torch.equal(rows["variable mask"], module.patterns.masks)
    assert checkpoint["global_step"] == 2 * module.engine.order.steps_per_epoch


def test_search_epochs_alone_sets_the_length(tmp_path, weights, shapes):
    trainer = trainer_for(tmp_path, max_epochs=77)
    trainer.fit(module_for(weights), datamodule=shapes)
    assert trainer.current_epoch == SETTINGS.course.search_epochs


def test_its_loader_wins_over_the_data_modules(tmp_path, weights, shapes, monkeypatch):
    monkeypatch.setattr(shapes, "train_dataloader", lambda: pytest.fail("the images were loaded"))
    trainer_for(tmp_path).fit(module_for(weights), datamodule=shapes)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_checkpoint_resumes_to_the_same_bits(tmp_path, weights, shapes):
    module = module_for(weights)
    trainer_for(tmp_path).fit(module, datamodule=shapes)
    resumed = module_for(weights)
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    trainer_for(tmp_path / "again").fit(resumed, datamodule=shapes, ckpt_path=first)
    for name in ("masks", "mask_means", "objectives"):
        assert torch.equal(getattr(resumed.patterns, name), getattr(module.patterns, name)), name


def fit_with(processes: int, folder: Path, module, data, resume: Path | None = None) -> None:
    """Search with one process, or with several that are forks of this one."""

    def fit(rank: int) -> None:
        if processes > 1:
            os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        strategy = "class_parallel" if processes > 1 else "auto"
        trainer = trainer_for(folder, devices=processes, strategy=strategy)
        trainer.fit(module, datamodule=data, ckpt_path=resume)

    if processes == 1:
        fit(0)
    else:
        port = str(find_free_network_port())
        torch.multiprocessing.start_processes(fit, nprocs=processes, start_method="fork")


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize(("saving", "resuming"), [(2, 2), (2, 1), (1, 2)])
def test_a_search_goes_on_with_any_number_of_processes(
    tmp_path, weights, trained, shapes, saving, resuming
):
    fit_with(saving, tmp_path / "begun", module_for(weights), shapes)
    first = tmp_path / "begun" / "checkpoints" / "epoch001.ckpt"
    fit_with(resuming, tmp_path / "ended", module_for(weights), shapes, first)
    expected = directly(trained, shapes)
    for folder in ("begun", "ended"):
        last = tmp_path / folder / "checkpoints" / "epoch002.ckpt"
        found = torch.load(last, weights_only=True)["pattern_search"]["rows"]
        steps = found["sum mask"].amax((1, 2)) / expected.mask_means.amax((1, 2))
        assert torch.equal(found["variable mask"], expected.masks)
        assert torch.equal(found["objectives"], expected.objectives)
        torch.testing.assert_close(
            found["sum mask"], steps.round().view(-1, 1, 1) * expected.mask_means
        )


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_plain_test_of_a_checkpoint_measures(tmp_path, weights, shapes):
    module = module_for(weights)
    search(trainer_for(tmp_path), module, shapes)
    last = tmp_path / "checkpoints" / "epoch002.ckpt"
    again = module_for(weights)
    trainer_for(tmp_path / "again").test(again, datamodule=shapes, ckpt_path=last, verbose=False)
    assert results_of(again)["mean_predictive_power"] == results_of(module)["mean_predictive_power"]


def test_winners_only(tmp_path, weights, shapes):
    module = module_for(weights, measure_canvases="winners", measure_on="full", measure_images=30)
    search(trainer_for(tmp_path), module, shapes)
    assert results_of(module)["measured_images"] == 30
    measured = [c["predictive_power"] for e in results_of(module)["classes"] for c in e["canvases"]]
    assert sum(power is not None for power in measured) == 2
    assert "mean_predictive_power_of_best_canvas" not in results_of(module)


@pytest.mark.parametrize("of", ["search", "data"])
def test_random_classes_are_seeded(tmp_path, weights, of):
    chosen = []
    for seed in (0, 0, 1):
        own = seed if of == "search" else None
        settings = SearchSettings(canvas="white", search_epochs=1, seed=own)
        module = module_for(weights, classes=None, random_classes=3, search=settings)
        data = ImageDataModule(Shapes(20, 100), batch_size=50, seed=3 if own is not None else seed)
        trainer_for(tmp_path, callbacks=[], enable_checkpointing=False).fit(module, datamodule=data)
        chosen.append(module.engine.canvases.targets.tolist())
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 3


def test_the_logged_mean_is_that_of_the_winners(tmp_path, weights, shapes):
    module, trainer = module_for(weights, pattern_sizes=[0.1]), trainer_for(tmp_path)
    search(trainer, module, shapes)
    logged = trainer.callback_metrics["mean_predictive_power/0.1"].item()
    assert logged == pytest.approx(results_of(module)["mean_predictive_power"]["0.1"])
    everyone = [
        c["predictive_power"]["0.1"] for e in results_of(module)["classes"] for c in e["canvases"]
    ]
    assert logged != pytest.approx(sum(everyone) / len(everyone))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classifier": "resnet20"}, "random weights"),
        ({"classifier": "no-such-net"}, "neither an existing weights file nor"),
        ({"random_classes": 2}, "not both"),
    ],
)
def test_bad_arguments_are_named(arguments, message, weights):
    with pytest.raises(ValueError, match=message):
        module_for(**({"classifier": weights} | arguments))


def test_other_data_modules_and_unknown_classes_are_refused(tmp_path, weights, shapes):
    with pytest.raises(MisconfigurationException, match="ImageDataModule"):
        trainer_for(tmp_path).fit(module_for(weights), datamodule=L.LightningDataModule())
    with pytest.raises(ValueError, match="`classes` has 'dog'"):
        trainer_for(tmp_path).fit(module_for(weights, classes=["dog"]), datamodule=shapes)


def other_shapes(**arguments) -> ImageDataModule:
    """Other test images of the same number, or other search images among the same."""
    return ImageDataModule(Shapes(train_count=20, test_count=100, seed=1), 50, **arguments)


def test_every_fit_is_a_search_of_its_own(tmp_path, trained, shapes):
    """Of the data it is given, whatever the module has searched before."""
    module = module_for(trained)
    for number, data in enumerate((shapes, other_shapes(), shapes)):
        search(trainer_for(tmp_path / str(number)), module, data)
        expected = directly(trained, data)
        assert torch.equal(module.patterns.masks, expected.masks)
        assert torch.equal(module.patterns.mask_means, expected.mask_means)
        assert module.patterns.mask_means.max() <= 1
        searched = module.patterns.search_indices
        assert torch.equal(searched, data.search_indices)
        assert torch.equal(module.engine.order.images, data.test_images.pixels(searched))


@pytest.mark.parametrize("name", ["test_set", "search_fraction", "classes", "search"])
def test_patterns_of_another_search_are_not_measured(tmp_path, trained, shapes, name):
    module, data = module_for(trained), shapes
    trainer_for(tmp_path).fit(module, datamodule=shapes)
    if name == "test_set":
        data = other_shapes()
    elif name == "search_fraction":
        data = ImageDataModule(shapes.source, 50, search_fraction=0.1)
    elif name == "classes":
        module.classes = [1]
    else:
        module.search = replace(SETTINGS, seed=1)
    with pytest.raises(ValueError, match=f"the patterns were searched with another `{name}`"):
        trainer_for(tmp_path / "again").test(module, datamodule=data)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("name", ["search", "classifier", "classes", "test_set"])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, weights, shapes, name, trained):
    trainer_for(tmp_path).fit(module_for(weights), datamodule=shapes)
    other = module_for(weights)
    if name == "search":
        other = module_for(weights, search=replace(SETTINGS, sparsity=8.0))
    elif name == "classes":
        other = module_for(weights, classes=[1, 5])
    elif name == "classifier":
        changed = copy.deepcopy(trained)
        changed.network.fc.bias.data += 1
        other = module_for(changed)
    data = other_shapes() if name == "test_set" else shapes
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    with pytest.raises(ValueError, match=f"the checkpoint was made with another `{name}`"):
        trainer_for(tmp_path / "again").fit(other, datamodule=data, ckpt_path=first)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_checkpoint_that_says_less_is_resumed(tmp_path, weights, shapes):
    """As those were that did not name the classes and the test set."""
    trainer_for(tmp_path).fit(module_for(weights), datamodule=shapes)
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    checkpoint = torch.load(first, weights_only=True)
    for name in ("classes", "test_set"):
        del checkpoint["pattern_search"]["origin"][name]
    torch.save(checkpoint, first)
    resumed = module_for(weights)
    trainer_for(tmp_path / "again").fit(resumed, datamodule=shapes, ckpt_path=first)
    assert torch.equal(resumed.patterns.masks, directly(resumed._given[0], shapes).masks)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_an_unfinished_search_is_not_measured(tmp_path, weights, shapes):
    trainer_for(tmp_path).fit(module_for(weights), datamodule=shapes)
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    with pytest.raises(MisconfigurationException, match="not finished"):
        trainer_for(tmp_path).test(module_for(weights), datamodule=shapes, ckpt_path=first)


def test_given_canvases_are_searched(tmp_path, weights, shapes):
    module = module_for(weights, canvases=[7, 9])
    search(trainer_for(tmp_path), module, shapes)
    assert module.patterns.canvas_indices.tolist() == [7, 9, 7, 9]
    assert results_of(module)["classes"][0]["canvas"]["kind"] == "given"
    again = module_for(weights, canvases=str(tmp_path / "patterns" / "given.safetensors"))
    search(trainer_for(tmp_path / "again"), again, shapes)
    assert torch.equal(again.patterns.masks, module.patterns.masks)


def on_noise(**arguments) -> ImageDataModule:
    """The images of `shapes`, searched on noise."""
    noise = Noise(**{"count": 20} | arguments)
    return ImageDataModule(Shapes(train_count=20, test_count=100), 50, search_images=noise)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_search_images_from_elsewhere_are_searched_and_resumed(tmp_path, weights, trained, shapes):
    module, data = module_for(weights, measure_canvases="winners"), on_noise()
    search(trainer_for(tmp_path), module, data)
    expected = search_patterns(
        trained,
        shapes.test_images,
        settings=SETTINGS,
        classes=[1, 4],
        class_names=shapes.class_names,
        search_images=data.search_images,
        progress=False,
    )
    resumed = module_for(weights)
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    trainer_for(tmp_path / "again").fit(resumed, datamodule=on_noise(), ckpt_path=first)
    for name in ("canvas_indices", "masks", "mask_means", "objectives", "search_indices"):
        for found in (module.patterns, resumed.patterns):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    results = results_of(module)
    assert results["provenance"]["search_images"] == fingerprint(data.search_images)
    assert (results["measured_on"], results["measured_images"]) == ("held_out", 100)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize(
    "other",
    [
        on_noise(seed=1),
        on_noise(count=21),
        ImageDataModule(Shapes(20, 100), 50, search_images=Shapes(20, 20, seed=9)),
        ImageDataModule(Shapes(20, 100), 50),
    ],
    ids=["seed", "count", "kind", "none"],
)
def test_other_search_images_are_refused(tmp_path, trained, other):
    """Of a checkpoint to go on from, and of patterns to measure."""
    module = module_for(trained)
    trainer_for(tmp_path).fit(module, datamodule=on_noise())
    with pytest.raises(ValueError, match="the patterns were searched with another `search_images`"):
        trainer_for(tmp_path / "again").test(module, datamodule=other)
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    with pytest.raises(ValueError, match="the checkpoint was made with another `search_images`"):
        trainer_for(tmp_path / "again").fit(module_for(trained), datamodule=other, ckpt_path=first)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_an_earlier_checkpoint_on_test_images_is_not_resumed_on_noise(tmp_path, trained, shapes):
    trainer_for(tmp_path).fit(module_for(trained), datamodule=shapes)
    first = tmp_path / "checkpoints" / "epoch001.ckpt"
    checkpoint = torch.load(first, weights_only=True)
    assert checkpoint["pattern_search"]["origin"].pop("search_images", ...) is None
    torch.save(checkpoint, first)
    with pytest.raises(ValueError, match="the checkpoint was made with another `search_fraction`"):
        trainer_for(tmp_path / "again").fit(
            module_for(trained), datamodule=on_noise(), ckpt_path=first
        )


class NoRanking(Linear):
    def forward(self, images):
        raise AssertionError("the classifier was asked")


@pytest.mark.parametrize(
    ("channels", "first", "message"),
    [
        (4, 0, "images must have 1 or 3 channels to be drawn, got 4"),
        (3, 1, "has 10 names, so labels must be 0 to 9, got 1 to 10"),
    ],
)
def test_images_and_labels_are_checked_before_the_search(
    tmp_path, channels, first, message, monkeypatch
):
    images = MemoryImages(torch.rand(20, channels, 32, 32), torch.arange(20) % 10 + first)
    monkeypatch.setattr(Shapes, "test", lambda _: images)
    module = module_for(NoRanking(torch.zeros(10, 32, 32)))
    with pytest.raises(ValueError, match=message):
        trainer_for(tmp_path).fit(module, datamodule=ImageDataModule(Shapes(20)))


def test_what_does_not_fit_is_refused_before_the_search(tmp_path, weights, shapes):
    for precision in ("bf16-mixed", "bf16-true"):
        with pytest.raises(MisconfigurationException, match="must be 32-true"):
            trainer_for(tmp_path, precision=precision).fit(module_for(weights), datamodule=shapes)
    with pytest.raises(ValueError, match="`pattern_size`"):
        trainer_for(tmp_path).fit(module_for(weights, pattern_sizes=[2.0]), datamodule=shapes)
    searched = ImageDataModule(Shapes(train_count=20, test_count=100), search_fraction=1.0)
    with pytest.raises(ValueError, match=r"`search_fraction` 1.*only `full`"):
        trainer_for(tmp_path).fit(module_for(weights), datamodule=searched)
    two = create_classifier("resnet20", 2)
    with pytest.raises(ValueError, match="knows 2 classes, the data have 10"):
        trainer_for(tmp_path).fit(module_for(two), datamodule=shapes)


def test_search_images_that_do_not_fit_are_refused_before_the_search(tmp_path):
    module = module_for(NoRanking(torch.zeros(10, 32, 32)))
    with pytest.raises(ValueError, match=r"`search_images` are .*must agree"):
        trainer_for(tmp_path).fit(module, datamodule=on_noise(image_size=16))


def test_class_parallel_refuses_other_modules(tmp_path, shapes):
    trainer = trainer_for(tmp_path, strategy="class_parallel", max_epochs=1)
    with pytest.raises(MisconfigurationException, match="PatternSearchModule only"):
        trainer.fit(NaturalModule("test_resnet"), datamodule=shapes)


def test_averaging_strategies_are_refused():
    module = module_for(Linear(torch.zeros(10, 32, 32)))
    module._trainer = SimpleNamespace(strategy=DDPStrategy(), world_size=2)
    with pytest.raises(MisconfigurationException, match="would average the masks"):
        module.setup("fit")


SEARCH = [
    *("search", "--model", "PatternSearchModule", "--model.search.canvas", "random"),
    *("--model.search.canvases_per_class", "2"),
    *("--model.search.search_epochs", "2", "--model.pattern_sizes", "[0.05]"),
    *("--data.source", "Shapes", "--data.source.init_args.test_count", "100"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
]


def run(*arguments: str, environment=None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "iscp_lightning", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | (environment or {}), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("classes", ["[1, 4]", "[4]"], ids=["balanced", "more ranks than problems"])
def test_two_processes_find_what_one_does(tmp_path, weights, trained, shapes, classes):
    canvas = ["--model.search.canvas", "white"] if classes == "[4]" else []
    arguments = [
        *SEARCH,
        *("--model.classifier", weights, "--model.classes", classes),
        *canvas,
    ]
    environment = {"WANDB_MODE": "offline"}
    run(*arguments, "--run", "two", "--trainer.devices", "2", environment=environment)
    name = "white" if canvas else "random"
    two = PatternSet.load(tmp_path / "runs" / "two" / "patterns" / f"{name}.safetensors")
    main([*arguments, "--run", "one", "--trainer.devices", "1"])
    one = PatternSet.load(tmp_path / "runs" / "one" / "patterns" / f"{name}.safetensors")
    for field in ("targets", "canvas_indices", "masks", "mask_means", "objectives"):
        assert torch.equal(getattr(one, field), getattr(two, field)), field
    results = [
        json.loads((tmp_path / "runs" / n / "results.json").read_text()) for n in ("one", "two")
    ]
    assert results[0]["classes"] == results[1]["classes"]
    logged = read_offline_run(tmp_path / "runs" / "two")
    assert any("mean_predictive_power/0.05" in row for row in logged.history)


NOISE = ["--data.search_images", "Noise", "--data.search_images.init_args.count", "12"]


def test_noise_is_an_option_and_kept_in_the_configuration(weights, trained, capsys):
    arguments = [
        *(*SEARCH, *NOISE, "--model.classifier", weights, "--model.classes", "[1, 4]"),
        *("--trainer.logger", "false", "--trainer.devices", "1", "--seed_everything", "3"),
    ]
    main([*arguments, "--estimate"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = {row[0]: row[1:3] for row in rows if row}
    assert counts["searching"] == ["-", "96"]  # 2 passes * 2 classes * 2 canvases * 12 images
    main([*arguments, "--run", "a"])
    main(["search", "-c", "runs/a/config.yaml", "--run", "b"])
    one, other = (
        PatternSet.load(f"runs/{name}/patterns/random.safetensors") for name in ("a", "b")
    )
    data = ImageDataModule(Shapes(test_count=100), seed=3, search_images=Noise(12, 32, seed=3))
    for found in (one, other):
        assert found.provenance["search_images"] == fingerprint(data.search_images)
        assert torch.equal(found.masks, directly(trained, data).masks)


def first_pass_kept(checkpoint: Path) -> bool:
    if not checkpoint.exists():
        return False
    return torch.load(checkpoint, weights_only=True)["pattern_search"]["done"] > 0


@pytest.mark.slow
def test_killed_search_resumes_to_the_uninterrupted_result(tmp_path, weights):
    """Kill -9 a real search after its first pass, resume it by its folder alone."""
    arguments = [
        *SEARCH,
        *("--model.classifier", weights, "--model.classes", "[1, 4]"),
    ]
    checkpoint = tmp_path / "runs" / "killed" / "checkpoints" / "last.ckpt"
    command = [sys.executable, "-m", "iscp_lightning", *arguments, "--run", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not first_pass_kept(checkpoint) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs" / "killed" / "results.json").exists()
    main(["search", "--resume", "runs/killed"])
    main([*arguments, "--run", "whole"])
    killed, whole = (
        PatternSet.load(tmp_path / "runs" / name / "patterns" / "random.safetensors")
        for name in ("killed", "whole")
    )
    assert torch.equal(killed.masks, whole.masks)
    assert torch.equal(killed.mask_means, whole.mask_means)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last.ckpt"]


def test_a_search_that_crashed_in_its_first_step_can_be_resumed(weights, monkeypatch):
    """Its canvases are kept at once: they are not ranked again."""
    arguments = [
        *SEARCH,
        *("--model.classifier", weights, "--model.classes", "[1, 4]"),
        *("--trainer.logger", "false", "--trainer.devices", "1"),
    ]
    crash = ["--trainer.callbacks", "trainers.Crash"]
    with pytest.raises(RuntimeError, match="out of memory"):
        main([*arguments, *crash, "--run", "broken"])
    start = torch.load("runs/broken/checkpoints/last.ckpt", weights_only=True)
    monkeypatch.setattr(Crash, "armed", False)
    main(["search", "--resume", "runs/broken"])
    main([*arguments, "--run", "whole"])
    broken, whole = (
        PatternSet.load(f"runs/{name}/patterns/random.safetensors") for name in ("broken", "whole")
    )
    assert torch.equal(start["pattern_search"]["canvases"][2], whole.canvas_indices)
    assert torch.equal(broken.masks, whole.masks)
    assert torch.equal(broken.mask_means, whole.mask_means)


def test_a_set_says_what_it_is_in_one_line(trained, shapes):
    settings = SearchSettings(canvas="white", search_epochs=1)
    found = run_search(Subject.of(trained, shapes), settings, [0, 2]).gathered()
    assert repr(found) == "PatternSet(2 patterns of 2 classes, 32 x 32, white canvases)"
