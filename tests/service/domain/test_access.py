"""Keys as text, and rates."""

import pytest

from offkey.keys import Token
from service.domain.rate import RateLimiter


def test_a_token_is_read_as_it_was_written() -> None:
    token = Token.new()
    assert Token.parse(token.text) == token
    assert token.text == f"offkey_{token.key_id}_{token.secret}"
    assert token.secret not in token.secret_sha256
    assert len({Token.new().secret for _ in range(100)}) == 100


@pytest.mark.parametrize("change", [str.upper, lambda text: text + "\n", lambda text: text[1:], lambda _: ""])
def test_anything_else_is_no_token(change: object) -> None:
    assert callable(change)
    assert Token.parse(change(Token.new().text)) is None


def test_a_bucket_holds_a_minute_and_fills_evenly() -> None:
    now = 100.0
    limiter = RateLimiter(lambda: now)
    assert [limiter.take("a", 30) for _ in range(30)] == [0.0] * 30
    assert limiter.take("a", 30) == pytest.approx(2.0)
    assert limiter.take("b", 30) == 0.0  # of another key
    now += 1.0
    assert limiter.take("a", 30) == pytest.approx(1.0)
    now += 1.0
    assert limiter.take("a", 30) == pytest.approx(0.0, abs=1e-9)
    assert limiter.take("a", 30) == pytest.approx(2.0)
    now += 3600.0
    assert [limiter.take("a", 30) for _ in range(30)] == [0.0] * 30
    assert limiter.take("a", 30) > 0
