"""What must be true of a site's kit before anything of it is used: known files only, keys its owner's alone."""

from __future__ import annotations

from common.deployment import SiteKit
from common.kit_files import require_known_files
from common.trust import require_private


def require_sound_kit(kit: SiteKit) -> None:
    """Return if the kit may be started. Raises: BadInputError naming the file that is strange, or open to others."""
    require_known_files(kit)
    require_private(kit.secrets)
