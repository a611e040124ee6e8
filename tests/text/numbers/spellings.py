"""Numbers from 0 to 9,999 as other languages spell them, for tests: written by rule, and not by the words that the checks recognise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


def _words(text: str) -> list[str]:
    return text.split()


def _german(number: int) -> str:
    ones = _words("null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf")
    tens = _words("- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
    if number >= 1000:
        return _german(number // 1000).removesuffix("s") + "tausend" + (_german(number % 1000) if number % 1000 else "")
    if number >= 100:
        return ones[number // 100] + "hundert" + (_german(number % 100) if number % 100 else "")
    if number == 1:
        return "eins"
    if number < 13:
        return ones[number]
    if number < 20:
        return {16: "sech", 17: "sieb"}.get(number, ones[number - 10]) + "zehn"
    return (ones[number % 10] + "und" if number % 10 else "") + tens[number // 10]


def _dutch(number: int) -> str:
    ones = _words(
        "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien achttien negentien"
    )
    tens = _words("- - twintig dertig veertig vijftig zestig zeventig tachtig negentig")
    if number >= 1000:
        return (
            (_dutch(number // 1000) if number >= 2000 else "")
            + "duizend"
            + (_dutch(number % 1000) if number % 1000 else "")
        )
    if number >= 100:
        return (
            (ones[number // 100] if number >= 200 else "") + "honderd" + (_dutch(number % 100) if number % 100 else "")
        )
    if number < 20:
        return ones[number]
    one = ones[number % 10]
    return (one + ("ën" if one.endswith("e") else "en") if number % 10 else "") + tens[number // 10]


def _french(number: int) -> str:
    ones = _words(
        "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf"
    )
    tens = _words("- - vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")
    if number >= 1000:
        return (
            (_french(number // 1000) + " " if number >= 2000 else "")
            + "mille"
            + (" " + _french(number % 1000) if number % 1000 else "")
        )
    if number >= 100:
        return (
            (ones[number // 100] + " " if number >= 200 else "")
            + "cent"
            + (" " + _french(number % 100) if number % 100 else "")
        )
    if number < 20:
        return ones[number]
    base = number // 10 - (number // 10 in (7, 9))
    rest = number - 10 * base
    if rest == 0:
        return tens[base] + ("s" if base == 8 else "")
    return tens[base] + (" et " if rest in (1, 11) and base < 8 else "-") + ones[rest]


def _spanish(number: int) -> str:
    ones = _words(
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
        "dieciséis diecisiete dieciocho diecinueve "
        "veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve"
    )
    tens = _words("- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa")
    hundreds = _words(
        "- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
    )
    if number >= 1000:
        return (
            (_spanish(number // 1000) + " " if number >= 2000 else "")
            + "mil"
            + (" " + _spanish(number % 1000) if number % 1000 else "")
        )
    if number >= 100:
        return (
            "cien"
            if number == 100
            else hundreds[number // 100] + (" " + _spanish(number % 100) if number % 100 else "")
        )
    if number < 30:
        return ones[number]
    return tens[number // 10] + (" y " + ones[number % 10] if number % 10 else "")


def _portuguese(number: int) -> str:
    ones = _words(
        "zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis dezessete dezoito dezenove"
    )
    tens = _words("- - vinte trinta quarenta cinquenta sessenta setenta oitenta noventa")
    hundreds = _words("- cento duzentos trezentos quatrocentos quinhentos seiscentos setecentos oitocentos novecentos")
    if number >= 1000:
        return (
            (_portuguese(number // 1000) + " " if number >= 2000 else "")
            + "mil"
            + (" e " + _portuguese(number % 1000) if number % 1000 else "")
        )
    if number >= 100:
        return (
            "cem"
            if number == 100
            else hundreds[number // 100] + (" e " + _portuguese(number % 100) if number % 100 else "")
        )
    if number < 20:
        return ones[number]
    return tens[number // 10] + (" e " + ones[number % 10] if number % 10 else "")


def _italian(number: int) -> str:
    ones = _words(
        "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette diciotto "
        "diciannove"
    )
    tens = _words("- - venti trenta quaranta cinquanta sessanta settanta ottanta novanta")
    if number >= 1000:
        head = "mille" if number < 2000 else _italian(number // 1000) + "mila"
        return head + (_italian(number % 1000) if number % 1000 else "")
    if number >= 100:
        return (
            (ones[number // 100] if number >= 200 else "") + "cento" + (_italian(number % 100) if number % 100 else "")
        )
    if number < 20:
        return ones[number]
    ten, one = tens[number // 10], number % 10
    return (ten[:-1] if one in (1, 8) else ten) + (ones[one] if one else "")


def _russian(number: int) -> str:
    ones = _words(
        "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать четырнадцать пятнадцать "
        "шестнадцать семнадцать восемнадцать девятнадцать"
    )
    tens = _words("- - двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто")
    hundreds = _words("- сто двести триста четыреста пятьсот шестьсот семьсот восемьсот девятьсот")
    if number >= 1000:
        head = {1: "тысяча", 2: "две тысячи"}.get(
            number // 1000, ones[number // 1000] + (" тысячи" if number < 5000 else " тысяч")
        )
        return head + (" " + _russian(number % 1000) if number % 1000 else "")
    if number >= 100:
        return hundreds[number // 100] + (" " + _russian(number % 100) if number % 100 else "")
    if number < 20:
        return ones[number]
    return tens[number // 10] + (" " + ones[number % 10] if number % 10 else "")


def _chinese(number: int) -> str:
    digits = "零一二三四五六七八九"
    if number < 10:
        return digits[number]
    out, zero = "", False
    for power, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // power % 10
        if digit:
            out += ("零" if zero and out else "") + digits[digit] + name
        zero = not digit
    return out


def _japanese(number: int) -> str:
    digits = "〇一二三四五六七八九"
    if number < 10:
        return digits[number]
    parts = ((number // power % 10, name) for power, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")))
    return "".join(("" if digit == 1 and name else digits[digit]) + name for digit, name in parts if digit)


SPELLINGS: Final[dict[str, tuple[Callable[[int], str], str]]] = {
    "German": (_german, "Der Turm hat {} Stufen."),
    "Dutch": (_dutch, "De toren heeft {} treden."),
    "French": (_french, "La tour a {} marches dans les escaliers."),
    "Spanish": (_spanish, "La torre tiene {} escalones en el interior."),
    "Portuguese": (_portuguese, "A torre foi feita com {} degraus."),
    "Italian": (_italian, "La torre ha {} gradini che sono di ferro."),
    "Russian": (_russian, "В башне {} ступеней."),
    "Chinese": (_chinese, "塔有{}级台阶。"),
    "Japanese": (_japanese, "塔には{}段の階段がある。"),
}
"""By language: how a number is spelled, and a sentence for it."""
