"""Imported once by the fork server, so that every worker has the heavy modules for nothing."""

import gc
import importlib
import os

from common.late import import_late

HEAVY = (
    "torch",
    "client.app",
    "client.training.dpsgd.engine",
    "client.training.evaluation",
    "client.training.trainer",
    "common.data.sequences",
    "common.model.baselines",
    "common.model.run_model",
    "simulations.grid",
    "simulations.oracle",
    "simulations.tasks.behaviour",
)


def _load() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # one torch thread per simulated site: more slow each other down
    os.environ["MKL_NUM_THREADS"] = "1"
    import_late("polars")  # a worker gets its consumers encoded
    gc.disable()  # nothing of an import is garbage: an eighth of the time
    for name in HEAVY:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("common.privacy").warm_up()
    gc.freeze()  # no worker touches, and so copies, the pages of these objects when it collects its own
    gc.enable()


_load()
