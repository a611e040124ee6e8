"""The check `format`: check digits, codes and dates."""

from __future__ import annotations

import string
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra import accepted, agent, answered_by_model, format_, numbers, workflow
from orchestra.text.numbers.iso_codes import (
    COUNTRIES,
    COUNTRIES_ALPHA3,
    CURRENCIES,
    FORMER_CURRENCIES,
    IBAN_LENGTHS,
    IBAN_STRUCTURES,
    LANGUAGES,
    RESERVED_COUNTRIES,
    card_number_error,
    iban_error,
)
from orchestra.verification.formats import check_format
from orchestra.verification.standalone import verify_answer
from orchestra.workflows.python.trace import to_python

TEXT = {"type": "string"}
ALLOWED = {"n": string.digits, "a": string.ascii_uppercase, "c": string.ascii_uppercase + string.digits}
INNER = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=30, max_size=30)


def outcome(answer: Any) -> str:
    [verdict] = verify_answer(answer, (), ["format"]).verdicts
    return verdict.outcome


def account(country: str, inner: str) -> str:
    """An IBAN of the country's structure, with correct check digits."""
    kinds = "".join(count * kind for count, kind in IBAN_STRUCTURES[country])
    return with_check_digits(
        country,
        "".join(ALLOWED[kind][ord(char) % len(ALLOWED[kind])] for kind, char in zip(kinds, inner, strict=False)),
    )


def with_check_digits(country: str, body: str) -> str:
    digits = "".join(str(int(char, 36)) for char in f"{body}{country}00")
    return f"{country}{98 - int(digits) % 97:02}{body}"


def card(digits: str) -> str:
    """A card number with a correct last digit."""
    return next(f"{digits}{last}" for last in range(10) if not card_number_error(f"{digits}{last}"))


def shown(text: str) -> str:
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


@given(st.sampled_from(sorted(IBAN_LENGTHS)), INNER, st.data())
def test_format_iban_with_typo_fails(country: str, inner: str, data: st.DataObject) -> None:
    right = account(country, inner)
    assert iban_error(right) == ""
    assert (
        outcome({"iban": right})
        == outcome({"iban": shown(right)})
        == outcome(f"Pay to {shown(right)}, please.")
        == "pass"
    )
    at = data.draw(st.integers(4, len(right) - 1))
    other = data.draw(
        st.sampled_from([one for one in "0123456789" if one != right[at]] if right[at].isdigit() else "0123456789")
    )
    slip = right[:at] + other + right[at + 1 :]
    if right[at].isdigit():  # ISO 7064 detects each of these
        assert outcome({"iban": slip}) == outcome(f"Pay to {slip}.") == "fail"
        assert outcome({"iban": right[:at] + right[at + 1 :]}) == "fail"


@pytest.mark.parametrize(
    ("country", "body", "structure"),
    [
        ("GB", "123460161331926819", "4 letters, 14 digits"),
        ("FR", "2004101005050A013M026AB", "10 digits, 11 letters or digits, 2 digits"),
        ("DE", "37040044053201300A", "18 digits"),
        ("MU", "BOMM0101101030300200000123", "4 letters, 19 digits, 3 letters"),
    ],
)
def test_format_iban_of_other_structure_fails(country: str, body: str, structure: str) -> None:
    text = with_check_digits(country, body)
    assert iban_error(text) == f"an IBAN of {country} has after its check digits {structure}"
    assert outcome({"iban": text}) == outcome(f"Pay to {text}.") == "fail"


@given(st.integers(10**10, 10**18 - 1), st.data())
def test_format_card_with_typo_fails(number: int, data: st.DataObject) -> None:
    right = card(str(number))
    assert outcome({"card_number": right}) == outcome({"card_number": int(right)}) == "pass"
    at = data.draw(st.integers(0, len(right) - 1))
    other = data.draw(st.sampled_from([one for one in "0123456789" if one != right[at]]))
    assert outcome({"card_number": right[:at] + other + right[at + 1 :]}) == "fail"


