"""`torch.hub`: checkpoints by their address, and models that repositories publish.

`downloads.py` fetches files into a cache and loads checkpoints without running code of theirs;
`repositories.py` imports a repository's `hubconf.py`, which does run its code: `load`, `list` and
`help` ask before they use one that is not trusted; `mapped.py` lets code that says `import torch`
use this package. Nothing else of the package goes online.
"""

from flambeau.hub.downloads import (
    download_url_to_file,
    get_dir,
    load_state_dict_from_url,
    set_dir,
)
from flambeau.hub.mapped import as_torch
from flambeau.hub.repositories import help, list, load

__all__ = ["as_torch", "download_url_to_file", "get_dir", "help", "list", "load",
           "load_state_dict_from_url", "set_dir"]
