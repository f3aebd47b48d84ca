"""The published pages in a real browser: a few commits of a small project, measured by asv, published and rendered."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asv_bench import pages

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

if CHROMIUM is None or shutil.which("npm") is None:
    pytest.skip("needs chromium and npm", allow_module_level=True)
pytest.importorskip("asv", reason="asv is not installed")

# Each strategy takes another time, so that there are four curves to be seen.
BENCHMARK = """
class Forward:
    param_names = ("strategy", "shape")
    params = (("naive", "im2col", "implicit", "winograd"), ("small", "large"))
    unit = "seconds"

    def track_seconds(self, strategy, shape):
        return {"naive": 8, "im2col": 6, "implicit": 4, "winograd": 2}[strategy]
"""


def run(*command: str, folder: Path) -> str:
    environment = {**os.environ, "HOME": str(folder)}  # asv keeps what it knows of the machine there
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """Three commits, their results, and the pages of them."""
    project = tmp_path_factory.mktemp("project")
    (project / "benchmarks").mkdir()
    (project / "benchmarks" / "__init__.py").write_text("")
    (project / "benchmarks" / "conv.py").write_text(BENCHMARK)
    configuration = {"version": 1, "project": "small", "repo": ".", "branches": ["HEAD"], "benchmark_dir": "benchmarks", "environment_type": "virtualenv"}
    folders = {"env_dir": ".asv/env", "results_dir": ".asv/results", "html_dir": ".asv/html"}
    (project / "asv.conf.json").write_text(json.dumps({**configuration, **folders, "show_commit_url": ""}))
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@localhost", "-c", "commit.gpgsign=false")
    run("git", "init", "-q", folder=project)
    asv = (sys.executable, "-m", "asv")
    run(*asv, "machine", "--yes", "--machine", "here", folder=project)
    for number in range(3):
        run(*git, "commit", "-q", "--allow-empty", "-m", str(number), folder=project)
        commit = run("git", "rev-parse", "HEAD", folder=project).strip()
        run(*asv, "run", "-E", f"existing:{sys.executable}", "--set-commit-hash", commit, "--machine", "here", folder=project)
    run(*asv, "publish", folder=project)
    folder = project / ".asv" / "html"
    pages.make(folder, ROOT / ".asv" / "npm")
    return folder


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(html):
    handler = functools.partial(Silent, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def render(address: str, tmp_path: Path) -> tuple[Path, str]:
    """A picture of the page, and what its elements are in the end. Any host but this one is out of reach."""
    picture = tmp_path / "page.png"
    quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    common = (
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=8000",
    )  # fmt: skip
    run(*common, f"--screenshot={picture}", address, folder=tmp_path)
    return picture, run(*common, "--dump-dom", address, folder=tmp_path)


def test_a_plot_has_its_curves_and_names_on_its_axes(address, tmp_path):
    import numpy as np
    from PIL import Image

    picture, elements = render(f"{address}#conv.Forward.track_seconds?p-shape='small'", tmp_path)
    assert "airspeed velocity" in elements
    for strategy in ("naive", "im2col", "implicit", "winograd"):
        assert f"strategy-{strategy}" in elements  # in the legend
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    plot = pixels[130:740, 500:1300]  # within the frame, right of the legend
    dark = plot.min(axis=2) < 200  # the lines of the grid are lighter
    # Every column of the plot meets four curves, far apart.
    rows = dark[:, ::40]
    curves = (np.diff(rows.astype(int), axis=0) == 1).sum(axis=0)
    assert np.median(curves) == 4
    names = pixels[760:800, 780:880]  # below the plot: "commits"
    assert (names.max(axis=2) < 128).any()


def test_the_grid_has_a_plot_for_each_benchmark(address, tmp_path):
    _, elements = render(address, tmp_path)
    assert "Forward.track_seconds" in elements
    assert "js_load_failure" in elements
    assert "Error" not in elements.partition("<body")[2].partition("<!-- A modal")[0]
