"""vtp serve as it is typed: what it says, and mistakes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest

from vtp.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none: there is no table of embeddings. `vtp embed INPUT none --model RUN` makes one."),
        (["{seen}", "--port", "99999"], "expected"),
        (["{seen}", "--port", "{taken}"], "cannot be listened at: Address already in use"),
        (["{seen}", "--host", "nowhere.invalid", "--token-file", "{file}"], "cannot be listened at"),
        (["{seen}", "--max-upload", "0"], "--max-upload"),
        ([], "TABLE"),
    ],
)
def test_a_mistake_is_a_line(tables, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        names = {"seen": tables["seen"], "taken": other.getsockname()[1], "file": tmp_path / "token"}
        filled = [argument.format(**names) for argument in arguments]
        assert main(["serve", *filled, *(["--port", "0"] if "--port" not in filled and filled else [])]) == 2
    err = capsys.readouterr().err
    assert err.startswith("vtp serve: ") and said in err and err.count("\n") == 1


def test_a_missing_library_is_a_line(tables, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", str(tables["seen"])]) == 2
    assert "pip install fastapi uvicorn lancedb" in capsys.readouterr().err


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(tables, tmp_path):
    command = [sys.executable, "-m", "vtp", "serve", str(tables["seen"]), "--port", "0", "--device", "cpu"]
    command += ["--host", "0.0.0.0", "--token-file", str(tmp_path / "token")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"4 windows at http://0\.0\.0\.0:(\d+)/  \(Ctrl-C ends it\)\n", line)
        assert match, line
        token = (tmp_path / "token").read_text().strip()
        connection = HTTPConnection("127.0.0.1", int(match[1]), timeout=60)
        connection.request("GET", "/?q=two", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read().count(b"<li>") == 4
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "") and token not in line + out
    assert not [name for name in os.listdir("/tmp") if name.startswith(f"vtp-serve-{process.pid}")]
