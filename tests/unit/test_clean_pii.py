"""Personal data are masked; numbers that are nobody's stay."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.steps import pii
from stages.clean.steps.pii import luhn

ALL = ("email", "phone", "card")


def masked(text: str, region: str | None = None, kinds: tuple[str, ...] = ALL) -> str:
    return str(pii.mask(pl.Series([text]), kinds, region)[0])


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("write to ann.lee+news@mail.example.org.", "write to [EMAIL]."),
        ("<a_b@x-y.co.uk>, C@D.DE", "<[EMAIL]>, [EMAIL]"),
        ("邮箱abc@example.com请联系", "邮箱[EMAIL]请联系"),
        ("jürgen@müller.de", "[EMAIL]"),
        ("card 4111 1111 1111 1111 or 4111-1111-1111-1111", "card [CARD] or [CARD]"),
        ("5500005555555559, 378282246310005 and 3782 822463 10005", "[CARD], [CARD] and [CARD]"),
        ("2 4111 1111 1111 1111 2029", "2 [CARD] 2029"),
        ("call +49 30 901820 or +1 (650) 253-0000 x12!", "call [PHONE] or [PHONE]!"),
        ("+4915112345678", "[PHONE]"),
    ],
)
def test_personal_data_give_way_to_a_mark(text: str, hidden: str) -> None:
    assert masked(text) == hidden
    assert masked(hidden) == hidden


@pytest.mark.parametrize(
    ("text", "region", "hidden"),
    [
        ("Call 650-253-0000 now", "US", "Call [PHONE] now"),
        ("Tel. (030) 901820", "DE", "Tel. [PHONE]"),
        ("0049 30 901820", "DE", "[PHONE]"),
        ("电话13812345678联系", "CN", "电话[PHONE]联系"),
        ("6502530000", "US", "[PHONE]"),
    ],
)
def test_national_numbers_need_the_country(text: str, region: str, hidden: str) -> None:
    assert masked(text, region) == hidden
    assert masked(text) == text


@pytest.mark.parametrize("region", [None, "US", "DE", "CN", "GB", "FR"])
@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15",
        "15.01.2024 10:30",
        "2024-01-15 12:30:45",
        "20240115",
        "10/12/2023",
        "$1,299,000 and EUR 1.234.567,89",
        "1999-2004, 2001 2002 2003",
        "order 6502530000",
        "Order no. 4155551234",
        "订单号 13812345678",
        "Rechnung Nr. 0301234567",
        "#6502530000",
        "ISBN 978-3-16-148410-0",
        "192.168.100.200",
        "3.1415926535",
        "1,234,567 people of 100 000 000",
        "4111 1111 1111 1112",
        "1234567812345670",
        "@home, a@b, me @ work.example",
    ],
)
def test_dates_prices_years_and_order_numbers_are_nobodys(text: str, region: str | None) -> None:
    assert masked(text, region) == text


def test_only_what_is_asked_for_is_masked() -> None:
    text = "a@b.example, 4111 1111 1111 1111, +1 650 253 0000"
    assert masked(text, kinds=()) == text
    assert masked(text, kinds=("email",)) == text.replace("a@b.example", "[EMAIL]")
    assert masked(text, kinds=("card",)) == text.replace("4111 1111 1111 1111", "[CARD]")
    assert masked(text, kinds=("phone",)) == text.replace("+1 650 253 0000", "[PHONE]")


@given(st.integers(0, 10**18))
def test_the_check_digit_finds_every_wrong_digit(payload: int) -> None:
    valid = [digit for digit in "0123456789" if luhn(f"{payload}{digit}")]
    assert len(valid) == 1
    wrong = f"{(int(str(payload)[0]) + 3) % 10}{str(payload)[1:]}{valid[0]}"
    assert not luhn(wrong)


PIECES = st.sampled_from(
    [*"0123456789 -().+/", "+49 ", "+1 ", "650", "253-0000", "030 ", "138", " x", "ext. ", "a", "，"]
)


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from([None, "US", "DE", "CN"]))
def test_the_fast_path_misses_no_phone_number(text: str, region: str | None) -> None:
    assert masked(text, region, ("phone",)) == pii._mask_phones(text, region)
