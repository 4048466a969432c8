"""Experiment: model, data and Trainer of one run, from what was typed and configured."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from iscp_lightning.arguments import Parser, typed
from iscp_lightning.classifiers.rates import Rates
from iscp_lightning.commands._earlier import Earlier, agree
from iscp_lightning.commands._estimate import estimated
from iscp_lightning.commands._folder import locate, require_checkpoint
from iscp_lightning.commands._results import report
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.loggers import own_loggers, run_loggers
from iscp_lightning.messages import fail
from iscp_lightning.runs import Run, is_first_process
from iscp_lightning.trainer import (
    AtomicCheckpointIO,
    EpochCheckpoint,
    RunStart,
    Trainer,
    processes,
    refused,
)
from iscp_lightning.work import Work

HARMLESS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.9 or newer
    r"The '.*_dataloader' does not have many workers",  # the images are in memory
    r"Checkpoint directory .* exists and is not empty",  # `--resume` means it
    r"The dirpath has changed from",  # another run's checkpoint is read
    r"Total length of `list` across ranks is zero",  # `val_fraction: 0` means it
    r"The number of training batches .* is smaller than the logging interval",
)
ROOMS = (
    *("data", "training", "callbacks", "patterns.module", "patterns.measurement"),
    *("probes", "probes.module", "inversion.module"),
)
TYPED_ONLY = {"resume": None, "overwrite": False}  # a configuration has no say in these
Module = TypeVar("Module", bound=L.LightningModule)


class Experiment(LightningCLI, Generic[Module]):
    """What a command works with: it may look at `config` and change it, and then calls `build`.

    `Experiment[SomeModule]` takes models of that class alone.

    Args:
        name: Name of the command.
        function: The command, whose parameters are its options.
        arguments: What is parsed.
        given: What of it was typed.
        model_class: Class of the models that it takes.
        earlier: What `--from` names.

    Attributes:
        run: The run, whose folder is decided by `build`.
        config: What was parsed.
        options: Values of the command's own options.
        model: The module; with `datamodule` and `trainer` from `build` on.
        ckpt_path: Checkpoint that the Trainer begins with, likewise.
    """

    model: Module
    datamodule: ImageDataModule
    trainer: Trainer
    ckpt_path: str | None

    def __init__(
        self,
        name: str,
        function: Callable[..., None],
        arguments: Sequence[str],
        given: Sequence[str],
        model_class: type[Module],
        earlier: Earlier | None = None,
    ) -> None:
        for harmless in HARMLESS:
            warnings.filterwarnings("ignore", harmless)
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        for room in ROOMS:  # what is imported can be named without its module
            import_module(f"iscp_lightning.{room}")
        self.name = name
        self.function = function
        self.given = given
        self.earlier = earlier
        self.takes = model_class
        self.run = Run([name, *given])
        super().__init__(
            args=list(arguments),
            run=False,
            model_class=L.LightningModule,
            datamodule_class=ImageDataModule,
            trainer_class=Trainer,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=None,
            parser_class=Parser,
            parser_kwargs={"prog": f"python -m iscp_lightning {name}"},
            trainer_defaults={"inference_mode": False, "num_sanity_val_steps": 0},
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401
        """Return a parser of which model, data and trainer may lie in files of their own."""
        parser = super().init_parser(**kwargs)
        assert isinstance(parser, Parser)
        parser.reads_files = True
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the command's own options, the run folder, and what the model takes from the data."""
        assert isinstance(parser, Parser)
        self.own = parser.add_options(self.function, skip=["experiment"])
        parser.add_argument("--run", type=str | None, help="name of the folder under runs/")
        parser.add_argument("--overwrite", action="store_true", help="replace an existing run")
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, whatever the process's own arguments are."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Keep what defines the run, before anything in it is decided by the machine."""
        for name, untyped in TYPED_ONLY.items():
            if name in self.config and typed(name, self.given) is None:
                self.config[name] = untyped
        if (place := self.config.get("from_")) and typed("from", self.given) is None:
            fail(f"`from` must be typed: `--from {place}`; a configuration cannot say it")
        if self.earlier:
            agree(self.config, self.earlier)
        self.kept = self._kept_config()
        if self.config.data.seed is None and self.config.seed_everything is not False:
            self.config.data.seed = self.config.seed_everything

    def instantiate_classes(self) -> None:
        """Wait for `build`: the command may have something to decide before."""

    @property
    def options(self) -> dict[str, Any]:
        """Values of the command's own options by the names of its parameters; classes are built."""
        parser = Parser()
        parser.add_options(self.function, skip=["experiment"])
        given = Namespace({name: self.config[name] for name in self.own})
        built = parser.instantiate(given)
        return {name: built[name] for name in self.own}

    @property
    def processes(self) -> int:
        """How many processes the Trainer will start.

        Raises:
            SystemExit: with a message, if the Trainer cannot be made.
        """
        try:
            return processes(self.config.trainer)
        except (ValueError, ImportError, MisconfigurationException) as error:
            fail(f"the Trainer refuses {refused(self.config.trainer, error)}")

    def build(
        self,
        ckpt_path: str | None = None,
        resume: str | None = None,
        callbacks: Sequence[L.Callback] = (),
        dry: bool = False,
    ) -> None:
        """Decide on the run folder, and make data, model and Trainer.

        Args:
            ckpt_path: Checkpoint that the Trainer shall begin with.
            resume: Folder of a run to go on with, from its last checkpoint.
            callbacks: Callbacks of the command's own.
            dry: Whether nothing will be written.

        Raises:
            SystemExit: with a message, if folder, checkpoint, model or Trainer are refused.
        """
        require_checkpoint(ckpt_path)
        config, trainer = self.config, self.config.trainer
        locate(
            self.run,
            self.name,
            config.run,
            resume=resume,
            overwrite=config.overwrite,
            dry=dry or bool(trainer.fast_dev_run),
            reads=None if self.name == "fit" else ckpt_path,
        )
        folder = self.run.folder
        self.ckpt_path = str(folder / "checkpoints" / "last.ckpt") if resume else ckpt_path
        trainer.default_root_dir = str(folder)
        config.checkpoint.dirpath = str(folder / "checkpoints")
        for logger in own_loggers(trainer.logger):
            logger.init_args.save_dir = str(folder)
            if "project" in logger.init_args:
                logger.init_args |= {"name": folder.name, "version": self.run.id}
        self.callbacks = callbacks
        super().instantiate_classes()
        if not isinstance(self.model, self.takes):
            taken, got = self.takes.__name__, type(self.model).__name__
            fail(f"`{self.name}` needs a {taken} as `model`, got {got}")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:  # noqa: ANN401
        """Return the Trainer, which gets its loggers when the run starts."""
        try:
            trainer = super().instantiate_trainer(**kwargs | {"logger": False})
        except (ValueError, ImportError, MisconfigurationException) as error:
            fail(f"the Trainer refuses {refused(self.config.trainer, error)}")
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(self.run)
        loggers = run_loggers(self.run, self.config_init.trainer.logger)
        start = RunStart(self.run, self.kept, loggers)
        trainer.callbacks += [*self.callbacks, start]  # type: ignore[attr-defined]
        return trainer

    @property
    def weights(self) -> str | None:
        """The weights file that the model is made from, None if there is none."""
        settings = self.config.model.init_args
        given = settings.get("weights") or settings.get("classifier")
        return given if isinstance(given, str) and Path(given).is_file() else None

    def estimate(self) -> None:
        """Print what the run would take: images, memory and time.

        Raises:
            SystemExit: with a message, if the module cannot say it.
        """
        if not is_first_process():  # a launcher has started several
            return
        data, device = self.datamodule, self.trainer.strategy.root_device
        # processes of one machine share its cores, and its rates are those of all cores
        processes = self.trainer.num_nodes if device.type == "cpu" else self.trainer.world_size
        data.prepare_data()
        data.setup("fit")
        module = type(self.model).__name__
        if not hasattr(self.model, "work"):
            fail(f"`--estimate`: {module} does not say what it takes")
        works: list[Work] = []
        for part in (self.model, *self.trainer.callbacks):  # type: ignore[attr-defined]
            works += part.work(data, self.trainer) if hasattr(part, "work") else []
        rates: Rates = self.model.rates(data, device)  # type: ignore[operator]
        sys.stdout.write(f"{estimated(works, rates, processes, device.type)}\n")

    def report(self, tested: str | None = None) -> None:
        """Write and print what was found; see `report`."""
        report(self.model, self.trainer, tested)

    def _kept_config(self) -> str:
        """Return the configuration as YAML: what defines a run, not where and how it started."""
        kept = self.config.clone()
        unset = [name for name in self.own if kept[name] == self.parser.get_default(name)]
        for name in ("run", "config", "from_", *TYPED_ONLY, *unset):
            kept.pop(name, None)
        for logger in own_loggers(kept.trainer.logger):
            for name in ("save_dir", "name", "version"):
                logger.init_args.pop(name, None)
        text: str = self.parser.dump(kept, skip_unset=False)
        return text