@given(st.integers(1000, 2999), st.integers(0, 99), st.integers(0, 99))
def test_format_date_must_exist(year: int, month: int, day: int) -> None:
    try:
        exists = date(year, month, day) is not None
    except ValueError:
        exists = False
    assert outcome({"due_date": f"{year}-{month:02}-{day:02}"}) == ("pass" if exists else "fail")


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=3))
def test_format_code_must_be_listed(code: str) -> None:
    country = "pass" if code in COUNTRIES | COUNTRIES_ALPHA3 else "unknown" if code in RESERVED_COUNTRIES else "fail"
    assert outcome({"country_code": code}) == country
    currency = "pass" if code in CURRENCIES else "unknown" if code in FORMER_CURRENCIES else "fail"
    assert outcome({"currency_code": code}) == currency
    if len(code) == 2:
        assert outcome({"language_code": code.lower()}) == ("pass" if code.lower() in LANGUAGES else "fail")


def test_format_code_lists_are_complete() -> None:
    assert (len(COUNTRIES), len(COUNTRIES_ALPHA3), len(CURRENCIES), len(LANGUAGES)) == (249, 249, 178, 184)
    assert not CURRENCIES & FORMER_CURRENCIES
    assert set(IBAN_LENGTHS) <= COUNTRIES | RESERVED_COUNTRIES
    assert all(15 <= length <= 34 for length in IBAN_LENGTHS.values())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"answer": "2024-02-30"}, "fail"), ("on 30 February 2024", "fail"), ("on 29 February 2024", "pass"),
        ({"due_date": "spring"}, "pass"),
        ({"due_date": "2024-13-05"}, "fail"), ({"dates": ["2024-12-05", "2024-13-05"]}, "fail"),
        ("card 4111 1111 1111 1111", "pass"),
        ("card 4111 1111 1111 1112", "unknown"), ("the order 9111 1111 1111 1112", "pass"),
        ("4111111111111112", "pass"),
        ("Pay to DE89 3704 0044 0532 0130 0.", "unknown"), ("part XX12 3456 7890 1234 5678", "pass"),
        ({"iban": "XX12 3456 7890 1234"}, "unknown"),
        ({"iban": "my account"}, "fail"), ({"debtorIban": "DE89370400440532013001"}, "fail"),
        ({"ibans": ["DE89370400440532013001"]}, "fail"),
        ({"iban": None}, "pass"), ({"iban": ""}, "pass"), ({"country": "Germany"}, "pass"), ({"country": "DE"}, "pass"),
        ({"country": "DX"}, "unknown"), ({"country": "UK"}, "unknown"), ({"countries": ["DE", "DX"]}, "unknown"),
        ({"country_code": "Germany"}, "fail"),
        ({"currency": "€"}, "pass"), ({"currency": "EUX"}, "unknown"), ({"currency": "DEM"}, "unknown"),
        ({"currency_code": "eur"}, "unknown"),
        ({"language": "German"}, "pass"), ({"language": "en-GB"}, "pass"), ({"language": "xx"}, "unknown"),
        ({"language_code": "xx"}, "fail"),
        ({"locale": "en_XQ"}, "fail"),
        ({"language": "Go"}, "pass"), ("", "pass"), (7, "pass"),
        # four separate numbers
        ("Fiscal years 2019 2020 2021 2022", "pass"), ({"years": "2019-2020-2021-2022"}, "pass"),
        ("5012 3044 2210 4411 units", "unknown"),
        # neither an account nor a card, or not shown in full
        ({"iban_holder": "Max Muster"}, "pass"), ({"iban_bank": "Deutsche Bank"}, "pass"),
        ({"iban_valid": "yes"}, "pass"),
        ({"iban_number": "DE89370400440532013001"}, "fail"), ({"id_card_number": "L01X00T47"}, "pass"),
        ({"pan": "ABCPE1234F"}, "pass"),
        ({"insurance_card_no": "A123456789"}, "pass"), ({"loyalty_card_number": "123456"}, "pass"),
        ({"credit_card": "Visa"}, "pass"),
        ({"credit_card": "4111111111111112"}, "fail"), ({"debit_card_no": "4111111111111112"}, "fail"),
        ({"cardNumber": "none"}, "fail"),
        ({"card_number": "**** **** **** 1234"}, "unknown"), ({"card_number": "XXXX-XXXX-XXXX-1111"}, "unknown"),
        ({"iban": "DE89 **** **** **** 3000 00"}, "unknown"), ({"iban": "DE89 … 00"}, "unknown"),
        # names in use that no list has
        ({"country": "UAE"}, "unknown"), ({"currency": "RMB"}, "unknown"), ({"country_code": "UAE"}, "fail"),
        ({"country_code": "+49"}, "pass"), ({"language_code": "es-419"}, "pass"), ({"language_code": "zh-yue"}, "pass"),
        ({"language_code": "zh-Hant-TW"}, "pass"), ({"language_code": "de-CH-1996"}, "pass"),
        ({"locale": "en_US.UTF-8"}, "pass"),
        ({"language_code": "de-u-co-phonebk"}, "pass"), ({"programming_language": "js"}, "pass"),
        ({"target_language": "xx"}, "unknown"),
        ({"notes": "version 2024.02.30"}, "pass"), ({"due_date": "2024.02.30"}, "fail"),
        ("in June 31 people died", "pass"),
    ],
)  # fmt: skip
def test_format_checks_fields_by_name_and_texts_by_content(answer: Any, says: str) -> None:
    assert outcome(answer) == says


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [("iban", "DE89370400440532013000", "x"), ("card", "4111111111111111", "1"), ("country", "DE", "Germany"),
     ("currency", "EUR", "€"),
     ("language", "en-US", "English"), ("date", "2024-02-29", "2024-02-30"),
     ("date-time", "2024-02-29T10:00:00", "2024-02-30T10:00:00")],
)  # fmt: skip
def test_format_keyword_of_type_determines_kind(form: str, good: str, bad: str) -> None:
    schema = {"type": "object", "properties": {"it": {"type": "string", "format": form}}}
    assert check_format({"it": good}, schema, ()).outcome == "pass"
    verdict = check_format({"it": bad}, schema, ())
    assert (verdict.outcome, verdict.deterministic) == ("fail", True)
    assert bad in verdict.reason


