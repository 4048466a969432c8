"""class_parallel: every process optimises its own search problems, no gradient is averaged."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry


class ClassParallelStrategy(DDPStrategy):
    """DDP's launcher and process group around an unwrapped `PatternSearchModule`."""

    strategy_name = "class_parallel"

    def configure_ddp(self) -> None:
        """Leave the module unwrapped.

        Raises:
            MisconfigurationException: for any other module, which would be trained once per
                process without its processes ever talking.
        """
        if not getattr(self.lightning_module, "searches_in_parallel", False):
            raise MisconfigurationException(
                "`strategy`=class_parallel is for PatternSearchModule only, "
                f"got {type(self.lightning_module).__name__}: train it with ddp"
            )


StrategyRegistry.register(
    ClassParallelStrategy.strategy_name,
    ClassParallelStrategy,
    description="Searches each process's own patterns, without averaging.",
)
