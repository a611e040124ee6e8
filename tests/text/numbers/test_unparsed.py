"""Numerals that are not parsed: the check `numbers` passes none of them, unless the evidence has it."""

from __future__ import annotations

import sys
import unicodedata
from random import Random

import pytest

from orchestra.core.protocols import EvidenceSource
from orchestra.text.numbers.words import POWER_WORDS, SMALL_NUMBERS
from orchestra.verification.standalone import verify_answer
from tests.text.numbers.spellings import SPELLINGS

EVIDENCE = "The tower has 4096 rivets and was not made of wood, but of iron."
NUMERIC = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) in ("Nd", "Nl", "No")]
PLACES = (
    "{}",
    "Completed in {}.",
    "18{}9",
    "18{}",
    "{}89",
    "x{}",
    "{}x",
    "ab{}cd",
    "{}{}",
    "塔{}年",
    "It grew {} percent",
)
LANGUAGES = sorted(SPELLINGS)


def outcome(answer: str, evidence: str = EVIDENCE) -> str:
    return verify_answer(answer, (EvidenceSource(evidence),), ["numbers"]).verdicts[0].outcome


def passing(answers: list[str], evidence: str = EVIDENCE) -> list[str]:
    return [answer for answer in answers if outcome(answer, evidence) == "pass"]


@pytest.mark.parametrize(
    "answer",
    [
        "The tower was completed in MDCCCXC.", "Der Turm wurde achtzehnhundertneunzig fertig.",
        "La tour date de mille huit cent quatre-vingt-dix.",
        "塔于一八九〇年完成。", "Completed in ¹⁸⁹⁰.", "Completed in ①⑧⑨⓪.", "Completed in l89O.",
        "Completed in eighteen nine\u200bty.", "It has a couple hundred steps.", "Visits grew tenfold.",
    ],
)  # fmt: skip
def test_unparsed_wrong_number_does_not_pass(answer: str) -> None:
    assert outcome(answer, "The tower was completed in 1889. It has 1665 steps, and visits doubled.") != "pass"


def test_unparsed_numeric_characters_do_not_pass() -> None:
    sample = Random(5).sample(NUMERIC, 250)
    assert passing([place.format(*char * place.count("{}")) for char in sample for place in PLACES]) == []


@pytest.mark.slow
def test_unparsed_numeric_characters_in_every_place() -> None:
    assert len(NUMERIC) > 1_700
    assert passing([place.format(*char * place.count("{}")) for char in NUMERIC for place in PLACES]) == []


