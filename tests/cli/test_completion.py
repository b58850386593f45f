"""What the TAB key offers, and the bash script that asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vtp.cli.completion import SHELLS, candidates
from vtp.cli.main import COMMANDS, main


def after(line: str) -> list[str]:
    words = line.split()[1:]
    current = words.pop() if words and not line.endswith(" ") else ""
    return candidates(words, current)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vtp plu", ["plugins"]),
        ("vtp mine", ["mine-words"]),  # of a plugin
        ("vtp run task=msrvtt_q", ["task=msrvtt_qa"]),
        ("vtp run encoder/fu", ["encoder/fusion="]),
        ("vtp run +experiment=simvtp/tiny_p", ["+experiment=simvtp/tiny_pretrain"]),
        ("vtp run objective=[vtc,vt", ["objective=[vtc,vtm"]),
        ("vtp run objective=[vt", ["objective=[vtc", "objective=[vtm"]),
        ("vtp run objective=[vtc] objectives.vtc.dir", ["objectives.vtc.directions="]),
        ("vtp run dataset=shapes dataset.siz", ["dataset.size="]),
        ("vtp run train.global_b", ["train.global_batch="]),
        ("vtp run restart=", ["restart=false", "restart=true"]),
        ("vtp run mode=tr", ["mode=train", "mode=train+eval"]),
        ("vtp show objective vt", ["vtc", "vtm"]),
        ("vtp list encoder/a", ["encoder/audio"]),
        ("vtp import simvtp_", ["simvtp_dual"]),
        ("vtp new-plugin mine --kind im", ["importer"]),
        ("vtp plugins why snp", ["snps3"]),
        ("vtp data c", ["cache", "check"]),
        ("vtp data check msvd_", ["msvd_cn"]),
        ("vtp protocols show ucf101_", ["ucf101_1", "ucf101_2", "ucf101_3"]),
        ("vtp nothing ", []),
    ],
)
def test_what_is_offered(line, offered):
    assert after(line) == offered


@pytest.mark.parametrize("written", [r"objective=\[vtc,vt", "'objective=[vtc,vt", '"objective=[vtc,vt'])
def test_quotes_of_the_shell_are_no_part_of_a_word(written, capsys):
    """zsh needs them around a list, and fish writes the backslash itself."""
    assert main(["__complete", f"vtp run 'task=qa' {written}"]) == 0
    assert capsys.readouterr().out == "objective=[vtc,vtm\n"


def test_install_offers_what_is_not_installed(monkeypatch):
    monkeypatch.setattr("vtp.plugins.missing_addons", lambda: {"absent": "vtp-plugin-absent"})
    assert after("vtp install ") == ["absent"]


def test_every_command_is_offered():
    assert set(after("vtp ")) >= set(COMMANDS)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "vtp __complete" in capsys.readouterr().out
    assert main(["completion", f"{shell}x"]) == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        pytest.param(["vtp", "plug"], "plugins", marks=pytest.mark.slow),
        (["vtp", "run", "task", "=", "msrvtt_q"], "msrvtt_qa"),  # as bash cuts words at =
        pytest.param(["vtp", "run", "objective", "=", "[vtc,vt"], "[vtc,vtm", marks=pytest.mark.slow),
        pytest.param(["vtp", "run", "mode", "="], "eval predict train train+eval", marks=pytest.mark.slow),
    ],
)
def test_bash_is_answered(words, reply, tmp_path: Path):
    line = " ".join(words).replace(" = ", "=").replace(" =", "=")
    cut = " ".join(f"'{word}'" for word in words)
    script = f"""source <({sys.executable} -m vtp completion bash)
vtp() {{ {sys.executable} -m vtp "$@"; }}
compopt() {{ :; }}
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({cut}) COMP_CWORD={len(words) - 1}
_vtp
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.stdout.strip() == reply, done.stderr
