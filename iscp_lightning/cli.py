"""The command line: LightningCLI with run folders, `search`, and a demo that needs no arguments."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger

from iscp_lightning import __version__
from iscp_lightning.arguments import Parser, check_configurations, complete_arguments, typed
from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import Norm
from iscp_lightning.attacks.robustness import ATTACKS
from iscp_lightning.callbacks.robustness import RobustnessEvaluation
from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.classifiers.checkpoints import unreadable
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.loggers import RunCSVLogger, RunWandbLogger, finish_wandb
from iscp_lightning.messages import fail, mistake
from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.patterns.recovery import format_recovery
from iscp_lightning.patterns.results import format_table
from iscp_lightning.patterns.snapshot import PatternSnapshot, read_snapshots
from iscp_lightning.runs import RUN_VARIABLE, Run, is_dry, is_first_process, may_write, write_json
from iscp_lightning.trainer import (
    AtomicCheckpointIO,
    EpochCheckpoint,
    RunStart,
    Trainer,
    processes,
    refused,
)
from iscp_lightning.training import RobustDataWriter

RUNS = Path("runs")
HARMLESS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.9 or newer
    r"The '.*_dataloader' does not have many workers",  # the images are in memory
    r"Checkpoint directory .* exists and is not empty",  # `--resume` means it
    r"Total length of `list` across ranks is zero",  # `val_fraction: 0` means it
    r"The number of training batches .* is smaller than the logging interval",
)


class CLI(LightningCLI):
    """`python -m iscp_lightning`.

    Args:
        run: The run, whose folder is decided here.
        args: As for `main`.
        kwargs: As for LightningCLI.
    """

    evaluation: RobustnessEvaluation | None = None
    tested: str | None = None

    def __init__(self, run: Run, args: ArgsType, **kwargs: Any) -> None:  # noqa: ANN401
        self.run = run
        self.typed = sys.argv[1:] if args is None else list(args)
        super().__init__(args=args, **kwargs)

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

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401
        """Return a parser of which model, data and trainer may lie in files of their own."""
        parser = super().init_parser(**kwargs)
        assert isinstance(parser, Parser)
        parser.reads_files = True
        return parser

    def before_instantiate_classes(self) -> None:
        """Decide on run folder and strategy; keep what defines the run."""
        config = self.config[self.subcommand]
        for name in ("resume", "overwrite"):
            if not typed(name, self.typed):  # a configuration cannot say what happens to a folder
                config[name] = None if name == "resume" else False
        self.kept = kept_config(self._parser(self.subcommand), config)
        require_checkpoint(config.ckpt_path)
        locate(self.run, config, str(self.subcommand))
        folder, trainer = self.run.folder, config.trainer
        trainer.default_root_dir = str(folder)
        config.checkpoint.dirpath = str(folder / "checkpoints")
        if config.resume:
            config.ckpt_path = str(folder / "checkpoints" / "last.ckpt")
        if config.data.seed is None and config.seed_everything is not False:
            config.data.seed = config.seed_everything
        for logger in own_loggers(trainer):
            logger.init_args.save_dir = str(folder)
            if "project" in logger.init_args:
                logger.init_args |= {"name": folder.name, "version": self.run.id}
        if self.subcommand == "search" and trainer.strategy == "auto":
            try:
                several = processes(trainer) > 1
            except (ValueError, ImportError, MisconfigurationException) as error:
                fail(f"the Trainer refuses {refused(trainer, error)}")
            trainer.strategy = "class_parallel" if several else "auto"

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:  # noqa: ANN401
        """Return the Trainer, which gets its loggers when the run starts."""
        config = self.config[self.subcommand]
        try:
            trainer = super().instantiate_trainer(**kwargs | {"logger": False})
        except (ValueError, ImportError, MisconfigurationException) as error:
            fail(f"the Trainer refuses {refused(config.trainer, error)}")
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(self.run)
        if config.attacks is not None:
            self.evaluation = RobustnessEvaluation(
                config.attacks, config.attack_epsilon, config.attack_norm, config.attack_images
            )
            trainer.callbacks.append(self.evaluation)  # type: ignore[attr-defined]
        elif config.attack_epsilon is not None or config.attack_images is not None:
            fail("`--attack_epsilon` and `--attack_images` go with `--attacks`")
        given = self._get(self.config_init, "trainer").logger
        loggers = run_loggers(self.run, given)
        start = RunStart(self.run, self.kept, loggers)
        trainer.callbacks.append(start)  # type: ignore[attr-defined]
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
        classifier = getattr(self.model, "classifier", None)
        tested = None if classifier is None else classifier_hash(classifier)
        results |= {"tested_classifier_hash": tested}
        if self.tested:
            results |= {"tested_checkpoint": self.tested}
            lines.append(f"tested: {self.tested}")
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        for name in [c.name for c in callbacks if isinstance(c, PatternSnapshot)]:
            title = f"{name}-patterns" if name else "patterns"
            for last in read_snapshots(folder, name)[-1:]:
                results |= {title: last.results}
                whose = f"the weights after epoch {last.provenance['epoch']:g}"
                if last.provenance["classifier_hash"] != tested:
                    whose += f", not of the tested {Path(self.tested or 'classifier').name}"
                on = last.results["measured_on"]
                lines += [
                    f"{title} of {whose}; measured on {on} test images:",
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
    given = sys.argv[1:] if args is None else args if isinstance(args, list) else []
    check_configurations(given)
    run = Run(given)
    try:
        cli = CLI(
            run,
            args,
            model_class=L.LightningModule,
            datamodule_class=ImageDataModule,
            trainer_class=Trainer,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=None,
            parser_class=Parser,
            parser_kwargs={"prog": "python -m iscp_lightning", "version": __version__},
            trainer_defaults={"inference_mode": False, "num_sanity_val_steps": 0},
        )
        run.keep()
        return cli
    except BaseException as error:
        finish_wandb()
        run.abandon()
        if line := mistake(error):
            fail(line)
        raise
    finally:
        finish_wandb()


def locate(run: Run, config: Namespace, subcommand: str) -> None:
    """Say where the run writes, the same on all ranks.

    Raises:
        SystemExit: with a message, if the folder exists already or holds nothing to resume.
    """
    if not is_first_process() and RUN_VARIABLE in os.environ:
        run.folder = Path(os.environ[RUN_VARIABLE])
    elif config.resume:
        run.go_on(Path(config.resume))
        if not (run.folder / "checkpoints" / "last.ckpt").is_file():
            fail(
                f"`--resume {config.resume}`: no checkpoint in {run.folder / 'checkpoints'}; start "
                f"it anew: {subcommand} -c {run.folder / 'config.yaml'} --run {run.folder.name} "
                "--overwrite"
            )
    else:
        run.folder = RUNS / run_name(config.run, subcommand)
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0  # Lightning goes on by itself
        if requeued and run.folder.exists():
            run.go_on(run.folder)
        run.replaces = config.overwrite and not run.resumes
        checked = is_first_process() and not run.resumes and not config.trainer.fast_dev_run
        if checked and run.folder.exists() and not config.overwrite:
            fail(f"{run.folder} exists: choose another `--run`, or give `--overwrite`")
        if (
            config.ckpt_path
            and run.folder in Path(config.ckpt_path).parents
            and subcommand != "fit"
        ):
            fail(f"`--ckpt_path {config.ckpt_path}` lies in the run that `--overwrite` replaces")
    os.environ[RUN_VARIABLE] = str(run.folder)


def run_name(given: str | None, subcommand: str) -> str:
    """Return the name of a run's folder: the given one, else command and time.

    Raises:
        SystemExit: with a message, if it is no plain name, or processes could disagree on it.
    """
    many = int(os.environ.get("SLURM_NTASKS", 1)) > 1
    alone = "TORCHELASTIC_RUN_ID" not in os.environ and (many or "NODE_RANK" not in os.environ)
    if given is None and not alone:
        fail("`--run NAME` must be given on several nodes, so that all processes agree on it")
    stamp = os.environ["SLURM_JOB_ID"] if many else time.strftime("%Y%m%d-%H%M%S")
    name = given or f"{subcommand}-{stamp}"
    if Path(name).name != name or name in (".", ".."):
        fail(f"`--run` must be a plain folder name under {RUNS}/, got {name!r}")
    return name


def require_checkpoint(path: str | None) -> None:
    """Leave with a message if a path is neither a checkpoint nor a word that the Trainer knows."""
    if path in (None, "best", "last", "hpc", "registry") or ":" in path:
        return
    if not Path(path).is_file():
        fail(f"`--ckpt_path {path}` is neither an existing file nor best or last")
    try:
        torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # a garbled file makes the reader raise anything
        fail(f"`--ckpt_path {path}` is no checkpoint of a run: {unreadable(Path(path), error)}")


def own_loggers(trainer: Namespace) -> list[Namespace]:
    """Return the given loggers that write into the run folder."""
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    prefix = "iscp_lightning."
    return [x for x in loggers if isinstance(x, Namespace) and x.class_path.startswith(prefix)]


def kept_config(parser: LightningArgumentParser, config: Namespace) -> str:
    """Return the configuration as YAML: what defines a run, not where and how it was started."""
    kept = config.clone()
    for name in ("run", "overwrite", "resume", "config"):
        kept.pop(name, None)
    for logger in own_loggers(kept.trainer):
        for name in ("save_dir", "name", "version"):
            logger.init_args.pop(name, None)
    text: str = parser.dump(kept, skip_unset=False)
    return text


def run_loggers(run: Run, given: Any) -> list[Logger]:  # noqa: ANN401
    """Return the loggers of a run: the given ones, else CSV and W&B; with any there is CSV."""
    if given is None or given is True:
        given = [RunWandbLogger(str(run.folder), run.folder.name, run.id)]
    loggers: list[Logger] = given if isinstance(given, list) else [given] if given else []
    if loggers and not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers = [RunCSVLogger(str(run.folder)), *loggers]
    return loggers


def tell(folder: Path, lines: list[str]) -> None:
    """Write lines and the paths of the run's figures and results to standard output."""
    finish_wandb()  # its own summary would push the lines out of sight
    paths = [*sorted((folder / "figures").glob("*.png")), folder / "results.json"]
    sys.stdout.write("\n".join([*lines, "", *map(str, paths), ""]))
