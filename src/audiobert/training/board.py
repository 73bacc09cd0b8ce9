"""Write TensorBoard's log of a run, where the library is installed (extra `train`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"  # below the output folder: `tensorboard --logdir OUT`


class Board:
    """Scalars by step; without the library, or in a process that does not write, nothing happens.

    Parameters
    ----------
    first_step : int
        Step from which a resumed run continues; what was logged from there on is not shown any more.
    """

    def __init__(self, folder: Path, *, first_step: int = 0, write: bool = True) -> None:
        self._writer: Any = None
        if write and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / FOLDER), purge_step=first_step or None)

    def add(self, values: dict[str, float], step: int) -> None:
        """Log values under their names."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
