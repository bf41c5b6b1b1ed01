"""One thread a worker: two workers whose threads wait for each other are far slower."""

import torch

torch.set_num_threads(1)
