"""Personal data are masked; numbers that are nobody's stay."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.text import pii

ALL = ("email", "phone", "card")


def masked(text: str, region: str | None = None, kinds: tuple[str, ...] = ALL) -> str:
    return str(pii.mask(pl.Series([text]), kinds, region)[0])


@pytest.mark.parametrize(
    ("text", "region", "hidden"),
    [
        ("write to ann.lee+news@mail.example.org.", None, "write to [EMAIL]."),
        ("邮箱abc@example.com请联系", None, "邮箱[EMAIL]请联系"),
        ("4111-1111-1111-1111, 5500005555555559 and 3782 822463 10005", None, "[CARD], [CARD] and [CARD]"),
        ("2 4111 1111 1111 1111 2029", None, "2 [CARD] 2029"),
        ("call +49 30 901820 or +1 (650) 253-0000 x12!", None, "call [PHONE] or [PHONE]!"),
        ("ａｎｎ＠ｍａｉｌ．ｏｒｇ ４１１１１１１１１１１１１１１１", None, "[EMAIL] [CARD]"),
        ("＋４９ ３０ ９０１８２０", None, "[PHONE]"),
        ("+49 30 12.05.2024 and +49 30 901820 12.05.2024", None, "[PHONE] and [PHONE] 12.05.2024"),
        ("Call 650-253-0000 or 6502530000", "US", "Call [PHONE] or [PHONE]"),
        ("电话13812345678联系", "CN", "电话[PHONE]联系"),
        ("03.05.2026 12:30 030 901820 03.05.2026", "DE", "03.05.2026 12:30 [PHONE] 03.05.2026"),
        ("06.12.05.20.24 et 06.12.05.2024", "FR", "[PHONE] et [PHONE]"),
    ],
)
def test_personal_data_give_way_to_a_mark_and_national_numbers_need_the_country(
    text: str, region: str | None, hidden: str
) -> None:
    assert masked(text, region) == hidden == masked(hidden, region)
    assert region is None or masked(text) == text


@pytest.mark.parametrize("region", [None, "US", "DE", "CN"])
def test_dates_prices_years_and_order_numbers_are_nobodys(region: str | None) -> None:
    texts = [
        "2024-01-15 12:30:45",
        "$1,299,000 and EUR 1.234.567,89",
        "1999-2004, 2001 2002 2003",
        "order 6502530000, ISBN 978-3-16-148410-0",
        "订单号 13812345678",
        "Rechnung Nr. 0301234567",
        "192.168.100.200, 3.1415926535",
        "1,234,567 people of 100 000 000",
        "4111 1111 1111 1112",
        "@home, a@b, me @ work.example",
    ]
    assert pii.mask(pl.Series(texts), ALL, region).to_list() == texts


@pytest.mark.parametrize("region", ["DE", "US", "CN"])
@pytest.mark.parametrize("time", ["", ", 9:05", "T12:30:45.123456+00:00", " - 31.12.2029"])
def test_no_day_of_a_year_is_a_phone_number(region: str, time: str) -> None:
    forms = ["%d.%m.%Y", "%d. %m. %Y", "%d-%m-%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d", "%Y/%m/%d"]
    days = [f"Am {date(2026, 1, 1) + timedelta(day):{form}}{time}" for form in forms for day in range(0, 365, 13)]
    assert pii.mask(pl.Series(days), ALL, region).to_list() == days


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("call (212) 555-0147.", "call [PHONE]."),
        ("(212) 555-0147 (650) 253-0000 on 05/03/2026 12:30", "[PHONE] on 05/03/2026 12:30"),
        ("01 23 45 67 89 oder 030/90 18 20, 50 € bis 03.05.2026", "[PHONE] oder [PHONE], 50 € bis 03.05.2026"),
        ("电话138-1234-5678联系 a@b.example", "电话[PHONE]联系 [EMAIL]"),
        ("２０２６－０５－０３ １２：３０ （２１２） ５５５－０１４７", "２０２６－０５－０３ １２：３０ [PHONE]"),
        ("2024-01-15 12:30:45, 10/12/2023 and 1. 5. 2026", "2024-01-15 12:30:45, 10/12/2023 and 1. 5. 2026"),
        ("-1.2345678", "-1.2345678"),
        ("$1,299,000, 5 7 9 8 10 9 7 8 of 10, 650-253", "$1,299,000, 5 7 9 8 10 9 7 8 of 10, 650-253"),
    ],
)
def test_on_a_page_any_phone_number_is_masked_without_a_country(text: str, hidden: str) -> None:
    assert pii.mask_text(text, None) == hidden
    assert "[PHONE]" not in masked(text), "in the texts themselves only with one"


@pytest.mark.parametrize("kind", ["email", "card", "phone"])
def test_only_what_is_asked_for_is_masked(kind: str) -> None:
    data = {"email": "a@b.example", "card": "4111 1111 1111 1111", "phone": "+1 650 253 0000"}
    assert masked(", ".join(data.values()), kinds=(kind,)) == ", ".join((data | {kind: f"[{kind.upper()}]"}).values())


PIECES = st.sampled_from(
    [*"0123456789 -().+/a，", "+49 ", "+1 ", "650", "253-0000", "030 ", "138", "ext. ", "03.05.2026", " 12:30"]
)


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from([None, "US", "DE", "CN"]))
def test_the_fast_path_misses_no_phone_number(text: str, region: str | None) -> None:
    assert masked(text, region, ("phone",)) == pii._mask_phones(text, region)
