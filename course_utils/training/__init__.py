"""Training: one loop, its turns, its history.

loop.py      the loop itself, and its use on endless and on finite data
turns.py     a loss and the optimizers of what it moves
history.py   what happened, and why it could not go on
run.py       what surrounds the steps: engine, learning rates, measurements
processes.py several processes that share each batch
"""

from course_utils.training.history import (
    BatchesEndedError,
    History,
    TrainingDivergedError,
    TrainingError,
)
from course_utils.training.loop import take_steps, train, train_epochs, train_fresh
from course_utils.training.processes import own_generator
from course_utils.training.run import Measure, own_randomness
from course_utils.training.turns import Turn, adamw, warmup_cosine

__all__ = [
    "BatchesEndedError",
    "History",
    "Measure",
    "TrainingDivergedError",
    "TrainingError",
    "Turn",
    "adamw",
    "own_generator",
    "own_randomness",
    "take_steps",
    "train",
    "train_epochs",
    "train_fresh",
    "warmup_cosine",
]
