"""The dashboard's pages in a real browser.

Needs Chromium, asv and ``npm ci --prefix benchmarks/web``.  Without one of them these tests skip,
or fail where FASTBP_BROWSER_TESTS says ``required``.  FASTBP_DASHBOARD names the folder of a
dashboard that is there already; otherwise two commits get results here, of one benchmark, measured
in this environment.  FASTBP_SCREENSHOTS names the folder where pictures are kept.
"""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fastbp
from fastbp._folders import user_cache_dir

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import chromium

from benchmarks import dashboard, pages

ROOT = dashboard.ROOT
QUICK = r"(Relu\.time_forward|NumPy\.time_exp)"


def requires(condition, reason):
    if condition:
        return
    if os.environ.get("FASTBP_BROWSER_TESTS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def measured_here(folder):
    """Results of two commits; the fastbp that is tested stands for both."""
    try:
        commits = dashboard.last_commits(2)
    except dashboard.DashboardError as error:
        requires(False, str(error))
    config = dashboard.configuration(folder)
    env = {
        **os.environ,
        "HOME": str(folder),  # asv keeps the machine's name there
        "FASTBP_CACHE_DIR": os.environ.get("FASTBP_CACHE_DIR", str(user_cache_dir())),
        "ASV_PYTHONPATH": str(Path(fastbp.__file__).parents[1]),
    }

    def asv(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "asv", *arguments],
            cwd=ROOT, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    asv("machine", "--yes")
    for commit in commits:
        asv(
            "run", "--config", str(config), "--environment", "existing", "--quick",
            "--bench", QUICK, "--set-commit-hash", commit,
        )  # fmt: skip
    return config


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of published pages."""
    requires(importlib.util.find_spec("asv"), "asv is not installed")
    requires(chromium.find(), "Chromium is not installed")
    requires(pages.LIBRARIES.is_dir(), "no pages without 'npm ci --prefix benchmarks/web'")
    there = os.environ.get("FASTBP_DASHBOARD")
    if there:
        html = Path(there).resolve() / "html"
    else:
        html = dashboard.publish(measured_here(tmp_path_factory.mktemp("dashboard")))
    with dashboard.server(html) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


@pytest.fixture(scope="module")
def opened(site, tmp_path_factory):
    with chromium.Chromium(chromium.find(), tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def browser(opened):
    opened.open("about:blank")
    opened.errors.clear()
    return opened


def keep(browser, name, tmp_path):
    folder = Path(os.environ.get("FASTBP_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    browser.screenshot(folder / f"{name}.png")


# How many pixels of a canvas are not transparent and not grey: those of its curves.
COLOURED = """
(function (canvas) {
    var d = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, n = 0;
    for (var i = 0; i < d.length; i += 4) {
        var most = Math.max(d[i], d[i + 1], d[i + 2]), least = Math.min(d[i], d[i + 1], d[i + 2]);
        if (d[i + 3] > 100 && most - least > 40) n++;
    }
    return n;
})(document.querySelector('%s'))
"""
# For each curve of the graph, at which commits it has a point.
POINTS = """
$('#main-graph').data('plot').getData().map(
    curve => curve.data.filter(point => point[1] !== null).map(point => point[0]))
"""


def test_the_grid_has_a_tile_with_a_curve_for_every_benchmark(browser, site, tmp_path):
    browser.open(site)
    tiles = browser.wait_for("window.jQuery && $('.benchmark-container').length")
    known = browser.evaluate("Object.keys($.asv.main_json.benchmarks).length")
    assert tiles == known > 0
    browser.wait_for("$('#summarygrid-display canvas').length >= 2")
    assert browser.wait_for(COLOURED % "#summarygrid-display canvas.flot-base") > 20
    keep(browser, "grid", tmp_path)
    assert browser.errors == []


def test_a_graph_has_points_of_more_than_one_commit(browser, site, tmp_path):
    browser.open(site)
    browser.wait_for("window.jQuery && $('.benchmark-container').length")
    name = browser.evaluate("$('.benchmark-container[href*=\"time_\"]').last().attr('href')")
    browser.open(site + name)
    browser.wait_for("$('#main-graph').data('plot') && $('#main-graph canvas').length")
    curves = browser.evaluate(POINTS)
    assert len(curves) > 0
    assert max(len(set(commits)) for commits in curves) > 1
    assert browser.wait_for(COLOURED % "#main-graph canvas.flot-base") > 100
    keep(browser, "graph", tmp_path)
    assert browser.errors == []


@pytest.mark.parametrize("page", ["summarylist", "regressions"])
def test_the_other_pages_come_without_an_error(browser, site, page, tmp_path):
    browser.open(f"{site}#/{page}")
    browser.wait_for(f"window.jQuery && $('#{page}-display').is(':visible')")
    if page == "summarylist":
        browser.wait_for("$('#summarylist-body table tbody tr').length")
    keep(browser, page, tmp_path)
    assert browser.errors == []


def test_the_browser_notices_a_broken_page(browser, site, tmp_path):
    (tmp_path / "index.html").write_text(
        "<img src='missing.png'><script>console.error('said'); undefined_name</script>"
    )
    with dashboard.server(tmp_path) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{web.server_port}/")
        browser.wait_for("document.readyState == 'complete'")
        web.shutdown()
    text = "\n".join(browser.errors)
    assert "said" in text
    assert "undefined_name is not defined" in text
    assert "404" in text
