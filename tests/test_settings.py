"""Settings: read once, explained when wrong."""

import stat
from pathlib import Path

import pytest

from replyline.jobs import QUEUE_NAMES
from replyline.queues import RateLimit
from replyline.settings import SettingsError, describe, load, open_vault


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_brief() -> None:
    settings = load()
    for queue in QUEUE_NAMES:
        spec = settings.spec(queue)
        assert (spec.keep_completed_s, spec.keep_failed_s) == (3600, 86400)
        assert spec.concurrency == (20 if queue == "ai-processing" else 10)
        if queue not in {"webhook-delivery", "media-fetch"}:  # what they wait for may be away for days
            assert (spec.waits_s, spec.tries) == ((1, 2, 4), 4)


def test_the_parts_of_a_redis_address_make_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", "redis.internal")
    monkeypatch.setenv("REDIS_PORT", "6380")
    monkeypatch.setenv("REDIS_PASSWORD", "p@ss/word")
    assert load().external_redis_url == "redis://:p%40ss%2Fword@redis.internal:6380/0"


def test_a_redis_url_wins_over_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://one:1/0")
    monkeypatch.setenv("REDIS_HOST", "two")
    assert load().external_redis_url == "redis://one:1/0"


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("REDIS_HOST=from-file\nREPLYLINE_PORT=8100\nREPLYLINE_DRAIN_S=5\n")
    monkeypatch.setenv("REPLYLINE_PORT", "8200")
    settings = load()
    assert (settings.redis_host, settings.port, settings.drain_s) == ("from-file", 8200, 5)


def test_a_setting_of_one_queue_changes_that_queue_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLYLINE_QUEUES__AI_PROCESSING__CONCURRENCY", "40")
    monkeypatch.setenv("REPLYLINE_QUEUES__AI_PROCESSING__WAITS_S", "[0.1, 0.2]")
    monkeypatch.setenv("REPLYLINE_QUEUES__WHATSAPP_CLOUD_SEND__RATE_LIMIT", "80/1")
    settings = load()
    assert settings.spec("ai-processing").concurrency == 40
    assert settings.spec("ai-processing").waits_s == (0.1, 0.2)
    assert settings.spec("whatsapp-cloud-send").rate_limit == RateLimit(80, 1)
    assert settings.spec("incoming-messages").concurrency == 10


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REPLYLINE_PROT", "1", "did you mean REPLYLINE_PORT"),
        ("REPLYLINE_PORT", "many", "REPLYLINE_PORT: "),
        ("REPLYLINE_PORT", "70000", "REPLYLINE_PORT: "),
        ("REPLYLINE_QUEUES__AI__CONCURRENCY", "4", "no such queue: ai"),
        ("REPLYLINE_QUEUES__AI_PROCESSING__CONCURENCY", "4", "CONCURENCY"),
        ("REPLYLINE_QUEUES__AI_PROCESSING__RATE_LIMIT", "fast", "jobs/seconds"),
        ("REPLYLINE_QUEUES__AI_PROCESSING__WAITS_S", "1,2", "[1, 2, 4]"),
        ("REPLYLINE_QUEUES__AI_PROCESSING__WAITS_S", "[-1]", "negative"),
    ],
)
def test_a_mistyped_setting_is_refused_with_a_hint(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert said in str(refused.value)


def test_secrets_are_not_in_the_settings_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "DATABASE_URL", "REPLYLINE_SECRET_KEY", "REPLYLINE_ADMIN_KEY", "REDIS_PASSWORD"):
        monkeypatch.setenv(name, "redis://:sesame-sesame@x/0")
    assert "sesame" not in repr(load())


def test_every_setting_is_described() -> None:
    rows = describe()
    assert len({name for name, _, _ in rows}) == len(rows)
    assert all(meaning for _, _, meaning in rows)
    assert {"REDIS_URL", "DATABASE_URL", "REPLYLINE_PORT", "REPLYLINE_DATA"} <= {name for name, _, _ in rows}


def test_the_embedded_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    settings = load(data=tmp_path / "data")
    sealed = open_vault(settings).seal("token")
    assert open_vault(settings).open(sealed) == "token"
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600


def test_an_external_postgres_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REPLYLINE_SECRET_KEY must be set"):
        open_vault(load(data=tmp_path, database_url="postgresql://x/y"))


def test_a_malformed_key_is_explained_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Fernet") as refused:
        open_vault(load(data=tmp_path, secret_key="not-a-key"))
    assert "not-a-key" not in str(refused.value)


def test_the_page_of_settings_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    for name, default, meaning in describe():
        shown = f"`{default}`" if default else ""
        assert f"| `{name}` | {shown} | {meaning} |" in page


def test_variables_that_kubernetes_injects_for_services_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "REPLYLINE_SERVICE_HOST": "10.0.0.1",
        "REPLYLINE_SERVICE_PORT": "8000",
        "REPLYLINE_SERVICE_PORT_HTTP": "8000",
        "REPLYLINE_PORT": "tcp://10.0.0.1:8000",
        "REPLYLINE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "REPLYLINE_PORT_8000_TCP_PROTO": "tcp",
        "REPLYLINE_PORT_8000_TCP_PORT": "8000",
        "REPLYLINE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "REPLYLINE_API_PORT": "tcp://10.0.0.2:80",
        "REPLYLINE_METRICS_PORT": "tcp://10.0.0.3:9100",
        "REDIS_PORT": "tcp://10.0.0.4:6379",
        "REDIS_HOST": "redis",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert (settings.port, settings.metrics_port) == (8000, None)
    assert settings.external_redis_url == "redis://redis:6379/0"


def test_a_port_that_is_no_number_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLYLINE_PORT", "http")
    with pytest.raises(SettingsError, match="REPLYLINE_PORT"):
        load()
