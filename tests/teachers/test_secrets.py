"""Secrets are sent only to addresses that the user allows."""

import pytest
import torch
from command_line import Result, fail
from served_doubles import Answer, Loopback

from db3kd.teachers import ModelOverrides, TeacherError, rest_teacher
from db3kd.teachers.remote import check_secret_allowed

SECRET = "Bearer hush-very-secret"


def test_neither_netrc_nor_proxies_are_used(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with (
        Loopback(lambda _: Answer.of(["x"], 400)) as proxy,
        Loopback(lambda _: Answer.of(["x"], 400)) as server,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        teacher = rest_teacher(
            server.url,
            {"x": "$images"},
            "*",
            overrides=ModelOverrides(image_shape=(1, 2, 2), classes=2),
        )
        with pytest.raises(TeacherError, match="answered with status 400"):
            teacher.decide(torch.zeros(1, 1, 2, 2))
        assert len(server.asked) == 1 and not proxy.asked
        assert "Authorization" not in server.asked[0].headers


def test_a_description_alone_cannot_send_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", SECRET)
    with Loopback(lambda _: Answer.of({})) as server:
        path = tmp_path / "teacher.toml"
        path.write_text(f'url = "{server.url}/v2/models/m"\n[header]\nvariable = "TEST_KEY"\n')
        for allowed in ("", "TEST_KEY=http://127.0.0.1:1", f"OTHER={server.url}"):
            monkeypatch.setenv("DB3KD_ALLOW_SECRET", allowed)
            error = fail("info", "--teacher", path)
            assert "DB3KD_ALLOW_SECRET" in error and "very-secret" not in error
        assert not server.asked
        monkeypatch.setenv("DB3KD_ALLOW_SECRET", f"OTHER=http://h TEST_KEY={server.url}")
        Result("info", "--teacher", path)
        assert server.asked[0].headers["Authorization"] == SECRET


def test_all_that_is_missing_for_a_secret_is_reported_at_once(monkeypatch):
    monkeypatch.delenv("DB3KD_ALLOW_SECRET", raising=False)
    monkeypatch.delenv("KEY", raising=False)
    with pytest.raises(
        ValueError, match="set DB3KD_ALLOW_SECRET='KEY=https://h:443'; also set KEY"
    ):
        check_secret_allowed("KEY", "https://h/p")
    monkeypatch.setenv("KEY", SECRET)
    with pytest.raises(ValueError, match=r"set DB3KD_ALLOW_SECRET='KEY=https://h:443'$"):
        check_secret_allowed("KEY", "https://h/p")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://h/a", "https://h"),
        ("https://h/a", "https://h:443"),
        ("https://H/a", "https://h/other"),
        ("grpc://h:8001/m", "grpc://h:8001"),
        ("http://[::1]:80/", "http://[::1]"),
    ],
)
def test_the_allowed_scheme_host_and_port_receive_the_secret(monkeypatch, url, allowed):
    monkeypatch.setenv("DB3KD_ALLOW_SECRET", f"KEY={allowed}")
    check_secret_allowed("KEY", url)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://h/", "https://h"),
        ("https://h:444/", "https://h"),
        ("https://h.evil.org/", "https://h"),
        ("https://h\\@evil.org/", "https://h"),
        ("https://h/", "h"),
        ("https://h/", ""),
        ("grpc://h:8001/m", "grpcs://h:8001"),
    ],
)
def test_another_scheme_host_or_port_is_refused(monkeypatch, url, allowed):
    monkeypatch.setenv("DB3KD_ALLOW_SECRET", f"KEY={allowed}")
    with pytest.raises(ValueError, match="DB3KD_ALLOW_SECRET='KEY="):
        check_secret_allowed("KEY", url)
