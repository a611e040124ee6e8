"""Numerals that the grammar of numbers does not parse: other scripts and languages, Roman, superscript, vague,
disguised.

A check that looks up the numbers of an answer does not see these. For an answer with one of them it is unknown whether
the evidence supports it, unless the evidence has the same text, or its value if that is unambiguous.

The second part lists number words of other languages, which are recognized but not evaluated. Languages: German, Dutch,
Swedish, Danish, Norwegian, Finnish, Hungarian, Turkish, Italian, French, Spanish, Portuguese, Romanian, Polish, Czech,
Indonesian, Latin, Vietnamese, Swahili, Russian, Ukrainian, Greek, Arabic, Hebrew, Chinese, Japanese, Korean. Words of
other scripts cannot be recognized.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from orchestra.text.keywords import UNSPACED_SCRIPTS, WORD
from orchestra.text.numbers.numerals import to_ascii_digits
from orchestra.text.numbers.units import unit_at
from orchestra.text.numbers.words import ORDINALS, POWER_WORDS, SMALL_NUMBERS

COMPOUNDS: Final = {
    "de": "null eins zwei zwo drei vier fünf fuenf sechs sieben acht neun zehn elf zwölf zwoelf sech sieb zwanzig "
    "dreißig dreissig vierzig hundert tausend milliarde billiarde dutzend anderthalb",
    "nl": "nul twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien twintig dertig veertig "
    "tachtig honderd duizend miljoen miljard",
    "sv": "noll två tre fyra fem sex sju åtta nio tio elva tolv tretton fjorton femton sexton sjutton arton nitton "
    "tjugo trettio fyrtio hundra tusen miljon miljard",
    "da": "nul tre fire fem seks syv sju otte åtte elleve tolv tretten fjorten femten seksten sytten atten nitten "
    "tyve tjue tredive tretti fyrre førti halvtreds tres halvfjerds firs åtti halvfems femti seksti sytti nitti "
    "hundrede hundre tusind tusen",
    "fi": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän kymmenen toista kymmentä sata sataa "
    "tuhat tuhatta miljoona",
    "hu": "nulla kettő két három négy öt hat hét nyolc kilenc tíz tizen húsz huszon harminc negyven ötven hatvan "
    "hetven nyolcvan kilencven száz ezer millió milliárd",
    "tr": "sıfır iki üç dört beş altı yedi sekiz dokuz on yirmi otuz kırk elli altmış yetmiş seksen doksan yüz bin "
    "milyon milyar",
    "it": "uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove venti vent trenta trent quaranta quarant cinquanta cinquant sessanta sessant "
    "settanta settant ottanta ottant novanta novant cento mille mila milione milioni miliardo miliardi",
}
"""Languages that join number words; each word consists of one or more of these, with `_JOINTS` and `_SUFFIXES`."""
_JOINTS = {
    "de": "und|ein",
    "nl": "en|ën|een",
    "sv": "ett|en",
    "da": "og|en|et|to|ni|ti",
    "hu": "egy",
    "tr": "bir",
    "fi": "",
    "it": "",
}
_ENDINGS = {
    "de": "(?:zig|ßig)?(?:en|n)?(?:s?t?e[rsnm]?|fach|mal)?", "nl": "(?:tien|tig)?(?:de|ste|en|voud)?",
    "sv": "(?:er|de|te|nde)?", "da": "(?:er|de|te|nde)?", "fi": "(?:a|ä|n)?", "hu": "(?:an|en|odik|edik|adik|ödik)?",
    "tr": "(?:inci|ıncı|uncu|üncü|nci|ncı)?", "it": "(?:esimo|esima|esimi)?",
}  # fmt: skip
NUMBER_WORDS: Final = (
    # French
    "zéro deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize vingt vingts trente "
    "quarante cinquante soixante septante huitante octante nonante cent cents mille milliard milliards deuxième "
    "troisième quatrième cinquième sixième septième huitième neuvième dixième onzième douzième quinzième vingtième "
    "trentième centième millième douzaine vingtaine centaine centaines millier milliers "
    # Spanish
    "cero dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis dieciseis "
    "diecisiete dieciocho diecinueve veinte veintiuno veintiún veintidós veintitrés veinticuatro veinticinco "
    "veintiséis veintisiete veintiocho veintinueve treinta cuarenta cincuenta sesenta setenta ochenta noventa cien "
    "ciento cientos doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos "
    "doscientas trescientas cuatrocientas quinientas seiscientas setecientas ochocientas novecientas mil millón millon "
    "millones docena docenas tercero cuarto quinto séptimo octavo noveno décimo "
    # Portuguese
    "dois duas três quatro oito sete dez treze catorze quatorze dezesseis dezasseis dezessete dezassete dezoito "
    "dezenove dezanove vinte trinta quarenta cinquenta sessenta oitenta cem duzentos trezentos quatrocentos quinhentos "
    "seiscentos setecentos oitocentos novecentos duzentas trezentas quatrocentas quinhentas milhão milhões milhares "
    "bilhão bilhões dúzia dúzias "
    # Romanian
    "doi două trei patru cinci șase şase sase șapte şapte sapte opt nouă zece unsprezece doisprezece treisprezece "
    "paisprezece cincisprezece șaisprezece șaptesprezece optsprezece nouăsprezece douăzeci treizeci patruzeci "
    "cincizeci șaizeci șaptezeci optzeci nouăzeci sută sute milion milioane "
    # Polish
    "jeden jedna dwa dwie trzy cztery pięć sześć siedem osiem dziewięć dziesięć jedenaście dwanaście trzynaście "
    "czternaście piętnaście szesnaście siedemnaście osiemnaście dziewiętnaście dwadzieścia trzydzieści czterdzieści "
    "pięćdziesiąt sześćdziesiąt siedemdziesiąt osiemdziesiąt dziewięćdziesiąt sto dwieście trzysta czterysta pięćset "
    "sześćset siedemset osiemset dziewięćset tysiąc tysiące tysięcy miliony milionów "
    # Czech
    "nula dva dvě tři čtyři pět šest sedm osm devět deset jedenáct dvanáct třináct čtrnáct patnáct šestnáct sedmnáct "
    "osmnáct devatenáct dvacet třicet čtyřicet padesát šedesát sedmdesát osmdesát devadesát stě tisíc tisíce "
    # Indonesian, Latin, Vietnamese, Swahili
    "satu dua tiga empat lima enam tujuh delapan sembilan sepuluh sebelas belas puluh seratus ratus seribu ribu juta "
    "quattuor quinque septem octo novem decem undecim duodecim viginti triginta quadraginta quinquaginta centum "
    "ducenti quingenti một bốn năm sáu bảy tám chín mười trăm nghìn triệu mbili tatu nne tano sita nane tisa kumi elfu "
    # Danish and Norwegian numbers that are too short to be part of a compound
    "milliard milliarder"
)
HOMOGRAPHS: Final = frozenset(
    WORD.findall("elf otto uno duo lima mila trent sita sata quince tio vent dos opt dua nove tano")
)
"""Number words that are also words or names in English. They count in a text without English function words."""
WEAK_NUMBER_WORDS: Final = frozenset(
    WORD.findall("on bin hat fire to ni ti en et hai ba due six once cent cents sex mil seize sept null doi fem doze")
)
"""Number words that are also frequent words in English. They count next to another number word, and in a text with
function words of other languages.
"""
CONJUNCTIONS: Final = frozenset(WORD.findall("und en och og et y e i и та και"))
"""Conjunctions between the words of one number."""
_ENGLISH_FUNCTION_WORDS: Final = frozenset(
    WORD.findall("the and with from that this which they been were are its their")
)
_OTHER_FUNCTION_WORDS: Final = frozenset(
    WORD.findall(
        "der das und ist eine wurde jahre les est une dans ans el una fue es años il della dei nel che sono anni foi "
        "em anos het een jaar är och det og år ve yıl az és"
    )
)
_CYRILLIC_EXACT = frozenset(
    WORD.findall(
        "ноль нуль один одна одно одного два две двух дві три трёх трех трьох сто ста пять шесть семь восемь шість "
        "сім вісім оба обе"
    )
)
_CYRILLIC = re.compile(
    ""
    "(?:двое|трое|четыр|чотир|четвер|пятер|пятнадц|пятидес|пятьдес|пятьс|пятис|шестнадц|шестьдес|шестис|шестьс|семнадц|семьдес|семьс|восемнадц|восьми|восемьдес|восемьс|девять|девяти|девятн|девяно|девят|десять|десяти|десят|одиннадц|двенадц|двaнадц|тринадц|четырнадц|двадц|тридц|сорок|двести|двухс|триста|трехс|трёхс|тысяч|тисяч|миллион|мільйон|миллиард|мільярд|перв|втор|трет|шест|седьм|восьм|одинадц|дванадц|чотирнадц|сімнадц|вісімнадц|дев.?ять|двісті|сотн|сотен|дюжин|вдвое|втрое|девет|седем|осем|десет|хиляд|стотин)"
)
_GREEK = re.compile(
    ""
    "(?:μηδεν|δυο|τρια|τρεις|τεσσερ|πεντε|εξι|επτα|εφτα|οκτω|οχτω|εννεα|εννια|δεκα|ενδεκα|εντεκα|δωδεκα|εικοσι|τριαντα|σαραντα|πενηντα|εξηντα|εβδομηντα|ογδοντα|ενενηντα|εκατο|διακοσι|τριακοσι|τετρακοσι|πεντακοσι|εξακοσι|επτακοσι|εφτακοσι|οκτακοσι|οχτακοσι|εννιακοσι|"
    "χιλι|εκατομμυρι|δισεκατομμυρι)|.*\u0374"
)
_ARABIC = re.compile(
    ""
    "(?:و|ب|ل|ف|ك|ال)*(?:صفر|واحد|واحدة|اثن|إثن|اثنا|اثنان|اثنين|ثلاث|أربع|اربع|خمس|ستة|ست|ستون|ستين|سبع|ثمان|تسع|عشر|عشرة|عشرون|عشرين|مائة|مئة|مائت|مئت|ألف|الف|آلاف|ألفين|ألفان|مليون|ملايين|مليار)(?:ة|ون|ين|ان|ا|ائة|مائة|مئة)?"
)
_HEBREW = re.compile(
    ""
    "(?:ו|ב|ל|מ|ה|ש|כ)*(?:אפס|אחת|אחד|שתיים|שניים|שתי|שני|שלוש|שלושה|ארבע|ארבעה|חמש|חמישה|שש|שישה|שבע|שבעה|שמונה|תשע|תשעה|עשר|עשרה|עשרים|שלושים|ארבעים|חמישים|שישים|שבעים|שמונים|תשעים|מאה|מאות|מאתיים|אלף|אלפים|אלפיים|מיליון|מיליארד)"
)
_KOREAN = re.compile(
    "(?:제|약)?[영공일이삼사오육륙칠팔구십백천만억조]{2,}(?:년|월|일|명|개|원|번|회|도|층|살|세|시|분|초|킬로|미터)?.{0,3}"
    "|[일이삼사오육칠팔구십백천만억](?:년|월|명|개|원|번째|회|층|살|세|시간|분|초|미터).{0,3}"
    "|(?:하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉|열|스물|서른|마흔|쉰|예순|일흔|여든|아흔).{0,4}"
    "|[한두세네](?:명|개|번|살|시간|배|층).{0,3}"
)
_KANA = re.compile(
    "ひとつ|ふたつ|みっつ|よっつ|いつつ|むっつ|ななつ|やっつ|ここのつ|[ひびぴ]ゃく|じゅう|きゅう|せんきゅう|はっせん"
)
HAN_NUMERALS: Final = "〇零一二三四五六七八九十百千万萬億亿兆两兩壹弐貳贰参參叁肆伍陸陆柒捌玖拾佰仟廿卅〡-〩〸-〺"
"""Characters of Chinese and Japanese numerals, for a character class."""
_KNOWN_SCRIPTS = frozenset(
    WORD.findall("LATIN CYRILLIC GREEK ARABIC HEBREW HANGUL CJK HIRAGANA KATAKANA IDEOGRAPHIC MODIFIER")
)
"""Scripts with recognized number words, and letters of no script."""
_LOOKALIKE_LETTERS = str.maketrans(
    "аеорсухіјѕһԁԛԝѵӏкмтвнгүҽАВЕКМНОРСТУХІЈЅԌԚԜѴӀοαρτυνικχωεϝϲΑΒΕΖΗΙΚΜΝΟΡΤΥΧսոօցհաԼՕꓲꓦꓫꓡꓚꓓꓟɑɡı",
    "aeopcyxijshdqwvlkmtbhryeABEKMHOPCTYXIJSGQWVIoaptuvikxwefcABEZHIKMNOPTYXunoghwLOIVXLCDMagi",
)
"""Letters of other scripts that look like Latin ones."""


_LOOKALIKE_SCRIPTS = frozenset(("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "LISU"))


def _compound_pattern(language: str) -> str:
    parts = "|".join(sorted(COMPOUNDS[language].split(), key=len, reverse=True))
    joint = f"(?:{_JOINTS[language]})*" if _JOINTS[language] else ""
    return f"{joint}(?:(?:{parts}){_ENDINGS[language]}{joint})+"


_COMPOUND = re.compile("|".join(f"(?:{_compound_pattern(language)})" for language in COMPOUNDS))
_NUMBER_WORDS = frozenset(WORD.findall(NUMBER_WORDS))


def is_english(tokens: Sequence[str]) -> bool:
    """Returns whether a text has a word that is English and belongs to no other language of this module."""
    return not _ENGLISH_FUNCTION_WORDS.isdisjoint(tokens)


def is_of_other_language(tokens: Sequence[str]) -> bool:
    """Returns whether a text has a function word of another language, and none of English."""
    return not _OTHER_FUNCTION_WORDS.isdisjoint(tokens) and not is_english(tokens)


def is_number_word(token: str) -> bool:
    """Returns whether a case-folded word is a number word of a language other than English."""
    if token in _NUMBER_WORDS or token in WEAK_NUMBER_WORDS:
        return True
    if token.isascii() or script(token[0]) == "LATIN":
        return _COMPOUND.fullmatch(token) is not None
    first = script(token[0])
    if first == "CYRILLIC":
        return token in _CYRILLIC_EXACT or _CYRILLIC.match(token) is not None
    if first == "GREEK":
        return _GREEK.match(strip_accents(token)) is not None
    pattern = {"ARABIC": _ARABIC, "HEBREW": _HEBREW, "HANGUL": _KOREAN}.get(first)
    if pattern is not None:
        return pattern.fullmatch(token) is not None
    return first in ("HIRAGANA", "KATAKANA", "CJK") and _KANA.search(token) is not None


def script(char: str) -> str:
    """Returns the script of a letter, from its Unicode name."""
    return unicodedata.name(char, "UNKNOWN").split(" ")[0].split("-")[0]


def is_of_unknown_script(token: str) -> bool:
    """Returns whether a word has letters of a script without recognized number words."""
    return not token.isascii() and any(
        script(char) not in _KNOWN_SCRIPTS for char in token if char.isalpha() and not char.isascii()
    )


def to_latin(token: str) -> str:
    """Replaces letters of other scripts that look like Latin ones."""
    return token if token.isascii() else token.translate(_LOOKALIKE_LETTERS)


def has_mixed_scripts(token: str) -> bool:
    """Returns whether a word has letters of two scripts that look alike, and one of them looks like a Latin one."""
    if token.isascii() or to_latin(token) == token:
        return False
    return len({script(char) for char in token if char.isalpha()} & _LOOKALIKE_SCRIPTS) > 1


def strip_accents(text: str) -> str:
    """Removes combining marks from a text."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


_IGNORABLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202c"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Invisible characters, which may be inside a word or a number."""
_REVERSED = re.compile("[\u202d\u202e]")
"""Characters that display digits in another order."""
_TOKEN = re.compile(f"[{UNSPACED_SCRIPTS}]+|[^\\W_{UNSPACED_SCRIPTS}]+")
_HAN = re.compile(f"[{HAN_NUMERALS}]+")
_RAISED_UNIT = re.compile(r"(?<![^\W\d_])(?:[kcdmnµμ]?m|ft|in|mi|yd|sq|s|h)[²³](?!\w)", re.IGNORECASE)
"""A unit of area or volume, or per square second."""
_SUFFIXES = frozenset(
    (
        "s",
        "st",
        "nd",
        "rd",
        "th",
        "x",
        "d",
        "am",
        "pm",
        "a",
        "p",
        "t",
        "z",
        "h",
        "min",
        "ish",
        "fold",
        "er",
        "bn",
        "mn",
        "tn",
    )
)
"""Letters after digits that are not digits. Others, such as the `O` of `189O`, may replace a digit."""
_LOOKALIKE = frozenset("lIoO")
_LETTERS_FOR_DIGITS = re.compile("(?=.*O)(?=.*[lI])[lIO]+")
_QUARTER = re.compile(r"Q([1-4])")
_ADDITIVE = re.compile(r"(?=[MDCLXVI])(M*)(CM|CD|D?C*)(XC|XL|L?X*)(IX|IV|V?I*)")
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_ROMAN_LETTERS = re.compile(r"[IVXLCDM]{4,}")
_SPACED_ROMAN = re.compile(r"(?<!\w)(?:[IVXLCDM]\.\s?){2,}[IVXLCDM](?!\w)")
_NO_ROMAN = frozenset(
    WORD.findall(
        "mix dix mild mill dill ill mid dim did lid vim civil civic mimic vivid livid cli di li vi mi xi ci md ml mm "
        "cm cd cl dl dm cc mc mv dc cv lm"
    )
)
"""Words, names and units in lower case that only look like Roman numerals."""
_ROMAN_CONTEXT = re.compile(
    r"(?:\b(?:chapter|part|section|volume|book|act|scene|phase|type|stage|grade|class|level|article|appendix|title|group|mark|war)"
    r"|(?<![.!?]\s)(?<!\A)\b[A-Z][^\W\d_]{2,})\s\Z"
)
"""Text before a Roman numeral of one letter."""
_NUMBER = rf"(?:{'|'.join(sorted((*SMALL_NUMBERS, *POWER_WORDS), key=len, reverse=True))})"
_JOINED_WORDS = re.compile(
    rf"(?!ones)(?P<one>{_NUMBER})(?:fold|some|somes|something|ish|odd|s|es)|(?:{_NUMBER}|and){{2,}}(?:fold|some|something|ish|odd|s)?|"
    rf"(?:dozen|score|hundred|thousand|million)fold"
)
"""Number words that are written as one word, and words derived from one."""
_MULTIPLES = {
    **dict.fromkeys(("twice", "double", "doubled", "doubles", "doubling"), 2),
    **dict.fromkeys(("thrice", "triple", "tripled", "triples", "tripling", "treble", "trebled"), 3),
    **dict.fromkeys(("quadruple", "quadrupled", "quadruples", "quadrupling"), 4),
    **dict.fromkeys(("quintuple", "quintupled"), 5), **dict.fromkeys(("sextuple", "sextupled"), 6), "septuple": 7,
    "octuple": 8, "nil": 0, "nought": 0, "naught": 0,
}  # fmt: skip
_HALVES = frozenset(("halved", "halves", "halving"))
_VAGUE_WORDS = frozenset(
    WORD.findall(
        "dozen dozens scores tens umpteen zillion zillions gazillion myriad myriads quadrillion quadrillions "
        "quintillion sextillion septillion octillion nonillion decillion googol lakh lakhs crore crores fourscore "
        "threescore billionth trillionth quadrillionth eleventy fourty fivety ninty ninteen fourteeen fiveteen "
        "twelth eigth nineth sixtey fourtieth milliard billiard"
    )
) | {name for power in POWER_WORDS for name in (power, f"{power}s")}
_DECADES = {f"{ten[:-1]}ies": value for ten, value in SMALL_NUMBERS.items() if value >= 20}
_QUANTITY_WORDS = frozenset(("couple", "few", "several", "many", "some", "multi", "half"))
"""Words for an inexact multiple of a power of ten."""
_MAY_JOIN = re.compile(r"[\s\-\u2010\u2011'\u2019]*\Z")


