"""Imported once by the fork server, so that every worker has the heavy modules for nothing."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one torch thread per simulated site: more slow each other down
os.environ["MKL_NUM_THREADS"] = "1"

import client.app
import client.training.trainer
import common.model.network
import torch

torch.set_num_threads(1)
__all__ = ["client", "common", "torch"]
