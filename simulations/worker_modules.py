"""Imported once by the fork server, so that every worker has the heavy modules for nothing."""

import importlib
import os

os.environ["OMP_NUM_THREADS"] = "1"  # one torch thread per simulated site: more slow each other down
os.environ["MKL_NUM_THREADS"] = "1"

import torch

from common.privacy import warm_up

HEAVY = (
    "client.app",
    "client.training.dpsgd.engine",
    "client.training.evaluation",
    "client.training.trainer",
    "common.data.sequences",
    "common.model.baselines",
)
for _name in HEAVY:
    importlib.import_module(_name)

torch.set_num_threads(1)
warm_up()
