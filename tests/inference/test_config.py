"""Settings are read once, checked together, and refused all at once."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.config import PARSERS, Config, WrongSettings

LEAST = {"WEIGHTROOM_REGISTRY": "http://127.0.0.1:8000"}


def test_a_registry_is_enough() -> None:
    config = Config.from_environ(LEAST)
    assert (config.sidecar_host, config.sidecar_port, config.api_keys) == ("127.0.0.1", 8001, "registry")
    assert config.model_bytes is None
    assert config.models == ()


def test_every_setting_is_read_and_has_its_line_of_documentation() -> None:
    config = Config.from_environ(
        {
            **LEAST,
            "WEIGHTROOM_MODELS": "acme/one, acme/two@main",
            "WEIGHTROOM_MODEL_BYTES": "2GiB",
            "WEIGHTROOM_ALLOW_PICKLE": "acme/old@" + "a" * 40,
            "WEIGHTROOM_DEADLINE": "12.5",
            "WEIGHTROOM_SHARED_STORE": "/srv/objects",
        }
    )
    assert config.models == ("acme/one", "acme/two@main")
    assert config.model_bytes == 2 * 2**30
    assert config.allow_pickle == {"acme/old@" + "a" * 40}
    assert config.deadline == 12.5
    assert config.shared_store == Path("/srv/objects")
    assert {name.lower() for name in PARSERS} == {field.name for field in fields(Config)}


def test_all_wrong_settings_are_told_in_one_error() -> None:
    with pytest.raises(WrongSettings) as caught:
        Config.from_environ(
            {
                "WEIGHTROOM_SIDECAR_PORT": "eighty",
                "WEIGHTROOM_DEVICE": "tpu",
                "WEIGHTROOM_MODEL_BYTES": "much",
                "WEIGHTROOM_MODELS": "a b",
                "WEIGHTROOM_ALLOW_PICKLE": "acme/old@main",
                "WEIGHTROOM_WHATEVER": "1",
            }
        )
    told = str(caught.value)
    assert len(caught.value.problems) == 7
    for name in ("REGISTRY", "SIDECAR_PORT", "DEVICE", "MODEL_BYTES", "MODELS", "ALLOW_PICKLE", "WHATEVER"):
        assert f"WEIGHTROOM_{name}:" in told


def test_the_registrys_own_settings_are_passed_by() -> None:
    Config.from_environ(
        {**LEAST, "WEIGHTROOM_DATA": "/x", "WEIGHTROOM_LIMIT_API": "9", "WEIGHTROOM_TEST_X": "1", "PATH": "/"}
    )


def test_open_doors_are_for_loopback_only() -> None:
    assert Config.from_environ({**LEAST, "WEIGHTROOM_API_KEYS": "none"}).api_keys == "none"
    with pytest.raises(WrongSettings, match="loopback"):
        Config.from_environ({**LEAST, "WEIGHTROOM_API_KEYS": "none", "WEIGHTROOM_SIDECAR_HOST": "0.0.0.0"})


def test_a_key_file_must_hold_hashes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    with pytest.raises(WrongSettings, match="SHA-256"):
        Config.from_environ({**LEAST, "WEIGHTROOM_API_KEYS": str(keys)})
    keys.write_text(hashlib.sha256(b"secret").hexdigest() + "\n")
    assert Config.from_environ({**LEAST, "WEIGHTROOM_API_KEYS": str(keys)}).api_keys == str(keys)


def test_a_token_is_never_shown() -> None:
    config = Config.from_environ({**LEAST, "WEIGHTROOM_REGISTRY_TOKEN": "hf_secret"})
    assert "hf_secret" not in repr(config)


@given(st.dictionaries(st.sampled_from(["WEIGHTROOM_" + name for name in PARSERS if name != "API_KEYS"]), st.text()))
def test_any_text_is_a_config_or_our_refusal(environ: dict[str, str]) -> None:
    with suppress(WrongSettings):
        Config.from_environ({**LEAST, **environ})
