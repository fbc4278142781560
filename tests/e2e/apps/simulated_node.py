"""A site's node that says it is simulated, so that it takes part in runs without privacy. Tests only."""

import sys
from pathlib import Path

from client.runtime.node import run_node
from common.deployment import open_site_kit

run_node(open_site_kit(Path(sys.argv[1])), {"simulated": True})
