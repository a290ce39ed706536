"""The dashboard without a browser: complete pages, and one clear line where it cannot work."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import dashboard, pages

ROOT = dashboard.ROOT

# --- complete pages ------------------------------------------------------------------------------

SCRIPT = '<script src="https://cdn.example/x@1/{}" integrity="sha256-AA==" crossorigin="anonymous">'


@pytest.fixture
def libraries(tmp_path):
    """The ``node_modules`` of these tests, with jQuery alone."""
    folder = tmp_path / "node_modules"
    (folder / "jquery" / "dist").mkdir(parents=True)
    (folder / "jquery" / "dist" / "jquery.min.js").write_bytes(b"//")
    return folder


def test_pages_load_copies_that_the_browser_checks(tmp_path, libraries):
    index = tmp_path / "index.html"
    index.write_text(SCRIPT.format("jquery-3.3.1.min.js") + '<script src="asv.js">')
    assert pages.complete(tmp_path, libraries)
    digest = base64.b64encode(hashlib.sha256(b"//").digest()).decode()
    expected = f'<script src="vendor/jquery-3.3.1.min.js" integrity="sha256-{digest}">'
    assert index.read_text() == expected + '<script src="asv.js">'
    assert (tmp_path / "vendor" / "jquery-3.3.1.min.js").read_bytes() == b"//"


def test_a_library_without_a_copy_is_named(tmp_path, libraries):
    (tmp_path / "index.html").write_text(SCRIPT.format("new-9.js"))
    with pytest.raises(pages.PagesError, match=r"loads https://cdn.example/x@1/new-9.js, and"):
        pages.complete(tmp_path, libraries)


def test_without_libraries_pages_stay_as_they_are(tmp_path):
    (tmp_path / "index.html").write_text(SCRIPT.format("jquery-3.3.1.min.js"))
    assert not pages.complete(tmp_path, tmp_path / "nothing")
    assert (tmp_path / "index.html").read_text() == SCRIPT.format("jquery-3.3.1.min.js")


def test_every_library_is_pinned():
    wanted = json.loads((ROOT / "benchmarks/web/package.json").read_text())["dependencies"]
    lock = json.loads((ROOT / "benchmarks/web/package-lock.json").read_text())["packages"]
    locked = {name.removeprefix("node_modules/"): of for name, of in lock.items() if name}
    assert {name: of["version"] for name, of in locked.items()} == wanted
    assert all(of["integrity"].startswith("sha512-") for of in locked.values())
    assert {path.partition("/")[0] for path in pages.FILES.values()} == set(wanted)


# --- where it cannot work ------------------------------------------------------------------------


def fails(capsys, *arguments):
    """Run the command, which must end with 2, and return its one line."""
    assert dashboard.main([*arguments, "--no-serve"]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert line.startswith("dashboard: ")
    return line


@pytest.fixture
def asv():
    pytest.importorskip("asv", exc_type=ImportError)


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Run git in a repository of this test's own, which is the dashboard's."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    here = partial(dashboard.last_commits, root=tmp_path)
    monkeypatch.setattr(dashboard, "last_commits", here)

    def run(*arguments):
        name = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", "-C", tmp_path, *name, *arguments], check=True, capture_output=True)

    return run


def test_without_git(asv, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "git is not installed" in fails(capsys)


def test_outside_of_a_repository(asv, git, capsys):
    assert "is not a git repository" in fails(capsys)


def test_more_commits_than_there_are(asv, git, capsys):
    git("init")
    assert "HEAD" in fails(capsys)  # git's own words for a repository without a commit
    git("commit", "--allow-empty", "-m", "one")
    assert "3 commits asked for, there are 1" in fails(capsys)


def test_the_last_commits_newest_first(git):
    git("init")
    for number in range(4):
        git("commit", "--allow-empty", "-m", str(number))
    new, old = dashboard.last_commits(3), dashboard.last_commits(4)
    assert old[:3] == new
    assert len(set(old)) == 4
    assert dashboard.last_commits(0) == []


def test_a_folder_where_nothing_can_be_written(asv, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = fails(capsys, "--commits", "0", "--folder", str(tmp_path / "file"))
    assert line.startswith(f"dashboard: cannot write results to {tmp_path / 'file'}")


def test_no_results(asv, capsys, tmp_path):
    assert "no results" in fails(capsys, "--commits", "0", "--folder", str(tmp_path))


def test_a_port_that_is_taken(tmp_path):
    with dashboard.server(tmp_path) as web:
        for port in (web.server_port, 99999):
            with pytest.raises(dashboard.DashboardError, match=f"cannot serve on port {port}"):
                dashboard.server(tmp_path, port)


def test_asv_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert "asv is not installed" in fails(capsys)


def test_a_number_of_commits_below_zero(capsys):
    with pytest.raises(SystemExit) as ended:
        dashboard.main(["--commits", "-1"])
    assert ended.value.code == 2
    assert "--commits: 0 or more" in capsys.readouterr().err


def test_results_are_numbers_not_failures(tmp_path):
    (tmp_path / "results" / "m").mkdir(parents=True)
    record = {
        "commit_hash": "c",
        "results": {"a": [[None, 1.5]], "b": [[None]], "c": [[float("nan")]], "d": [None]},
    }
    (tmp_path / "results" / "m" / "c-env.json").write_text(json.dumps(record))
    (tmp_path / "results" / "m" / "machine.json").write_text("{}")
    assert dashboard.results(tmp_path / "asv.conf.json") == {"c": {"a"}}


def test_a_benchmark_without_a_number_has_no_tile(tmp_path):
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "benchmarks.json"
    file.write_text(json.dumps({"a": {"name": "a"}, "b": {"name": "b"}, "version": 2}))
    config = tmp_path / "asv.conf.json"
    assert dashboard.forget_unmeasured(config, {"a"}) == ["b"]
    assert json.loads(file.read_text()) == {"a": {"name": "a"}, "version": 2}
    assert dashboard.forget_unmeasured(config, {"a"}) == []


def test_asv_cannot_say_what_machine_this_is(asv, git, capsys, tmp_path, monkeypatch):
    git("init")
    git("commit", "--allow-empty", "-m", "one")
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "none"))
    line = fails(capsys, "--commits", "1", "--folder", str(tmp_path / "results"))
    assert "asv machine ended with 1" in line


@pytest.mark.parametrize(
    ("code", "last", "message"),
    [
        (1, "No benchmarks selected", "no benchmark's name has 'x'"),
        (1, "whatever", "no benchmark gave a number (asv ended with 1)"),
    ],
)
def test_a_run_that_gave_nothing(asv, git, capsys, tmp_path, monkeypatch, code, last, message):
    git("init")
    git("commit", "--allow-empty", "-m", "one")
    (tmp_path / ".asv-machine.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(dashboard, "run_asv", lambda *arguments: (code, last))
    folder = tmp_path / "results"
    assert message in fails(capsys, "--commits", "1", "--only", "x", "--folder", str(folder))