class UnparsedNumeral(NamedTuple):
    """A numeral that is not parsed, its position, and its values if they are unambiguous."""

    text: str
    start: int
    end: int
    values: tuple[Fraction, ...] = ()
    is_literal: bool = False
    """Whether only the same characters in the evidence support it."""
    is_part: bool = False
    """Whether it may be a part of a longer numeral in the evidence, as `mille` in `mille huit cent`."""


def strip_ignorable(text: str) -> str:
    """Removes invisible characters from a text."""
    return _IGNORABLE.sub("", text)


def find_unparsed(text: str, parsed_spans: Iterable[tuple[int, int]]) -> Iterator[UnparsedNumeral]:
    """Returns the numerals outside of `parsed_spans` of a text without invisible characters, in no particular order."""
    if match := _REVERSED.search(text):
        yield UnparsedNumeral(text, match.start(), match.end(), is_literal=True)
    known = _ParsedText(to_ascii_digits(text), parsed_spans)
    yield from known.special_numerals(text)
    words: list[_Word] = []
    tokens = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(known.text)]
    folded = [token.casefold() for token, _, _ in tokens]
    language = _Language(is_english(folded), is_of_other_language(folded))
    for token, start, end in tokens:
        if known.covers(start, end):
            words.append(_Word(start, end, is_parsed=True))
        elif _HAN.search(token):
            for found in _HAN.finditer(token):
                value = _han_value(found[0])
                yield UnparsedNumeral(
                    found[0],
                    start + found.start(),
                    start + found.end(),
                    () if value is None else (value,),
                    is_literal=True,
                )
        elif any(char.isnumeric() for char in token):
            if (one := _digit_token(known, token, start, end)) is not None:
                yield one
        elif (values := _roman_values(known.text, token, start, end)) is not None:
            yield UnparsedNumeral(token, start, end, values)
        else:
            words.append(_classify_word(known.text, token, start, end, language))
    yield from _merge_runs(text, words)
    for match in _SPACED_ROMAN.finditer(text):
        yield UnparsedNumeral(match[0], *match.span())


