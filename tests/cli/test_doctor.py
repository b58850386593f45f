"""``vtp doctor`` about decoders: not installed, installed and broken, and why."""

from __future__ import annotations

import pytest

from vtp.cli import doctor
from vtp.errors import PluginError
from vtp.media import backends

BROKEN = '''raise RuntimeError("""Could not load libtorchcodec. Likely causes:
          1. FFmpeg is not properly installed in your environment.
        The following exceptions were raised as we tried to load libtorchcodec:

[start of libtorchcodec loading traceback]
FFmpeg version 8:
OSError: libavutil.so.60: cannot open shared object file: No such file or directory
FFmpeg version 7:
OSError: libnvrtc.so.13: cannot open shared object file: No such file or directory
[end of libtorchcodec loading traceback].""")
'''


def test_an_installed_decoder_that_does_not_load_says_why(site, monkeypatch):
    (site / "torchcodec").mkdir()
    (site / "torchcodec" / "__init__.py").write_text(BROKEN)
    found = [finding for finding in doctor._decoders() if "torchcodec" in finding.text]
    assert len(found) == 1 and found[0].level == "note"
    assert "is installed and cannot be used: RuntimeError: Could not load libtorchcodec" in found[0].text
    assert "libnvrtc.so.13: cannot open shared object file" in found[0].text and "docs/data.md" in found[0].text
    with pytest.raises(PluginError, match=r"cannot be used: RuntimeError: .*libnvrtc\.so\.13"):
        backends.load_backend(backends.BACKENDS["torchcodec"])


def test_a_decoder_whose_own_import_is_missing_is_not_called_absent(site):
    (site / "decord").mkdir()
    (site / "decord" / "__init__.py").write_text("import vtp_no_such_module\n")
    said = [finding.text for finding in doctor._decoders() if "decord" in finding.text]
    assert said == ["decord is installed and cannot be used: ModuleNotFoundError: No module named 'vtp_no_such_module'"]


@pytest.mark.parametrize("error, line", [(ImportError(), "ImportError: no message"), (OSError("a.\nb"), "OSError: a")])
def test_a_reason_is_one_line(error, line):
    assert backends.why_not(error) == line
