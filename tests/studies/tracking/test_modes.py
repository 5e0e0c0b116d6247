"""Which mode W&B gets: what is wanted, what the environment and W&B's settings allow, credentials, and the server."""

import logging
import os
import socket

import pytest

from lcprobe.config import TrackConfig
from lcprobe.studies.tracking import modes as module
from lcprobe.studies.tracking.modes import wandb_mode

KEY = "x" * 40


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No settings, no credentials, a server that answers; a function that sets variables."""

    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "unreachable", lambda address: "")
    monkeypatch.setattr(module, "SESSION", module._Session())
    module._loaded_settings.cache_clear()

    def set_all(values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    yield set_all
    module._loaded_settings.cache_clear()


@pytest.mark.parametrize(
    ("wanted", "given", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": "short"}, "offline"),
        ("auto", {"WANDB_IDENTITY_TOKEN_FILE": "token.jwt"}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_IDENTITY_TOKEN_FILE": "token.jwt"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "off"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "off"}, "off"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "nonsense"}, "off"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "shared"}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": ""}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": " OFFLINE "}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "", "WANDB_PROJECT": " "}, "online"),
        ("auto", {"WANDB_API_KEY": ""}, "offline"),
        ("auto", {"WANDB_MODE": "online"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_DISABLED": "true"}, "off"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_DISABLED": "false"}, "online"),
        ("online", {}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "off"),
        ("offline", {"WANDB_MODE": "online"}, "offline"),
        ("off", {"WANDB_MODE": "online"}, "off"),
    ],
)
def test_the_environment_is_never_exceeded(environment, tmp_path, wanted, given, mode):
    environment(given)
    assert wandb_mode(TrackConfig(wandb=wanted), tmp_path) == mode
    if mode != "off":
        import wandb

        wandb.Settings().update_from_env_vars(dict(os.environ))  # its client can read what is left


def test_a_mode_that_wandb_does_not_have_is_named(environment, tmp_path, caplog):
    environment({"WANDB_API_KEY": KEY, "WANDB_MODE": "nonsense"})
    with caplog.at_level(logging.WARNING, "lcprobe"):
        assert wandb_mode(TrackConfig(), tmp_path) == "off"
    assert "W&B is off (WANDB_MODE: given 'nonsense'; allowed: online | offline | shared" in caplog.text


@pytest.mark.parametrize(("machine", "mode"), [("wandb.example.org", "online"), ("api.wandb.ai", "offline")])
def test_netrc_is_read_for_the_server_of_the_settings(environment, tmp_path, machine, mode):
    environment({"WANDB_BASE_URL": "https://wandb.example.org"})
    (tmp_path / ".netrc").write_text(f"machine {machine}\n  login user\n  password {KEY}\n")
    assert wandb_mode(TrackConfig(), tmp_path) == mode


def test_netrc_is_read_for_the_server_that_this_version_writes(environment, tmp_path):
    from wandb.sdk.lib import wbauth

    wbauth.write_netrc_auth(host=module.server(), api_key=KEY)
    assert wandb_mode(TrackConfig(), tmp_path) == "online"


def test_what_wandb_offline_has_written_is_obeyed(environment, tmp_path):
    environment({"WANDB_API_KEY": KEY})
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert wandb_mode(TrackConfig(), tmp_path) == "offline"


def test_settings_that_wandb_cannot_use_switch_it_off_with_one_line(environment, tmp_path, caplog):
    environment({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "no address"})
    with caplog.at_level(logging.WARNING, "lcprobe"):
        assert [wandb_mode(TrackConfig(), tmp_path) for _ in range(2)] == ["off", "off"]
    assert len(caplog.messages) == 1


def test_a_key_that_wandb_cannot_use_is_named_once_for_each_study_with_how_to_send_it(environment, tmp_path, caplog):
    environment({"WANDB_API_KEY": "short"})
    with caplog.at_level(logging.WARNING, "lcprobe"):
        modes = [wandb_mode(TrackConfig(), tmp_path / name) for name in ("a", "b", "a", "b")]
    assert modes == ["offline"] * 4
    assert [
        message.endswith(f"lcprobe sync {tmp_path / n}") for message, n in zip(caplog.messages, "ab", strict=True)
    ]
    assert not any("\n" in message for message in caplog.messages)


def test_without_a_network_everything_is_offline_after_one_quick_question(environment, tmp_path, monkeypatch, caplog):
    environment({"WANDB_API_KEY": KEY})
    asked = []
    monkeypatch.setattr(module, "unreachable", lambda address: asked.append(address) or "no answer")
    with caplog.at_level(logging.WARNING, "lcprobe"):
        modes = [wandb_mode(TrackConfig(wandb=wanted), tmp_path) for wanted in ("auto", "online", "auto")]
    assert modes == ["offline"] * 3
    assert len(asked) == len(caplog.messages) == 1
    assert f"lcprobe sync {tmp_path}" in caplog.text


def test_a_server_answers_whatever_it_says_and_a_closed_port_does_not():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert "no answer" in module.unreachable(f"http://127.0.0.1:{port}")
    assert "no answer" in module.unreachable("https://wandb.example.org"), "tests have no network"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        import threading

        def answer():
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert module.unreachable(f"http://127.0.0.1:{listening.getsockname()[1]}") == ""
