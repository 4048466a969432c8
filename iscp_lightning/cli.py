"""The command line: LightningCLI with run folders, `search`, and a demo that needs no arguments."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from iscp_lightning import __version__
from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import Norm
from iscp_lightning.attacks.robustness import ATTACKS
from iscp_lightning.classifiers import RobustDataWriter
from iscp_lightning.classifiers.evaluation import RobustnessEvaluation
from iscp_lightning.data import ImageDataModule
from iscp_lightning.loggers import RunCSVLogger, finish_wandb
from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.patterns.recovery import format_recovery
from iscp_lightning.patterns.results import format_table
from iscp_lightning.patterns.snapshot import read_snapshots
from iscp_lightning.runs import (
    RUN_VARIABLE,
    is_dry,
    may_write,
    process_rank,
    write_json,
)
from iscp_lightning.trainer import AtomicCheckpointIO, EpochCheckpoint, SaveConfig, Trainer

DEMO = Path(__file__).with_name("demo.yaml")
RUNS = Path("runs")
HARMLESS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.9 or newer
    r"The '.*_dataloader' does not have many workers",  # the images are in memory
    r"Checkpoint directory .* exists and is not empty",  # `--resume` means it
    r"Total length of `list` across ranks is zero",  # `val_fraction: 0` means it
    r"The number of training batches .* is smaller than the logging interval",
)


class CLI(LightningCLI):
    """`python -m iscp_lightning`."""

    evaluation: RobustnessEvaluation | None = None
    tested: str | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's sub-commands and `search`."""
        return {**LightningCLI.subcommands(), "search": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, the always-on checkpoint and what the model takes from the data."""
        parser.add_argument("--run", type=str | None, help="name of the folder under runs/")
        parser.add_argument("--overwrite", action="store_true", help="replace an existing run")
        parser.add_argument("--resume", type=str | None, help="run folder to go on with")
        parser.add_argument(
            "--attacks",
            nargs="*",
            type=str,
            help=f"attack the tested classifier: {', '.join(ATTACKS)}; alone: all but autoattack",
        )
        parser.add_argument(
            "--attack_epsilon",
            type=Epsilon | None,
            help="radius of the attacks in pixel units of [0, 1]; default 8/255, for l2 0.5",
        )
        parser.add_argument("--attack_norm", type=Norm, default="linf", help="ball of the attacks")
        parser.add_argument(
            "--attack_images", type=int | None, help="how many test images are attacked"
        )
        parser.add_lightning_class_args(EpochCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "epoch{epoch:03d}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )
        for name in ("num_classes", "image_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Do not merge a checkpoint's hyper-parameters over what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Decide on run folder, loggers and strategy."""
        config = self.config[self.subcommand]
        folder = run_folder(config, str(self.subcommand))
        trainer = config.trainer
        trainer.default_root_dir = str(folder)
        config.checkpoint.dirpath = str(folder / "checkpoints")
        if config.resume:
            config.ckpt_path = str(folder / "checkpoints" / "last.ckpt")
        if trainer.fast_dev_run:
            trainer.logger = False  # a logger would make its folder
        elif trainer.logger is None or trainer.logger is True:
            trainer.logger = default_loggers(folder)
        for logger in trainer.logger if isinstance(trainer.logger, list) else []:
            if logger.class_path.startswith("iscp_lightning."):
                logger.init_args.save_dir = str(folder)  # a resumed run may have moved
        if self.subcommand == "search" and trainer.strategy == "auto" and processes(trainer) > 1:
            trainer.strategy = "class_parallel"

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:  # noqa: ANN401
        """Return the Trainer, whose CSV log forgets what a resumed run will write again."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        config = self.config[self.subcommand]
        if config.attacks is not None:
            self.evaluation = RobustnessEvaluation(
                config.attacks, config.attack_epsilon, config.attack_norm, config.attack_images
            )
            trainer.callbacks.append(self.evaluation)  # type: ignore[attr-defined]
        elif config.attack_epsilon is not None or config.attack_images is not None:
            fail("`--attack_epsilon` and `--attack_images` go with `--attacks`")
        has_csv = any(isinstance(logger, CSVLogger) for logger in trainer.loggers)
        if trainer.loggers and not has_csv and may_write(trainer):
            trainer.loggers = [*trainer.loggers, RunCSVLogger(trainer.default_root_dir)]
        if config.resume and trainer.is_global_zero:
            checkpoint = torch.load(config.ckpt_path, map_location="cpu", weights_only=True)
            for logger in trainer.loggers:
                if isinstance(logger, RunCSVLogger):
                    loop = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]
                    logger.drop_from(loop["_batches_that_stepped"])
        return trainer

    def after_fit(self) -> None:
        """Measure the trained classifier on the test sets and print what was found."""
        best = getattr(self.model, "best_checkpoint", None)  # of adversarial training
        if best and not is_dry(self.trainer):
            if best.is_file():
                self.tested = str(best)
            else:
                warnings.warn("no validation has run: the last weights are tested", stacklevel=2)
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=self.tested, verbose=False
        )
        if isinstance(self.model, PatternSearchModule):
            self.after_search()
        else:
            self.after_test()

    def after_test(self) -> None:
        """Write results.json and print accuracies and the table of the last patterns."""
        if not may_write(self.trainer):
            return
        folder = Path(self.trainer.default_root_dir)
        metrics = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        results: dict[str, Any] = {"test": metrics} | getattr(self.model, "results", {})
        lines = [""]
        if self.tested:
            results |= {"tested_checkpoint": self.tested}
            lines.append(f"tested: {self.tested}")
        if snapshots := read_snapshots(folder):
            results |= {"patterns": snapshots[-1].results}
            last = snapshots[-1]
            title = f"patterns after epoch {last.provenance['epoch']}, measured on"
            lines += [
                f"{title} {last.results['measured_on']} test images:",
                format_table(last.results),
            ]
        overall = {name: value for name, value in metrics.items() if name.count("/") == 1}
        lines += [f"{name}: {value:.3f}" for name, value in overall.items()]
        if self.evaluation and self.evaluation.results:
            found = self.evaluation.results
            results |= {"robustness": found}
            ball = f"{found['norm']} {found['epsilon']:.4g}"
            lines.append(f"attacked: {found['images']} images, {ball}")
            lines += found["flags"] or ["no sign of gradient masking"]
        write_json(folder / "results.json", results)
        tell(folder, lines)

    def after_search(self) -> None:
        """Print the table of a search."""
        if may_write(self.trainer):
            assert isinstance(self.model, PatternSearchModule)
            lines = ["", format_table(self.model.results)]
            if recovery := self.model.results.get("trigger_recovery"):
                lines.append(format_recovery(recovery))
            tell(Path(self.trainer.default_root_dir), lines)

    def after_predict(self) -> None:
        """Say where a built set lies."""
        writes = isinstance(self.model, RobustDataWriter) and may_write(self.trainer)
        if writes and self.model.path.is_file():
            sys.stdout.write(f"{self.model.path}\n")


def main(args: ArgsType = None) -> CLI:
    """Run the command line and return its CLI object.

    Args:
        args: Arguments without the program name; None takes the process's own.
    """
    if args is None:
        sys.argv[1:] = complete_arguments(sys.argv[1:])
        warnings.formatwarning = lambda text, kind, *_, **__: f"{kind.__name__}: {text}\n"
    elif isinstance(args, Sequence):
        args = complete_arguments([str(item) for item in args])
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", harmless)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        return CLI(
            L.LightningModule,
            ImageDataModule,
            trainer_class=Trainer,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "python -m iscp_lightning", "version": __version__},
            trainer_defaults={"inference_mode": False, "num_sanity_val_steps": 0},
            args=args,
        )
    except (ValueError, MisconfigurationException) as error:
        finish_wandb()
        discard_empty_run()
        if args is None and is_ours(error):
            fail(str(error))
        raise
    finally:
        finish_wandb()


def is_ours(error: BaseException) -> bool:
    """Return whether this package or the parser of its arguments raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    path = Path(frames[-1][0].f_code.co_filename)
    return DEMO.parent in path.parents or "jsonargparse" in path.parts


def discard_empty_run() -> None:
    """Remove the run folder of this process if nothing but its configuration was written."""
    folder = Path(os.environ.get(RUN_VARIABLE, ""))
    if folder.parent != RUNS or process_rank() != 0 or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= {"config.yaml", "wandb"}:
        shutil.rmtree(folder)


def complete_arguments(args: list[str]) -> list[str]:
    """Return the arguments with the demo's configuration, or that of the run to resume.

    `fit` alone is the demo. Its defaults stay out as soon as the user gives a configuration, a
    model or data of his own; `--model.x` and `--data.x` change single values of it.
    """
    for position, item in enumerate(args):
        if re.match(r"--resume(=|$)", item):
            folder = item.partition("=")[2] or next(iter(args[position + 1 :]), "")
            return resume_arguments(args, folder)
    own = re.compile(r"(-c|--config|--model|--data)(=.*)?$|-c.+")
    if not args or any(own.match(item) for item in args):
        return args
    return ["fit", "-c", str(DEMO), *args[1:]] if args[0] == "fit" else args


def resume_arguments(args: list[str], folder: str) -> list[str]:
    """Return the arguments with the configuration of the run that is resumed.

    Raises:
        SystemExit: with a message, if the run is not there or shall be changed.
    """
    config = ["-c", str(Path(folder) / "config.yaml")]
    if args[1:3] == config:  # a further process of one that has been here
        return args
    if not Path(config[1]).is_file():
        fail(f"`--resume {folder}`: {config[1]} does not exist")
    fixed = ("-c", "--config", "--model", "--data", "--seed", "--trainer.max_", "--trainer.prec")
    if changes := [item for item in args if item.startswith(fixed)]:
        fail(f"`--resume` goes on with the run's own settings, got {', '.join(changes)}")
    return [args[0], *config, *args[1:]]


def run_folder(config: Namespace, subcommand: str) -> Path:
    """Return the run folder, the same on all ranks; rank 0 checks and clears it.

    Raises:
        SystemExit: with a message, if the folder exists already or holds nothing to resume.
    """
    if process_rank() != 0 and RUN_VARIABLE in os.environ:
        return Path(os.environ[RUN_VARIABLE])
    if config.resume:
        folder = Path(config.resume)
        if not (folder / "checkpoints" / "last.ckpt").is_file():
            fail(f"`--resume {folder}`: no checkpoint in {folder / 'checkpoints'}")
    else:
        many = int(os.environ.get("SLURM_NTASKS", 1)) > 1
        stamp = os.environ["SLURM_JOB_ID"] if many else time.strftime("%Y%m%d-%H%M%S")
        name = config.run or f"{subcommand}-{stamp}"
        if Path(name).name != name or name in (".", ".."):
            fail(f"`--run` must be a plain folder name under {RUNS}/, got {name!r}")
        if "TORCHELASTIC_RUN_ID" in os.environ and not config.run:
            fail("`--run NAME` must be given under torchrun, so that all processes agree on it")
        folder = RUNS / name
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0  # Lightning goes on by itself
        checked = process_rank() == 0 and not requeued and not config.trainer.fast_dev_run
        if checked and folder.exists():
            if not config.overwrite:
                fail(f"{folder} exists: choose another `--run`, or give `--overwrite`")
            shutil.rmtree(folder)
    os.environ[RUN_VARIABLE] = str(folder)
    return folder


def default_loggers(folder: Path) -> list[Namespace]:
    """Return the configuration of the CSV and W&B loggers of a run folder."""
    version = f"r{uuid.uuid4().hex[:8]}"  # the letter: YAML would read 1e234567 as a number
    wandb = {"save_dir": str(folder), "name": folder.name, "version": version}
    return [
        Namespace(class_path=f"iscp_lightning.loggers.{name}", init_args=Namespace(**arguments))
        for name, arguments in (
            ("RunCSVLogger", {"save_dir": str(folder)}),
            ("RunWandbLogger", wandb | {"project": "iscp_lightning"}),
        )
    ]


def processes(trainer: Namespace) -> int:
    """Return how many processes Lightning will start for this configuration."""
    probe = L.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return int(probe.world_size)


def tell(folder: Path, lines: list[str]) -> None:
    """Write lines and the paths of the run's figures and results to standard output."""
    finish_wandb()  # its own summary would push the lines out of sight
    paths = [*sorted((folder / "figures").glob("*.png")), folder / "results.json"]
    sys.stdout.write("\n".join([*lines, "", *map(str, paths), ""]))


def fail(message: str) -> None:
    """Leave with the exit code and style of a command-line error."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)
