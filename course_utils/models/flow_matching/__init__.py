"""Flow matching: a velocity field v(y, t) that carries noise to data in unit time.

path.py        y_t = t·y₁ + (1−t)·y₀, how t is drawn, which noise goes with which point
velocity.py    the network v(y, t), with a head start
model.py       the loss, sampling by dy/dt = v, and the likelihood
truth.py       the best field v*, the floor of the loss, the gap to them
"""

from course_utils.models.flow_matching.model import (
    FlowMatching,
    FlowMatchingLoss,
    train_flow_matching,
)
from course_utils.models.flow_matching.path import (
    LinearPath,
    draw_time,
    independent,
    optimal_transport,
)
from course_utils.models.flow_matching.truth import (
    GapToOptimum,
    OptimalVelocity,
    loss_floor,
    mean_loss_floor,
    velocity_gap,
)
from course_utils.models.flow_matching.velocity import (
    GuidedVelocity,
    Velocity,
    VelocityNet,
    mlp_velocity,
)

__all__ = [
    "FlowMatching",
    "FlowMatchingLoss",
    "GapToOptimum",
    "GuidedVelocity",
    "LinearPath",
    "OptimalVelocity",
    "Velocity",
    "VelocityNet",
    "draw_time",
    "independent",
    "loss_floor",
    "mean_loss_floor",
    "mlp_velocity",
    "optimal_transport",
    "train_flow_matching",
    "velocity_gap",
]
