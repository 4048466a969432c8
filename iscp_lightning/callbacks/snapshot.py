"""PatternSnapshot: class-wise patterns at chosen epochs of any training."""

from __future__ import annotations

from collections.abc import Sequence

from iscp_lightning.callbacks.at_epochs import AtEpochs
from iscp_lightning.patterns.measurement import EACH_EPOCH, PatternMeasurement
from iscp_lightning.patterns.pattern import PATTERN_SIZES
from iscp_lightning.patterns.settings import SearchSettings


class PatternSnapshot(AtEpochs):
    """Searches patterns of the model as it is after chosen epochs, and logs and draws them.

    Args:
        epochs: After how many completed epochs to search; the default is Figure 4's.
        last: Whether to search also when the training ends.
        search: Settings of the search.
        classes: Target classes by index or name; None means all.
        pattern_sizes: Sizes at which predictive power is measured; 0.05 is always among them.
        canvases: `each_epoch` chooses canvases anew, `first` keeps those of the first search,
            anything else is a pattern file whose canvases are used.
        name: Distinguishes several snapshots of one training: begins the names of files, logged
            values and tables.
    """

    def __init__(
        self,
        epochs: Sequence[int] = (3, 5, 10, 50, 100),
        last: bool = True,
        search: SearchSettings = SearchSettings(),
        classes: Sequence[int | str] | None = None,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
        canvases: str = EACH_EPOCH,
        name: str = "",
    ) -> None:
        patterns = PatternMeasurement(search, classes, pattern_sizes, canvases)
        super().__init__(patterns, epochs, last, name)