class _ParsedText:
    """A text, and which of its characters were parsed."""

    def __init__(self, text: str, parsed_spans: Iterable[tuple[int, int]]) -> None:
        self.text = text
        self.is_parsed = bytearray(len(text))
        for start, end in parsed_spans:
            self.is_parsed[start:end] = b"\x01" * (min(end, len(text)) - start)
        for match in _RAISED_UNIT.finditer(text):
            self.is_parsed[match.start() : match.end()] = b"\x01" * len(match[0])

    def covers(self, start: int, end: int) -> bool:
        return 0 not in self.is_parsed[start:end]

    def special_numerals(self, text: str) -> Iterator[UnparsedNumeral]:
        """Yields digits with a combining mark, and numeric characters that are not letters."""
        if text.isascii():
            return
        for at, char in enumerate(text):
            if (
                char.isnumeric()
                and at + 1 < len(text)
                and unicodedata.category(text[at + 1])[0] == "M"
                and text[at + 1] != "\u20e3"
            ):
                yield UnparsedNumeral(text[at : at + 2], at, at + 2, is_literal=True)
            elif not char.isalnum() and unicodedata.numeric(char, None) is not None:
                yield UnparsedNumeral(char, at, at + 1, (Fraction(unicodedata.numeric(char)).limit_denominator(1000),))