def test_unparsed_same_text_in_evidence_passes() -> None:
    for char in Random(6).sample(NUMERIC, 200):
        for place in ("Completed in {}.", "x{}", "{}x", "18{}"):
            answer = place.format(char)
            assert outcome(answer, f"It says: {answer} {EVIDENCE}") == "pass", (place, f"U+{ord(char):04X}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_unparsed_foreign_words_do_not_pass(language: str) -> None:
    spell, sentence = SPELLINGS[language]
    numbers = [
        *range(3, 21),
        30,
        40,
        50,
        60,
        70,
        71,
        80,
        81,
        90,
        97,
        100,
        1000,
        1890,
        *Random(language).sample(range(100, 10_000), 60),
    ]
    assert passing([sentence.format(spell(number)) for number in numbers]) == []


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_unparsed_foreign_words_below_ten_thousand(language: str) -> None:
    spell, sentence = SPELLINGS[language]
    assert passing([sentence.format(spell(number)) for number in range(3, 10_000) if number != 4096]) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_unparsed_foreign_words_in_evidence_pass(language: str) -> None:
    spell, sentence = SPELLINGS[language]
    for number in Random(language).sample(range(100, 10_000), 20):
        assert outcome(sentence.format(spell(number)), sentence.format(spell(number))) == "pass", spell(number)


def test_unparsed_part_of_longer_number_does_not_pass() -> None:
    assert outcome("Il y a mille huit cent pages.", "Il y a mille huit cent quatre-vingt-dix pages.") == "unknown"
    assert outcome("塔有八百级。", "塔有八百九十级。") == "unknown"


def english_forms() -> list[str]:
    vague = ("a couple", "a few", "several", "many", "a couple of", "tens of", "hundreds of", "half a dozen or a few")
    forms = [f"{word} {power}" for word in vague for power in (*POWER_WORDS, "dozen", "thousands", "millions")]
    forms += [f"{word}fold" for word in (*SMALL_NUMBERS, "hundred", "thousand") if word not in ("zero", "one")]
    forms += [f"{first}{second}" for first in ("twenty", "forty", "ninety") for second in ("one", "five", "nine")]
    forms += [
        "dozens",
        "scores of people",
        "hundreds",
        "thousands",
        "millions",
        "twice as many",
        "thrice",
        "doubled",
        "tripled",
        "quadrupled",
    ]
    forms += [
        "halved",
        "double the number",
        "triple the number",
        "the nineties",
        "in the sixties",
        "a myriad",
        "two quadrillion lakh",
        "zillions",
    ]
    forms += [
        "fourscore",
        "umpteen",
        "eighteenninety",
        "onehundred",
        "a multi-million sum",
        "fourty",
        "billions",
        "five crore lakhs",
    ]
    return forms


@pytest.mark.parametrize(
    "sentence", ["It has {} of them.", "{}", "Sales were {} last year", "There were {}, they said."]
)
def test_unparsed_vague_english_numbers_do_not_pass(sentence: str) -> None:
    assert passing([sentence.format(form) for form in english_forms()]) == []


def roman(number: int) -> str:
    out = ""
    for value, letters in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        out, number = out + letters * (number // value), number % value
    return out


def test_unparsed_roman_numeral_needs_value_in_evidence() -> None:
    for number in range(2, 4_000, 7):
        written = roman(number)
        if len(written) > 1:
            assert outcome(f"Completed in {written}.") == "unknown", written
            assert outcome(f"Completed in {written}.", f"Completed in {number}.") == "pass", written
        assert outcome(f"It was Louis {written}") == "unknown", written
        assert outcome(f"It was Louis {written}", f"It was Louis {written}, they say") == "pass", written


@pytest.mark.parametrize(
    "answer",
    ["in MDCCCLXXXX", "in mdcccxc", "in ⅯⅮⅭⅭⅭⅩⅭ", "in ⅯDCCCXC", "in М\u0421\u0421XC", "in M.D.C.C.C.X.C.", "Chapter Ⅳ"],
)
def test_unparsed_roman_spellings_do_not_pass(answer: str) -> None:
    assert outcome(answer) == "unknown"


LOOKALIKES = {
    "a": "аɑ", "c": "сϲ", "d": "ԁ", "e": "еҽ", "h": "һհ", "i": "іι", "n": "ո", "o": "оοօ", "s": "ѕ", "t": "т",
    "u": "սυ", "v": "ѵν", "w": "ԝ", "x": "хχ", "y": "уү", "0": "OоΟ", "1": "lIІ|", "8": "B", "5": "S", "r": "г",
    "g": "ց", "f": "ϝ", "l": "ӏ",
}  # fmt: skip


def disguised(text: str, random: Random) -> str:
    """Replaces at least one letter or digit of a text with a lookalike; at least one digit remains."""
    places = [at for at, char in enumerate(text) if char in LOOKALIKES]
    most = len(places) - 1 if text.isdigit() else len(places)
    chosen = set(random.sample(places, random.randint(1, most)))
    return "".join(random.choice(LOOKALIKES[char]) if at in chosen else char for at, char in enumerate(text))


def test_unparsed_lookalike_letters_do_not_pass() -> None:
    random = Random(7)
    words = ["eighteen", "ninety", "seven", "twelve", "six", "seventy", "thousand", "1890", "10", "1058", "five", "two"]
    assert passing([f"Completed in {disguised(random.choice(words), random)}." for _ in range(1_500)]) == []


@pytest.mark.parametrize("letters", ["O", "l", "I", "О", "Ⅰ", "B", "OO", "q7"])
def test_unparsed_letters_after_number_change_it(letters: str) -> None:
    assert outcome(f"It has 4096{letters} rivets.") == "unknown"


IGNORABLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u034f\ufe0f\u180e\u200e\u2063\U000e0041"


def test_unparsed_invisible_characters_hide_no_number() -> None:
    random = Random(8)
    for text in (
        "eighteen ninety",
        "1890",
        "seventy-two",
        "achtzehnhundert",
        "MDCCCXC",
        "tenfold",
        "two hundred",
        "mille huit cent",
    ):
        for _ in range(40):
            chars = list(text)
            for _ in range(random.randint(1, 4)):
                chars.insert(random.randint(1, len(chars) - 1), random.choice(IGNORABLE))
            assert outcome(f"Completed in {''.join(chars)}.") != "pass", ascii("".join(chars))


def test_unparsed_reversed_digits_do_not_pass() -> None:
    assert outcome("It has \u202e6904\u202c rivets.", "It has 6904 rivets.") == "unknown"


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        ("I think it was built on iron, and I like it", EVIDENCE), ("H₂O", "H2O is water"),
        ("CO2", "CO₂ is a gas"), ("HIV1", "the virus HIV-1"),
        ("5 km²", "5 square kilometres"), ("It is 12 m² large", "an area of 12 m²"),
        ("World War II", "after World War II"), ("a CD", "on a CD"), ("Washington DC", "Washington, D.C. is a city"),
        ("the 1980s", "in 1980"), ("due to fire", EVIDENCE), ("once", EVIDENCE), ("the ones on it", EVIDENCE),
        ("Henry VIII", "Henry VIII of England"), ("5 μg", "5 µg"), ("Samuel L. Jackson", EVIDENCE),
        ("The 10x growth", "growth by 10"), ("a 3D film", "a 3D film"), ("a sonnet mix of civil life", EVIDENCE),
        ("Q4 was good", "the fourth quarter"), ("It doubled", "It grew to twice as much"),
        ("the eighties", "in the 1980s"), ("a tenfold rise", "it rose 10 times"),
        ("Das Werk von Otto", "Das Werk von Otto, dem Ersten"),
    ],
)  # fmt: skip
def test_unparsed_equal_numerals_pass(answer: str, evidence: str) -> None:
    assert outcome(answer, evidence) == "pass"


def test_unparsed_unknown_script_needs_evidence() -> None:
    assert outcome("मीनार में नब्बे सीढ़ियाँ हैं", "मीनार लोहे की है") == "unknown"
    assert outcome("मीनार लोहे की है", "मीनार लोहे की है, और ऊँची है") == "pass"
