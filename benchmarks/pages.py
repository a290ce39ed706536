"""The dashboard's pages, complete in themselves: no script of theirs comes from somewhere else.

``asv publish`` writes pages that load jQuery, Flot and Bootstrap from three other hosts.
``npm ci --prefix benchmarks/web`` brings the same libraries, pinned by their hashes in
``package-lock.json``; ``complete`` copies them beside the pages and points the pages at the copies.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

LIBRARIES = Path(__file__).parent / "web" / "node_modules"

# The last part of the address in asv's page: the file in the npm package.  Flot and stupidtable are
# minified by the host that asv names, so of these two the page gets the text they were made from.
FILES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "jquery-flot/jquery.flot.js",
    "jquery.flot.time.min.js": "jquery-flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "jquery-flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "jquery-flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}

# A script or a style sheet from elsewhere, with what a browser shall check of it.
_FOREIGN = re.compile(r'(src|href)="(https://[^"]+)" integrity="[^"]+"( crossorigin="[^"]*")?')


class PagesError(Exception):
    """The pages cannot be written, and why."""


def complete(html: Path, libraries: Path = LIBRARIES) -> bool:
    """Copy into published pages what they load from elsewhere.

    Parameters
    ----------
    html : Path
        The folder that ``asv publish`` wrote.
    libraries : Path
        The ``node_modules`` with what the pages load.

    Returns
    -------
    bool
        False where there is no such folder: then the pages stay as asv wrote them, and load it
        from the network when they are looked at.

    Raises
    ------
    PagesError
        If a page loads something of which there is no copy.
    """
    if not libraries.is_dir():
        return False
    index = html / "index.html"
    copies = html / "vendor"

    def local(match: re.Match[str]) -> str:
        attribute, address, _ = match.groups()
        name = address.rpartition("/")[2]
        source = libraries / FILES.get(name, name)
        if not source.is_file():
            message = f"asv's page loads {address}, and {libraries.parent} has no copy of it"
            raise PagesError(f"{message}: npm ci --prefix benchmarks/web")
        copies.mkdir(exist_ok=True)
        shutil.copyfile(source, copies / name)
        digest = base64.b64encode(hashlib.sha256(source.read_bytes()).digest()).decode()
        return f'{attribute}="vendor/{name}" integrity="sha256-{digest}"'

    text = _FOREIGN.sub(local, index.read_text(encoding="utf-8"))
    index.write_text(text, encoding="utf-8")
    return True