def _digit_token(known: _ParsedText, token: str, start: int, end: int) -> UnparsedNumeral | None:
    """Returns a token with a numeric character, if it is more than a parsed number with its unit."""
    uncovered = [at for at in range(start, end) if not known.is_parsed[at]]
    if any(known.text[at].isnumeric() for at in uncovered):
        if match := _QUARTER.fullmatch(token):
            return UnparsedNumeral(token, start, end, (Fraction(match[1]),))
        alone = len(uncovered) == len(token) and (known.text[start - 1 : start] or " ") not in "/\u2044^"
        return UnparsedNumeral(token, start, end, _character_value(token) if alone else ())
    suffix = "".join(known.text[at] for at in uncovered)
    last = max(at for at in range(start, end) if known.is_parsed[at]) + 1 if len(uncovered) < len(token) else start
    if not _LOOKALIKE.isdisjoint(suffix[:1]) and suffix.lower() not in _SUFFIXES:
        return UnparsedNumeral(token, start, end)
    if suffix.lower() in _SUFFIXES or unit_at(known.text, last) is not None:
        return None
    return UnparsedNumeral(token, start, end)


def _character_value(token: str) -> tuple[Fraction, ...]:
    """Returns the value of numeric characters without letters: `①`, `¹⁸⁸⁹`, `Ⅳ`, `½`."""
    digits = [unicodedata.digit(char, None) for char in token]
    if all(digit is not None for digit in digits):
        return (Fraction(int("".join(map(str, digits)))),)
    if (values := _roman_value(unicodedata.normalize("NFKC", token).upper())) is not None:
        return (values,)
    if len(token) == 1:
        return (Fraction(unicodedata.numeric(token)).limit_denominator(1000),)
    return ()


