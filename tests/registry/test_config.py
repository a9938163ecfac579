"""Settings: defaults that run on a laptop, every mistake told at once, secrets never shown."""

from __future__ import annotations

import contextlib
import stat
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.config import PARSERS as SIDECAR_PARSERS
from registry import settings
from registry.config import Config, ConfigError, names

SECRET = "s" * 40


def test_nothing_set_runs_on_a_laptop(tmp_path: Path) -> None:
    config = Config.from_environ({})
    assert config == Config()
    assert (config.host, config.port, config.embedded) == ("127.0.0.1", 8000, True)
    assert config.database_url.startswith("sqlite:////")
    assert config.storage_url.startswith("file:/")


def test_every_field_has_a_parser_and_the_other_way_round() -> None:
    assert {name.removeprefix("WEIGHTROOM_") for name in names()} == set(settings.PARSERS)


def test_every_setting_reaches_its_field() -> None:
    config = Config.from_environ(
        {
            "WEIGHTROOM_DATA": "/srv/w",
            "WEIGHTROOM_DATABASE": "postgres://u:p@db/w",
            "WEIGHTROOM_STORAGE": "s3://bucket/deep/prefix?endpoint=http://127.0.0.1:9000&style=path",
            "WEIGHTROOM_S3_ACCESS_KEY": "key",
            "WEIGHTROOM_S3_SECRET_KEY": "hush",
            "WEIGHTROOM_PORT": "0",
            "WEIGHTROOM_PUBLIC_URL": "https://models.example/",
            "WEIGHTROOM_TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1",
            "WEIGHTROOM_CORS_ORIGINS": "https://a.example, http://b.example:8080/",
            "WEIGHTROOM_SECRET": f"{SECRET},{SECRET}2",
            "WEIGHTROOM_FSYNC": "never",
            "WEIGHTROOM_MIN_FREE": "10 GiB",
            "WEIGHTROOM_MAX_BLOB": "64MiB",
            "WEIGHTROOM_ANONYMOUS_READ": "off",
            "WEIGHTROOM_LIMIT_API": "0",
            "WEIGHTROOM_GC": "off",
        }
    )
    assert config.database_url == "postgresql+psycopg://u:p@db/w"
    assert not config.embedded
    assert config.public_url == "https://models.example"
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("127.0.0.1"))
    assert config.cors_origins == ("https://a.example", "http://b.example:8080")
    assert config.secrets() == (SECRET.encode(), f"{SECRET}2".encode())
    assert (config.durable, config.anonymous_read, config.limit_api, config.port) == (False, False, 0, 0)
    assert (config.min_free, config.max_blob, config.gc) == (10 << 30, 64 << 20, "off")


def test_all_wrong_settings_are_told_at_once() -> None:
    wrong = {
        "WEIGHTROOM_PORT": "99999",
        "WEIGHTROOM_DATABASE": "mysql://root:hunter2@db/w",
        "WEIGHTROOM_STORAGE": "ftp://x",
        "WEIGHTROOM_MIN_FREE": "lots",
        "WEIGHTROOM_PUBLIC_URL": "https://models.example/a/../b",
        "WEIGHTROOM_TRUSTED_PROXIES": "10.0.0.0/8,all",
        "WEIGHTROOM_SECRET": "hunter2,hunter3",
        "WEIGHTROOM_FSYNC": "sometimes",
        "WEIGHTROOM_S3_ACCESS_KEY": "key",
        "WEIGHTROOM_PROT": "8000",
    }
    with pytest.raises(ConfigError) as caught:
        Config.from_environ(wrong)
    assert len(caught.value.problems) == len(wrong)
    for name in wrong:
        assert sum(name + ":" in line or name + " " in line for line in caught.value.problems) == 1
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://models.example", "https://models.example"),
        ("https://models.example:8443/", "https://models.example:8443"),
        ("http://[::1]:8000/models/", "http://[::1]:8000/models"),
        ("https://example.org/a/hub.v2", "https://example.org/a/hub.v2"),
    ],
)
def test_a_public_url_may_have_a_port_and_a_path(text: str, url: str) -> None:
    assert Config.from_environ({"WEIGHTROOM_PUBLIC_URL": text}).public_url == url


