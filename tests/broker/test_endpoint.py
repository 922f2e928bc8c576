"""Reading a Redis URL."""

import pytest

from replyline.broker import Broker
from replyline.broker.endpoint import Address, Endpoint, Login, Sentinels, Tls, parse_endpoint


def test_a_url_may_leave_out_all_but_the_host() -> None:
    endpoint = parse_endpoint("redis://cache")

    assert endpoint == Endpoint(Address("cache", 6379), None, Login(), 0)


def test_a_full_url_is_read_with_its_quoted_password() -> None:
    endpoint = parse_endpoint("rediss://app:p%40ss@cache.example:6380/4?ssl_cert_reqs=none")

    login = Login("app", "p@ss")
    assert endpoint == Endpoint(Address("cache.example", 6380), None, login, 4, Tls(verify=False))


def test_sentinels_are_read_with_their_own_login() -> None:
    endpoint = parse_endpoint("redis+sentinel://:pw@[::1]:1,s2/shop/3?sentinel_username=w&sentinel_password=x")

    assert endpoint.login == Login(None, "pw")
    assert endpoint.sentinels == Sentinels((Address("::1", 1), Address("s2", 26379)), "shop", Login("w", "x"))
    assert endpoint.database == 3
    assert str(endpoint) == "redis+sentinel://[::1]:1,s2:26379/shop/3"


def test_a_socket_is_read_with_its_database() -> None:
    endpoint = parse_endpoint("unix:///run/my%20redis.sock?db=3")

    assert (endpoint.path, endpoint.database) == ("/run/my redis.sock", 3)


def test_neither_the_text_nor_the_representation_shows_the_password() -> None:
    endpoint = parse_endpoint("redis://:hunter2@cache/1")

    assert "hunter2" not in f"{endpoint} {endpoint!r}"


@pytest.mark.parametrize(
    "url", ["http://cache", "cache:6379", "redis://:hunter2@cache:port", "redis://:hunter2@cache/x"]
)
def test_a_url_that_is_none_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL") as refused:
        Broker(url)

    assert "hunter2" not in str(refused.value)
