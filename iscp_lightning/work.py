"""Work: what a stage of a command takes, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Work:
    """What a stage takes, of all processes together where nothing else is said.

    Attributes:
        stage: What it is called.
        forwards: Images that pass through the network once.
        gradients: Images whose gradient is computed: once forward and once back.
        updates: Images of which the weights learn.
        device_bytes: What one process holds on its device, without network and activations.
        host_bytes: What the first process, which holds most, has in its memory besides.
    """

    stage: str
    forwards: int = 0
    gradients: int = 0
    updates: int = 0
    device_bytes: int = 0
    host_bytes: int = 0

    def times(self, number: int) -> Work:
        """Return it done several times, one after the other."""
        return replace(
            self,
            forwards=number * self.forwards,
            gradients=number * self.gradients,
            updates=number * self.updates,
        )
