"""What training says: its history, and why it could not go on."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class History:
    """What happened in training, kept also when it was interrupted.

    Attributes:
        losses: turn → mean loss of every step's batch; a turn that repeats says its
            last, one that is played 0 times says nothing.
        step: the steps after which the model was measured.
        measured: name → mean over the held-out samples at each of those steps.
        seconds: CPU-seconds spent, measurements included.
        interrupted: whether the user stopped it.
        snapshots: number of epochs → the weights after them, of those asked for.
    """

    losses: dict[str, list[float]] = field(default_factory=dict)
    step: list[int] = field(default_factory=list)
    measured: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    snapshots: dict[int, dict[str, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def loss(self) -> list[float]:
        """The losses of the only turn, or of the last."""
        played = [values for values in self.losses.values() if values]
        return played[-1] if played else []


class TrainingError(RuntimeError):
    """Training could not go on.

    Attributes:
        history: what happened until then. The model holds what it had learnt by the
            last step, or the average of the weights if one was asked for.
    """

    history: History


class TrainingDivergedError(TrainingError):
    """A loss or a gradient is not finite, or the model got far worse than at the start.

    It is said before the step is taken.
    """


class BatchesEndedError(TrainingError):
    """There were fewer batches than steps."""
