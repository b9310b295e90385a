"""`torch.hub`: checkpoints by their address, and models that repositories publish.

`downloads.py` fetches files into a cache and loads checkpoints without running code of theirs;
`repositories.py` imports a repository's `hubconf.py`, which does run its code: `load`, `list` and
`help` ask before they use one that is not trusted. Nothing else of the package goes online.
"""

from flambeau.hub.downloads import (
    download_url_to_file,
    get_dir,
    load_state_dict_from_url,
    set_dir,
)
from flambeau.hub.repositories import help, list, load

__all__ = ["download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url",
           "set_dir"]
