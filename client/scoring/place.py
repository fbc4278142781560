"""Where a local command finds its model: a run folder, a model's files, or a site's kit, which knows the rest by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.library import model_in_use
from client.scoring.consumers import state_folder
from common.deployment import SiteKit, open_site_kit


@dataclass(frozen=True)
class ModelPlace:
    """``folder`` of the model; ``site``: whose items are predicted, empty for those of all; ``state``: folder of the pseudonym
    key; ``home``: where personal models and verdicts are kept; ``format``: of event logs, empty to recognise them."""

    folder: Path
    site: str
    state: Path
    home: Path
    format: str


def model_place(path: Path, *, site: str = "", state: Path | None = None, format_name: str = "") -> ModelPlace:
    """A place as somebody named it; what is given wins over what a kit says.

    Raises: BadInputError for a kit without a model, or one that cannot be opened.
    """
    from client.site import load_site

    kit = SiteKit(path.resolve())
    if not kit.settings.is_file():
        home = state_folder(state)
        return ModelPlace(path, site, home, home, format_name)
    own = load_site(open_site_kit(path).path)
    shared, facts = own.shared_ledger(), own.file.site
    own.secret()  # made once, and refused if others can read it
    known = str(kit.resolve(facts.mapping)) if facts.mapping else facts.format
    key = state or (shared.folder if shared else kit.state)
    return ModelPlace(model_in_use(kit).folder, site or own.name, key, state or kit.state, format_name or known)
