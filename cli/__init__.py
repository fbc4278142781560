"""The front door: one file per command group, lazy imports."""

import os
import sys

# ``python -m``, and an empty entry of PYTHONPATH, put the folder in which somebody stands on the path, before the
# standard library. That may be a kit which somebody delivered, so as the program (not in a notebook that imports a part
# of us) we take it off. Only these two modules are surely the interpreter's own: every other import comes after this.
if os.path.basename(sys.argv[0]) in {"fedcart", "-m"} and os.path.isdir(os.curdir):
    _HERE = os.path.realpath(os.curdir)
    _HOUSE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if _HOUSE != _HERE:
        sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != _HERE]