@pytest.mark.parametrize(
    "text",
    [
        "models.example",
        "//models.example/a",
        "https:///a",
        "https://ann:hush@models.example",
        "https://models.example:x",
        "https://models.example/a b",
        "https://models.example/%2e%2e",
        "https://models.example/caf%C3%A9",
        "https://models.example/a//b",
        "https://models.example/a/./b",
        "https://models.example/..",
        "https://models.example/a?b",
        "https://models.example/a#",
        "https://models.example/api",
        "https://models.example/datasets/x",
        "https://exa mple/",
    ],
)
def test_a_public_url_that_clients_would_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="WEIGHTROOM_PUBLIC_URL"):
        Config.from_environ({"WEIGHTROOM_PUBLIC_URL": text})


def test_settings_of_tests_and_of_the_sidecar_are_passed_by() -> None:
    shared = {f"WEIGHTROOM_{name}": "anything" for name in SIDECAR_PARSERS}
    ours = {"WEIGHTROOM_TEST_POSTGRES": "x", "WEIGHTROOM_REQUIRE_ALL": "1", "WEIGHTROOM_FAILPOINTS": "x"}
    assert Config.from_environ(shared | ours | {"PATH": "/bin"}) == Config()


def test_a_repr_shows_no_secret() -> None:
    config = Config(secret=(b"hush",), s3_secret_key="hush", database="postgresql+psycopg://u:hush@db/w")
    assert "hush" not in repr(config)


def test_the_secret_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    config = Config(data=tmp_path / "data")
    made = config.secrets()
    path = tmp_path / "data" / "secret"
    path.chmod(0o644)
    assert config.secrets() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["secret"]


def test_a_short_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ConfigError, match="fewer than 32 bytes"):
        Config(data=tmp_path).secrets()


@given(st.sampled_from(sorted(settings.PARSERS)), st.text())
def test_garbage_is_told_and_nothing_else_raised(name: str, text: str) -> None:
    with contextlib.suppress(ConfigError):
        Config.from_environ({f"WEIGHTROOM_{name}": text})


@given(st.integers(0, 10**9), st.sampled_from(["", "KiB", "MiB", "GiB", "TiB"]), st.sampled_from(["", " "]))
def test_sizes_are_read_in_binary_units(count: int, unit: str, gap: str) -> None:
    factor = 1024 ** ["", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert settings.size(f"{count}{gap}{unit}".strip()) == count * factor


@pytest.mark.parametrize(
    ("to", "left", "is_same"),
    [
        ("", "file:{tmp}/data/objects", True),
        ("file:{tmp}/a", "file:{tmp}/b/../a", True),
        ("file:{tmp}/a", "file:{tmp}/b", False),
        ("s3://shelf/x?endpoint=http://a", "s3://shelf/x/?region=r&endpoint=http://a", True),
        ("s3://shelf/x?endpoint=http://a", "s3://shelf/x?endpoint=http://b", False),
        ("s3://shelf/x", "s3://shelf/y", False),
        ("", "s3://shelf", False),
    ],
)
def test_bytes_cannot_move_to_where_they_are(tmp_path: Path, to: str, left: str, is_same: bool) -> None:
    storage, storage_from = (url.format(tmp=tmp_path) for url in (to, left))
    environ = {"DATA": f"{tmp_path}/data", "STORAGE": storage, "STORAGE_FROM": storage_from}
    told = ()
    try:
        Config.from_environ({f"WEIGHTROOM_{name}": value for name, value in environ.items()})
    except ConfigError as error:
        told = error.problems
    assert any("same place" in problem for problem in told) == is_same
