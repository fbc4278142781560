"""A site's process that the kernel ends while it computes, as for want of memory: ``MORTAL_SITE`` names it. Tests only.

Python imports this by itself where the folder is on its path. It dies in the rounds of ``MORTAL_ROUNDS``, all if empty.
"""

import os
import signal
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec

SITE, ROUNDS = os.environ.get("MORTAL_SITE", ""), os.environ.get("MORTAL_ROUNDS", "").split()
MODULE = "client.session"


def make_mortal(session) -> None:
    true = session.answer

    def answer(site, question):
        if site.name == SITE and (not ROUNDS or str(question.query.round) in ROUNDS):
            os.kill(os.getpid(), signal.SIGKILL)
        return true(site, question)

    session.answer = answer


class AfterIt(Loader):
    def __init__(self, true):
        self.create_module, self._true = true.create_module, true

    def exec_module(self, module) -> None:
        self._true.exec_module(module)
        make_mortal(module)


class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        found = find_spec(name)
        found.loader = AfterIt(found.loader)
        return found


if SITE:
    sys.meta_path.insert(0, Watch())
