"""``python -m fastops``: the frame that all commands share, ``info`` and ``precompile``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastops
from fastops import _cache
from fastops.cli import info, main, precompile

ROOT = Path(__file__).resolve().parents[1]


def fastops_command(*args: str, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastops", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **kwargs)


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main.main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


class TestFrame:
    def test_runs_as_a_module(self):
        result = fastops_command("--version")
        assert (result.returncode, result.stdout) == (0, f"fastops {fastops.__version__}\n")

    def test_help_lists_the_commands(self, capsys):
        with pytest.raises(SystemExit) as stop:
            main.main(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert all(name in text and summary in text for name, summary in main.COMMANDS.items())

    @pytest.mark.parametrize("command", main.COMMANDS)
    def test_every_command_has_help(self, capsys, command):
        with pytest.raises(SystemExit) as stop:
            main.main([command, "--help"])
        assert stop.value.code == 0
        assert f"python -m fastops {command}" in capsys.readouterr().out

    def test_help_does_not_load_numba(self):
        code = (
            "import sys, contextlib\nfrom fastops.cli.main import main\n"
            "with contextlib.suppress(SystemExit): main(['--help'])\nassert 'numba' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def test_no_command(self, capsys):
        assert "COMMAND" in refused(capsys)

    def test_an_unknown_command_is_told_the_known_ones(self, capsys):
        message = refused(capsys, "compair")
        assert "compair" in message
        assert "precompile" in message

    def test_an_unknown_option(self, capsys):
        assert "--jsno" in refused(capsys, "info", "--jsno")

    def test_interrupt(self, monkeypatch, capsys):
        def interrupted(args):
            raise KeyboardInterrupt

        monkeypatch.setattr(info, "run", interrupted)
        assert main.main(["info"]) == 130
        assert "Traceback" not in capsys.readouterr().err

    @pytest.mark.skipif(os.name != "posix", reason="there is no SIGPIPE elsewhere")
    def test_a_reader_that_went_away(self):
        read, write = os.pipe()
        os.close(read)  # nobody will ever read what info prints
        command = [sys.executable, "-m", "fastops", "info"]
        with os.fdopen(write, "w") as stdout:
            result = subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, timeout=120, check=False)
        assert (result.returncode, result.stderr) == (141, b"")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
    @pytest.mark.parametrize("words", [("info",), ("--help",), ("--version",), ("train", "--help")], ids=" ".join)
    def test_a_full_standard_output(self, words):
        command = [sys.executable, "-m", "fastops", *words]
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # unbuffered, argparse itself passes over the error
        with open("/dev/full", "w") as stdout:
            result = subprocess.run(command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        assert (result.returncode, result.stderr) == (1, "python -m fastops: error: standard output: No space left on device\n")


class TestInfo:
    def test_json_has_the_facts(self, capsys):
        assert main.main(["info", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["fastops"] == fastops.__version__
        assert facts["numpy"] == np.__version__
        assert facts["processor"]["cores"] == os.cpu_count()
        assert facts["lanes"]["float32"] == 2 * facts["lanes"]["float64"] or facts["lanes"]["float32"] == 1
        assert facts["threading"] == fastops.threading_info()
        assert facts["cache"]["folder"] == str(_cache.cache_dir())

    def test_the_list_has_the_same_facts(self, capsys):
        assert main.main(["info"]) == 0
        text = capsys.readouterr().out
        assert all(word in text for word in (fastops.__version__, "float32", str(_cache.cache_dir()), "layer"))

    def test_the_cache_is_counted(self, monkeypatch, tmp_path):
        monkeypatch.setenv("FASTOPS_CACHE_DIR", str(tmp_path / "none yet"))
        assert info.collect()["cache"] == {"folder": str(tmp_path / "none yet"), "files": 0, "bytes": 0}


class TestPrecompile:
    def test_an_unknown_family_is_told_the_known_ones(self, capsys):
        message = refused(capsys, "precompile", "convolution")
        assert "no family 'convolution'" in message
        assert "conv" in message

    @pytest.mark.parametrize("count", ["0", "-1", "two", "1.5"])
    def test_threads_must_be_a_count(self, capsys, count):
        assert count in refused(capsys, "precompile", f"--threads={count}")

    def test_clear_empties_the_cache_and_leaves_other_files(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("FASTOPS_CACHE_DIR", str(tmp_path))
        (tmp_path / "0123.kernel").write_bytes(b"old")
        (tmp_path / "notes.txt").write_text("mine")
        assert main.main(["precompile", "--clear"]) == 0
        assert "removed 1 " in capsys.readouterr().out
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_labels_are_distinct(self):
        for family, work in precompile.FAMILIES.items():
            labels = [label for label, _ in work()]
            assert len(set(labels)) == len(labels) > 0, family

    def test_every_family_is_known(self):
        families = {path.stem for path in (ROOT / "fastops" / "ops").iterdir() if not path.stem.startswith("_")}
        assert set(precompile.FAMILIES) == families | {"optim"}

    def test_workers_fill_the_cache(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("FASTOPS_CACHE_DIR", str(tmp_path))
        work = [("unfold", partial(precompile._run_unfold, "float32"))]  # the whole family takes minutes
        monkeypatch.setitem(precompile.FAMILIES, "conv", lambda: iter(work))
        assert main.main(["precompile", "conv", "-j", "2"]) == 0
        assert list(tmp_path.glob("*.kernel"))
        out, err = capsys.readouterr()
        assert str(tmp_path) in out
        assert err == ""  # no bar where nobody watches

    @pytest.mark.parametrize(("call", "reason"), [(partial(divmod, 1, 0), "ZeroDivisionError"), (partial(os._exit, 3), "process died")])
    def test_what_fails_is_named(self, monkeypatch, capsys, call, reason):
        monkeypatch.setitem(precompile.FAMILIES, "conv", lambda: iter([("doomed work", call)]))
        assert main.main(["precompile", "conv", "-j", "1"]) == 1
        err = capsys.readouterr().err
        assert "doomed work" in err
        assert reason in err

    @pytest.mark.skipif(os.name != "posix", reason="a group of processes gets Ctrl-C in another way elsewhere")
    def test_interrupt_ends_the_workers_too(self, tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-m", "fastops", "precompile"],
            cwd=ROOT,
            env={**os.environ, "FASTOPS_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # the suite itself may run in the background
        )
        deadline = time.monotonic() + 120
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "interrupted\n")