@given(
    st.sampled_from([("country_code", COUNTRIES), ("currency_code", CURRENCIES), ("language_code", LANGUAGES)]),
    st.data(),
    st.sampled_from([", ", ",", "; ", "/", " / ", " and ", " | "]),
)
def test_format_several_codes_are_checked_separately(
    field: tuple[str, frozenset[str]], data: st.DataObject, between: str
) -> None:
    name, codes = field
    drawn = data.draw(st.lists(st.sampled_from(sorted(codes)), min_size=2, max_size=5))
    assert outcome({name: between.join(drawn)}) == "pass"
    wrong = "qq" if name == "language_code" else "QQQ"
    assert outcome({name: between.join([*drawn, wrong])}) == "fail"
    schema = {"type": "object", "properties": {"it": {"type": "string", "format": name.replace("_", "-")}}}
    assert check_format({"it": between.join(drawn)}, schema, ()).outcome == "fail", "the type says that it is one"


@given(st.integers(0, 9999), st.sampled_from(["{}", "ending in {}", "({})", "Visa {}"]))
def test_format_four_digits_in_named_card_field_are_unknown(digits: int, shape: str) -> None:
    text = shape.format(f"{digits:04}")
    assert outcome({"card_number": text}) == "unknown"
    schema = {"type": "object", "properties": {"it": {"type": "string", "format": "card"}}}
    assert check_format({"it": text}, schema, ()).outcome == "fail"


def test_format_skips_quotes_expressions_and_enums() -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "string", "format": "quote"}, "country": {"enum": ["DX"]}, "expression": TEXT},
    }
    assert check_format({"q": "on 30 February", "country": "DX", "expression": "30-2"}, schema, ()).outcome == "pass"


@agent(prompt="The account of {{ text }}")
def account_of(text: str) -> str:
    """Returns an account."""
    return answered_by_model()


@workflow()
def paid(text: str) -> str:
    return accepted(account_of(text=text), checks=format_ & numbers, against=text)


def test_format_name_is_exported() -> None:
    assert next(iter(paid.graph.nodes.values())).checks == ("format", "numbers")
    assert "checks=format_ & numbers" in to_python(paid.graph)
