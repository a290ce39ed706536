"""Where fastbp keeps files of its own: one cache folder for each user."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache_dir() -> Path:
    r"""Return the user's cache folder of fastbp, by the custom of the operating system.

    ``%LOCALAPPDATA%\fastbp`` on Windows, ``~/Library/Caches/fastbp`` on macOS, elsewhere
    ``$XDG_CACHE_HOME/fastbp`` or ``~/.cache/fastbp``.  The folder need not exist.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RuntimeError
        When the user has no home folder.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification says to ignore a relative path.
        base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return base / "fastbp"
