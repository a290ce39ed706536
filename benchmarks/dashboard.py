"""Speed over commits as web pages: ``python -m benchmarks.dashboard``.

Runs asv's benchmarks, quickly, for the last commits of what is checked out; publishes all results
there are; and serves the pages to this machine alone.  What has results is not run again:
``--commits 0`` only publishes.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import pages

ROOT = Path(__file__).resolve().parent.parent


class DashboardError(Exception):
    """There is nothing to run or nowhere to write; says which."""


def configuration(folder: Path) -> Path:
    """Write the project's configuration of asv, but with everything asv makes in ``folder``.

    Raises
    ------
    DashboardError
        If nothing can be written there.
    """
    import json5  # of asv

    conf = json5.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
    conf["repo"], conf["benchmark_dir"] = str(ROOT), str(ROOT / "benchmarks")
    for name in ("env", "results", "html"):
        conf[f"{name}_dir"] = str(folder / name)
    path = folder / "asv.conf.json"
    try:
        (folder / "results").mkdir(parents=True, exist_ok=True)
        # Permissions alone do not tell: the file system may be read-only, or the user root.
        with tempfile.TemporaryFile(dir=folder / "results"):
            path.write_text(json.dumps(conf, indent=1), encoding="utf-8")
    except OSError as error:
        raise DashboardError(f"cannot write results to {folder}: {error.strerror}") from None
    return path


def last_commits(number: int, root: Path = ROOT) -> list[str]:
    """Return the hashes of the last commits, the newest first.

    Raises
    ------
    DashboardError
        Without git, outside of a repository, and if there are not so many.
    """
    git = shutil.which("git")
    if git is None:
        raise DashboardError("git is not installed: there are no commits to compare")
    if not (root / ".git").exists():
        raise DashboardError(f"{root} is not a git repository: there are no commits to compare")
    log = subprocess.run(
        [git, "-C", str(root), "rev-list", "--first-parent", f"--max-count={number}", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if log.returncode:
        raise DashboardError(f"git: {log.stderr.strip().splitlines()[0]}")
    hashes = log.stdout.split()
    if len(hashes) < number:
        hint = ": git fetch --unshallow brings the others" * (root / ".git/shallow").exists()
        raise DashboardError(f"{number} commits asked for, there are {len(hashes)}{hint}")
    return hashes


def run_asv(*arguments: str) -> tuple[int, str]:
    """Run asv, show what it says, and return its exit code and its last line."""
    last = ""
    command = [sys.executable, "-m", "asv", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as asv:  # fmt: skip
        for line in asv.stdout or ():
            print(line, end="", flush=True)
            last = line.strip(" ·\n") or last
    return asv.returncode, last


def measure(config: Path, commits: list[str], only: str | None) -> int:
    """Run the benchmarks for these commits; return how many of them have results.

    Raises
    ------
    DashboardError
        If no benchmark is chosen, or not one gave a number.
    """
    common = ("--config", str(config))
    if not (Path.home() / ".asv-machine.json").exists():
        # asv asks what machine this is; its guesses are right.
        command = [sys.executable, "-m", "asv", "machine", "--yes"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
            raise DashboardError(f"asv machine ended with {done.returncode}: {said[-1]}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "commits"
        file.write_text("\n".join(commits), encoding="utf-8")
        chosen = ("--bench", only) if only else ()
        code, last = run_asv(
            "run", *common, "--quick", "--show-stderr", "--skip-existing-successful",
            f"HASHFILE:{file}", *chosen,
        )  # fmt: skip
    if last == "No benchmarks selected":
        raise DashboardError(f"no benchmark's name has {only!r}")
    # asv's exit code tells failed benchmarks from none, not results from no results.
    found = results(config)
    have = sum(bool(found.get(commit)) for commit in commits)
    if not have:
        raise DashboardError(f"no benchmark gave a number (asv ended with {code})")
    return have


def results(config: Path) -> dict[str, set[str]]:
    """Return for each commit with results the benchmarks that gave a number."""
    found: dict[str, set[str]] = {}
    for file in (config.parent / "results").glob("*/*-*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        measured = found.setdefault(record["commit_hash"], set())
        for name, (numbers, *_) in record["results"].items():
            if any(number is not None and number == number for number in numbers or []):
                measured.add(name)
    return found


def forget_unmeasured(config: Path, measured: set[str]) -> list[str]:
    """Take from asv's list the benchmarks without a number: their tiles would lead nowhere.

    Returns their names.  The next run writes the list again.
    """
    path = config.parent / "results" / "benchmarks.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: of for name, of in known.items() if name in measured or name == "version"}
    path.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return sorted(known.keys() - kept.keys())


def publish(config: Path) -> Path:
    """Write the pages of all results, and return their folder.

    Raises
    ------
    DashboardError
        If there are no results, or asv cannot publish them.
    """
    measured = set[str]().union(*results(config).values())
    if not measured:
        raise DashboardError(f"there are no results in {config.parent} yet")
    forgotten = forget_unmeasured(config, measured)
    if forgotten:
        print(f"Without a number, and so without a tile: {', '.join(forgotten)}")
    code, last = run_asv("publish", "--config", str(config), "--no-pull")
    if code:
        raise DashboardError(f"asv publish ended with {code}: {last}")
    html = config.parent / "html"
    if not pages.complete(html):
        print(
            "The pages load jQuery, Flot and Bootstrap from other hosts; after "
            "'npm ci --prefix benchmarks/web' they have copies of their own."
        )
    return html


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def server(html: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Return a server of the pages for this machine alone; port 0 is any free one.

    Raises
    ------
    DashboardError
        If the port is taken.
    """
    try:
        return http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), partial(_Quiet, directory=str(html))
        )
    except (OSError, OverflowError) as error:
        raise DashboardError(f"cannot serve on port {port}: {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dashboard", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--commits", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--only", metavar="REGEX", help="run only what has this in its name")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".asv", help="for what asv makes (default: .asv)"
    )
    parser.add_argument("--port", type=int, default=8080, help="to serve on (default: 8080)")
    parser.add_argument("--no-serve", action="store_true", help="write the pages, and end")
    options = parser.parse_args(arguments)
    if options.commits < 0:
        parser.error("--commits: 0 or more")
    try:
        if find_spec("asv") is None:
            raise DashboardError("asv is not installed: pip install -e '.[bench]'")
        commits = last_commits(options.commits)
        config = configuration(options.folder.resolve())
        if commits:
            have = measure(config, commits, options.only)
            print(f"{have} of {len(commits)} commits have results")
        html = publish(config)
        if options.no_serve:
            print(f"The pages are in {html}; they need a web server")
            return 0
        with server(html, options.port) as web:
            print(f"http://127.0.0.1:{web.server_port}/ until Ctrl-C", flush=True)
            web.serve_forever()
    except (DashboardError, pages.PagesError) as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
