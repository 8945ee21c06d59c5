"""The command as a process: quick, light, and with the exit codes that shells expect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bbans


def bbans_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bbans", *arguments], capture_output=True, text=True)


def test_version_and_help() -> None:
    assert bbans_process("--version").stdout == f"bbans {bbans.__version__}\n"
    result = bbans_process("--help")
    assert result.returncode == 0
    for command in ("compress", "decompress", "info", "test", "models", "eval", "train"):
        assert f"\n  {command} " in result.stdout


def test_help_loads_nothing_slow() -> None:
    code = (
        "import sys; from bbans.cli.main import main; main(['--help']);"
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [["unheard-of"], ["compress"], ["--unheard-of"], ["train", "photo"]])
def test_wrong_usage_is_one_line(arguments: list[str]) -> None:
    result = bbans_process(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("bbans: ") and result.stderr.count("\n") == 1


def test_no_arguments_show_the_help() -> None:
    result = bbans_process()
    assert result.returncode == 2 and "Usage:" in result.stderr


def test_errors_load_no_torch(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("bad")
    code = (
        f"import sys; from bbans.cli.main import main; code = main(['compress', {str(tmp_path / 'bad.png')!r}]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.count("\n") == 1


def test_train_passes_its_options_on(tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    calls: list[tuple] = []
    runner = types.ModuleType("bbans.train.run")
    vars(runner)["main_train"] = lambda *args, **options: calls.append((args, options))
    monkeypatch.setitem(sys.modules, "bbans.train.run", runner)
    (tmp_path / "data").mkdir()
    line = "train photo data -o out --validation data --device cpu --init data --at 7"
    assert run(*line.split()).code == 0
    data = Path("data")
    options = {"config": None, "validation": [data], "root": None, "device": "cpu", "initial": data, "initial_step": 7}
    assert calls == [(("photo", [data], Path("out")), options)]


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize("given", [{}, *({name: "1"} for name in WAITING)])
def test_idle_threads_sleep_unless_the_user_has_decided(
    run: Callable, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers inherit the environment. That this is before torch is loaded, others test."""
    for name in WAITING:
        monkeypatch.setenv(name, "")  # restored afterwards, whatever the command sets
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert run("models").code == 0
    assert {name: os.environ[name] for name in WAITING if name in os.environ} == (
        given or {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
    )