def _roman_values(text: str, token: str, start: int, end: int) -> tuple[Fraction, ...] | None:
    """Returns the values of a Roman numeral; None if it is none."""
    shown = to_latin(unicodedata.normalize("NFKC", token))
    if not shown.isascii():
        return None
    upper = shown.upper()
    value = _roman_value(upper)
    if value is None:
        is_one = shown == upper and _ROMAN_LETTERS.fullmatch(upper) and upper.lower() not in _NO_ROMAN
        return () if is_one else None
    if shown == upper:
        return (value,) if len(shown) > 1 or _has_roman_context(text, start, end) else None
    if shown == shown.lower() and len(shown) > 1 and shown not in _NO_ROMAN:
        return (value,)
    return (value,) if len(shown) > 3 and shown.lower() not in _NO_ROMAN else None


def _has_roman_context(text: str, start: int, end: int) -> bool:
    """Returns whether a letter follows a name or a word such as `chapter`, and is not an initial: `Chapter V`, `Louis
    X`.
    """
    if text[end : end + 1] == "." and text[end + 1 : end + 3].strip()[:1].isalpha():
        return False
    return _ROMAN_CONTEXT.search(text, max(0, start - 40), start) is not None


def _roman_value(upper: str) -> Fraction | None:
    """Returns the value of a Roman numeral, also with too many repeated letters; None for other letters."""
    if _ADDITIVE.fullmatch(upper) is None:
        return None
    values = [_ROMAN[char] for char in upper]
    return Fraction(sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True)))


