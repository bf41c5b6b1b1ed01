"""One thread a worker: two workers whose threads wait for each other are far slower."""

import os

import torch

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the notebooks' kernels
