"""Imported once by the fork server, so that every worker has the heavy modules for nothing."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one torch thread per simulated site: more slow each other down
os.environ["MKL_NUM_THREADS"] = "1"

import torch

import client.app
import client.training.dpsgd.engine
import client.training.evaluation
import client.training.trainer
import common.data.sequences
import common.model.baselines
from common.privacy.accountant import epsilon_of
from common.privacy.mechanism import PrivacyEvent

torch.set_num_threads(1)
epsilon_of((PrivacyEvent(1.0, 1.0, 1),), 1e-5)  # draws in the accounting library, and computes next to nothing
__all__ = ["client", "common", "torch"]
