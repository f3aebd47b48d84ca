"""``python -m asv_bench.pages``: makes the pages that ``asv publish`` wrote open without a network.

asv's pages load jQuery, flot and Bootstrap from other hosts, and show an error where these cannot be reached. This fetches
the same from the npm registry (``npm pack``; once, into .asv/npm), puts them beside the pages and names them there. Without a
network a browser still wants a server on this machine, since the pages read their figures from files.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asv_bench.worker import ROOT


class Script(NamedTuple):
    """A file of an npm package that stands in for one that the page loads."""

    package: str
    file: str


# What asv 0.6.6 loads, by a part of its address. Flot is not minified in its package, and Stupid-Table is a later 1.x.
SCRIPTS = {
    "jquery-3.3.1.min.js": Script("jquery@3.3.1", "dist/jquery.min.js"),
    "flot/0.8.3/jquery.flot.min.js": Script("flot@0.8.3", "jquery.flot.js"),
    "flot/0.8.3/jquery.flot.time.min.js": Script("flot@0.8.3", "jquery.flot.time.js"),
    "flot/0.8.3/jquery.flot.selection.min.js": Script("flot@0.8.3", "jquery.flot.selection.js"),
    "flot/0.8.3/jquery.flot.categories.min.js": Script("flot@0.8.3", "jquery.flot.categories.js"),
    "flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": Script("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable/1.0.1/stupidtable.min.js": Script("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "blueimp-md5/2.19.0/js/md5.min.js": Script("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap@3.1.1/dist/js/bootstrap.min.js": Script("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap@3.1.1/dist/css/bootstrap.min.css": Script("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}

REMOTE = re.compile(r'(?P<attribute>src|href)="(?P<address>https?://[^"]+\.(?:js|css))"(?: (?:integrity|crossorigin|referrerpolicy)="[^"]*")*')


class CannotMake(Exception):
    """The message says why, and what to do."""


def local(html: str) -> tuple[str, list[str]]:
    """The page with every script and style sheet of another host replaced by ours, and which of ``SCRIPTS`` it needs."""
    needed = []

    def replace(match: re.Match[str]) -> str:
        for part, script in SCRIPTS.items():
            if match["address"].endswith(part):
                needed.append(part)
                return f'{match["attribute"]}="npm/{Path(script.file).name}"'
        raise CannotMake(f"the page loads {match['address']}, for which asv_bench/pages.py knows no package (made for asv 0.6.6)")

    return REMOTE.sub(replace, html), needed


def fetch(packages: Sequence[str], folder: Path) -> None:
    """The packages' archives, of exactly these versions; those that lie there already are not asked for again."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in packages if not archive(p, folder).exists()]
    if not missing:
        return
    if shutil.which("npm") is None:
        raise CannotMake("npm is needed to fetch the scripts: install Node.js")
    done = subprocess.run(["npm", "pack", "--silent", *missing], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise CannotMake(f"npm pack {' '.join(missing)}: {done.stderr.strip()}")


def archive(package: str, folder: Path) -> Path:
    return folder / f"{package.replace('@', '-')}.tgz"


def member(script: Script, folder: Path) -> bytes:
    with tarfile.open(archive(script.package, folder)) as tar:
        found = tar.extractfile(f"package/{script.file}")
        assert found is not None
        return found.read()


def make(html_dir: Path, npm: Path) -> None:
    page = html_dir / "index.html"
    if not page.exists():
        raise CannotMake(f"{page} does not exist: run asv publish first")
    text, needed = local(page.read_text())
    if needed:
        fetch(sorted({SCRIPTS[part].package for part in needed}), npm)
        (html_dir / "npm").mkdir(exist_ok=True)
        for part in needed:
            (html_dir / "npm" / Path(SCRIPTS[part].file).name).write_bytes(member(SCRIPTS[part], npm))
        page.write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m asv_bench.pages", description=(__doc__ or "").partition(": ")[2].partition("\n\n")[0])
    parser.add_argument("--html", type=Path, help="the folder that asv publish wrote (default: as asv.conf.json says)")
    options = parser.parse_args(arguments)
    html_dir = options.html or ROOT / json.loads((ROOT / "asv.conf.json").read_text())["html_dir"]
    try:
        make(html_dir, ROOT / ".asv" / "npm")
    except CannotMake as e:
        print(f"pages: {e}", file=sys.stderr)
        return 1
    print(f"{html_dir / 'index.html'}: python -m http.server -d {html_dir} shows it at http://localhost:8000")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