_HAN_DIGITS = {
    char: value
    for value, chars in enumerate(
        ("〇零", "一壹", "二贰貳两兩弐", "三叁參参", "四肆", "五伍", "六陆陸", "七柒", "八捌", "九玖")
    )
    for char in chars
}
_HAN_POWERS = {
    char: power for power, chars in ((1, "十拾"), (2, "百佰"), (3, "千仟"), (4, "万萬"), (8, "億亿")) for char in chars
}


def _han_value(text: str) -> Fraction | None:
    """Returns the value of a Chinese or Japanese numeral: by place (`一八八九`) or with powers (`千八百八十九`)."""
    if all(char in _HAN_DIGITS for char in text):
        return Fraction(int("".join(str(_HAN_DIGITS[char]) for char in text)))
    total = group = 0
    digit: int | None = None
    for char in text:
        if char in _HAN_DIGITS:
            if digit:
                return None
            digit = _HAN_DIGITS[char]
        elif (power := _HAN_POWERS.get(char)) is None:
            return None
        elif power < 4:
            group, digit = group + (1 if digit is None else digit) * 10**power, None
        else:
            total, group, digit = total + (group + (digit or 0) or 1) * 10**power, 0, None
    return Fraction(total + group + (digit or 0))


class _Word(NamedTuple):
    """A word of a text, and whether it is a numeral."""

    start: int
    end: int
    is_numeral: bool = False
    values: tuple[Fraction, ...] = ()
    is_weak: bool = False
    """Whether it only counts next to another numeral."""
    is_joint: bool = False
    """Whether it may join two numerals or quantify one: `und`, `several`."""
    is_parsed: bool = False
    is_complete: bool = False
    """Whether it is never part of a longer numeral."""


class _Language(NamedTuple):
    """The language of a text as shown by its function words."""

    english: bool
    other: bool


def _classify_word(text: str, token: str, start: int, end: int, language: _Language) -> _Word:
    folded = unicodedata.normalize("NFKC", token).casefold()
    if to_latin(folded) != token.casefold() and _is_english_numeral(to_latin(folded)):
        return _Word(start, end, is_numeral=True)  # a disguised numeral
    if _LETTERS_FOR_DIGITS.fullmatch(token):
        return _Word(start, end, is_numeral=True, is_complete=True)
    if (values := _english_values(text, folded, end)) is not None:
        return _Word(start, end, is_numeral=True, values=values)
    if folded in CONJUNCTIONS or folded in _QUANTITY_WORDS or folded in ("of", "a"):
        return _Word(start, end, is_joint=True)
    if folded in WEAK_NUMBER_WORDS:
        return _Word(start, end, is_numeral=not language.english, is_weak=not language.other)
    if folded in HOMOGRAPHS:
        return _Word(start, end, is_numeral=not language.english)
    if has_mixed_scripts(token) or is_of_unknown_script(folded):
        return _Word(start, end, is_numeral=True, is_complete=True)
    return _Word(start, end, is_numeral=is_number_word(folded))


def _is_english_numeral(word: str) -> bool:
    return (
        word in SMALL_NUMBERS
        or word in POWER_WORDS
        or word in _VAGUE_WORDS
        or word in _MULTIPLES
        or word in ORDINALS
        or _JOINED_WORDS.fullmatch(word) is not None
    )


