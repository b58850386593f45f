"""Who is let in: names, other sites, and the token, which nobody can read afterwards."""

from __future__ import annotations

import hmac
import logging
import os

import pytest

from vtp.errors import ConfigError
from vtp_serve.access import Access, is_loopback, token_of
from vtp_serve.command import main

TOKEN = "a-token-of-tests-0123456789"


@pytest.fixture(scope="module")
def locked(searches, serve):
    with serve(searches, token=TOKEN, hosts=None) as served:
        yield served


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000"])
def test_names_of_this_machine(site, host):
    assert site.ask("/", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "127.0.0.1@evil.example", "", "[::1", "a b"]
)
def test_another_name_is_another_site(site, host):
    answer, said = site.ask("/?q=a", Host=host)
    assert answer.status in (400, 421) and "<li>" not in said


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),  # an empty file: it got through
        ({"Origin": "http://localhost:{port}"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_send(site, headers, status):
    given = {name: value.format(port=site.port) for name, value in headers.items()}
    assert site.ask("/query?name=a", "POST", b"", Host=f"localhost:{site.port}", **given)[0].status == status


def test_nothing_without_the_token(locked):
    answer, said = locked.ask("/?q=a")
    assert (answer.status, answer.getheader("location")) == (303, "/login") and "<li>" not in said
    for method, target in (
        ("GET", "/media/0/0"),
        ("GET", "/picture/0/0"),
        ("POST", "/query"),
        ("GET", "/x"),
        ("HEAD", "/"),
    ):
        assert locked.ask(target, method)[0].status == 401, target
    for given in ("Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é"):
        assert locked.ask("/media/0/0", Authorization=given)[0].status == 401, given
    for given in ("vtp-serve=wrong", f"vtp-serve={TOKEN}", "vtp-serve=", "=;=", 'vtp-serve="\\377'):
        assert locked.ask("/media/0/0", Cookie=given)[0].status == 401, given


def test_the_token_opens(locked):
    assert locked.ask("/media/0/0", Authorization=f"Bearer {TOKEN}")[0].status == 200
    assert 'type="password"' in locked.ask("/login")[1]
    answer, page = locked.ask("/login", "POST", "token=wrong")
    assert answer.status == 401 and "This is not the token" in page and answer.getheader("set-cookie") is None
    answer, _ = locked.ask("/login", "POST", f"token={TOKEN}%0A")
    cookie = answer.getheader("set-cookie")
    assert answer.status == 303 and {"HttpOnly", "SameSite=Strict"} <= {*cookie.split("; ")} and TOKEN not in cookie
    assert locked.ask("/?q=a", Cookie=cookie.partition(";")[0])[0].status == 200
    assert locked.ask("/login", "POST", "token=" + "x" * 9000)[0].status == 413


def test_every_comparison_takes_the_same_time(locked, monkeypatch):
    """All of them are hmac.compare_digest's."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    access = Access(TOKEN)
    kept = access.cookie().partition(";")[0]
    for headers, admitted in (
        ({"authorization": f"Bearer {TOKEN}"}, True), ({"authorization": "Bearer x"}, False), ({"cookie": kept}, True),
        ({"cookie": "vtp-serve=x"}, False),
    ):  # fmt: skip
        compared.clear()
        assert access.admits(headers) is admitted and len(compared) == 1
    compared.clear()
    assert not access.fits("é\udcff") and access.fits(TOKEN) and len(compared) == 2
    assert not access.admits({})


def test_the_token_is_nowhere_afterwards(locked, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    locked.ask("/login", "POST", f"token={TOKEN}")
    locked.ask("/login", "POST", f"token={TOKEN}wrong")
    locked.ask("/?q=secret+words", Authorization=f"Bearer {TOKEN}")
    locked.ask("/media/0/99", Authorization=f"Bearer {TOKEN}")
    said = "".join(capfd.readouterr()) + caplog.text
    assert TOKEN not in said and "secret" not in said


def test_a_token_file_is_made_once_for_its_owner(tmp_path):
    file = tmp_path / "token"
    token = token_of(file)
    assert len(token) >= 32 and token_of(file) == token and file.stat().st_mode & 0o777 == 0o600
    assert token_of(tmp_path / "other") != token
    os.chmod(file, 0o640)
    with pytest.raises(ConfigError, match=f"can be read by others on this machine. Do: chmod 600 {file}"):
        token_of(file)


@pytest.mark.parametrize(
    ("content", "said"), [(b"short\n", "at least 16"), (b"\xff" * 20, "no plain text"), (b"", "at least")]
)
def test_a_token_that_is_none(tmp_path, content, said):
    (tmp_path / "token").write_bytes(content)
    os.chmod(tmp_path / "token", 0o600)
    with pytest.raises(ConfigError, match=said):
        token_of(tmp_path / "token")
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        token_of(tmp_path / "none" / "token")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("localhost.evil.example", False), ("", False)],
)  # fmt: skip
def test_what_only_this_machine_can_reach(host, loopback):
    assert is_loopback(host) is loopback


def test_other_addresses_need_a_token(tables, monkeypatch):
    with pytest.raises(ConfigError, match=r"--host 0.0.0.0 can be reached from other machines.*--token-file"):
        main([str(tables["seen"]), "--host", "0.0.0.0", "--port", "0"])
