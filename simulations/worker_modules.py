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

YOUNG = 20_000  # objects before a collection: a step of training makes thousands, and none of them in a cycle


def _load() -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # one thread per simulated site: more slow each other down
    import_late("polars")  # a worker gets its consumers encoded
    gc.disable()  # nothing of an import is garbage: an eighth of the time
    for name in HEAVY:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("common.privacy").warm_up()
    gc.freeze()  # no worker touches, and so copies, the pages of these objects when it collects its own
    gc.set_threshold(YOUNG)
    gc.enable()


_load()