def _english_values(text: str, word: str, end: int) -> tuple[Fraction, ...] | None:
    """Returns the values of an English numeral that is not parsed as a number; None for another word."""
    if word == "scores" and not text[end : end + 4].lower().startswith(" of "):
        return None
    if word in _VAGUE_WORDS:
        return ()
    if word in _HALVES:
        return (Fraction(1, 2),)
    if (value := _MULTIPLES.get(word)) is not None:
        return (Fraction(value),)
    if (decade := _DECADES.get(word)) is not None:
        return (Fraction(decade), Fraction(1900 + decade))
    if match := _JOINED_WORDS.fullmatch(word):
        return (Fraction(SMALL_NUMBERS[match["one"]]),) if match["one"] in SMALL_NUMBERS else ()
    return None


def _merge_runs(text: str, words: Sequence[_Word]) -> Iterator[UnparsedNumeral]:
    """Merges adjacent numerals."""
    at = 0
    while at < len(words):
        if not (words[at].is_numeral and not words[at].is_weak):
            at += 1
            continue
        first = last = at
        while (
            first
            and _is_beside(text, words, first - 1, first)
            and (words[first - 1].is_numeral or words[first - 1].is_joint)
        ):
            first -= 1
        while last + 1 < len(words) and _is_beside(text, words, last, last + 1):
            if not (words[last + 1].is_numeral or words[last + 1].is_joint):
                break
            last += 1
        while last > at and not words[last].is_numeral:
            last -= 1
        while (
            first < at
            and not words[first].is_numeral
            and text[words[first].start : words[first].end].lower() in ("of", "a", "an")
        ):
            first += 1
        values = words[at].values if first == last else ()
        start, end = words[first].start, words[last].end
        yield UnparsedNumeral(text[start:end], start, end, values, is_part=not words[at].is_complete)
        at = last + 1


def _is_beside(text: str, words: Sequence[_Word], left: int, right: int) -> bool:
    return _MAY_JOIN.match(text, words[left].end, words[right].start) is not None and not (
        words[left].is_parsed or words[right].is_parsed
    )


class TextWords:
    """The words of some texts, for looking up numerals as they are written."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self._joined: str | None = None

    def contains(self, numeral: UnparsedNumeral) -> bool:
        """Returns whether the texts contain a numeral as written, and not as part of a longer one."""
        if numeral.is_literal:
            return any(self._contains_literal(numeral.text, text) for text in self.texts)
        words = " ".join(_normalized_tokens(numeral.text))
        return bool(words) and (
            self._contains_words(words, numeral)
            or self._contains_words(_LETTER_DIGIT_BOUNDARY.sub(" ", words), numeral)
        )

    def _contains_words(self, words: str, numeral: UnparsedNumeral) -> bool:
        if self._joined is None:
            self._joined = " \0 ".join(" ".join(_normalized_tokens(text)) for text in self.texts)
        joined = f" {self._joined} "
        at = joined.find(f" {words} ")
        while at >= 0:
            before = joined[max(0, at - 40) : at].rpartition(" ")[2]
            after = joined[at + len(words) + 2 : at + len(words) + 42].partition(" ")[0]
            if not (numeral.is_part and (_is_numeral_word(before) or _is_numeral_word(after))):
                return True
            at = joined.find(f" {words} ", at + 1)
        return False

    def _contains_literal(self, wanted: str, text: str) -> bool:
        at = text.find(wanted)
        while at >= 0:
            around = text[max(0, at - 1) : at] + text[at + len(wanted) : at + len(wanted) + 1]
            if not any(char.isnumeric() or _HAN.match(char) for char in around):
                return True
            at = text.find(wanted, at + 1)
        return False


_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉µ", "0123456789μ")
_LETTER_DIGIT_BOUNDARY = re.compile(r"(?<=[^\W\d_])(?=\d)")
"""Between letters and digits of a name: `HIV1` equals `HIV-1`."""


def _normalized_tokens(text: str) -> list[str]:
    """Returns the words of a text for comparison: case folded, with normal figures for subscripts, without points in
    abbreviations.
    """
    folded = unicodedata.normalize("NFC", strip_ignorable(to_ascii_digits(text))).translate(_SUBSCRIPTS).casefold()
    return _TOKEN.findall(re.sub(r"(?<![^\W\d_])([^\W\d_])\.(?=[^\W\d_](?:\W|\Z))", r"\1", folded))


def _is_numeral_word(word: str) -> bool:
    """Returns whether a word next to a numeral makes it a longer one."""
    if not word or word in WEAK_NUMBER_WORDS or word in HOMOGRAPHS:
        return False
    return word[0].isdigit() or _is_english_numeral(word) or is_number_word(word)
