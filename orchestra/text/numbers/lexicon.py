"""Number words of languages other than English, and the scripts and letters that can hide a number word or a Roman numeral.

The words are recognised, not evaluated: a check that meets one and cannot find it in the evidence cannot tell. Languages: German, Dutch,
Swedish, Danish, Norwegian, Finnish, Hungarian, Turkish, Italian, French, Spanish, Portuguese, Romanian, Polish, Czech, Indonesian, Latin,
Vietnamese, Swahili, Russian, Ukrainian, Greek, Arabic, Hebrew, Chinese, Japanese, Korean. Of other scripts no word can be recognised.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from orchestra.text.keywords import WORD

COMPOUNDS: Final = {
    "de": "null eins zwei zwo drei vier fünf fuenf sechs sieben acht neun zehn elf zwölf zwoelf sech sieb zwanzig dreißig dreissig vierzig "
    "hundert tausend milliarde billiarde dutzend anderthalb",
    "nl": "nul twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien twintig dertig veertig tachtig honderd duizend "
    "miljoen miljard",
    "sv": "noll två tre fyra fem sex sju åtta nio tio elva tolv tretton fjorton femton sexton sjutton arton nitton tjugo trettio fyrtio "
    "hundra tusen miljon miljard",
    "da": "nul tre fire fem seks syv sju otte åtte elleve tolv tretten fjorten femten seksten sytten atten nitten tyve tjue tredive tretti "
    "fyrre førti halvtreds tres halvfjerds firs åtti halvfems femti seksti sytti nitti hundrede hundre tusind tusen",
    "fi": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän kymmenen toista kymmentä sata sataa tuhat tuhatta "
    "miljoona",
    "hu": "nulla kettő két három négy öt hat hét nyolc kilenc tíz tizen húsz huszon harminc negyven ötven hatvan hetven nyolcvan kilencven "
    "száz ezer millió milliárd",
    "tr": "sıfır iki üç dört beş altı yedi sekiz dokuz on yirmi otuz kırk elli altmış yetmiş seksen doksan yüz bin milyon milyar",
    "it": "uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette "
    "diciotto diciannove venti vent trenta trent quaranta quarant cinquanta cinquant sessanta sessant settanta settant "
    "ottanta ottant novanta novant cento mille mila milione milioni miliardo miliardi",
}
"""Languages that write number words together; each word is one or more of these, with what `_JOINTS` and `_SUFFIXES` have."""
_JOINTS = {"de": "und|ein", "nl": "en|ën|een", "sv": "ett|en", "da": "og|en|et|to|ni|ti", "hu": "egy", "tr": "bir", "fi": "", "it": ""}
_ENDINGS = {
    "de": "(?:zig|ßig)?(?:en|n)?(?:s?t?e[rsnm]?|fach|mal)?", "nl": "(?:tien|tig)?(?:de|ste|en|voud)?", "sv": "(?:er|de|te|nde)?",
    "da": "(?:er|de|te|nde)?", "fi": "(?:a|ä|n)?", "hu": "(?:an|en|odik|edik|adik|ödik)?", "tr": "(?:inci|ıncı|uncu|üncü|nci|ncı)?",
    "it": "(?:esimo|esima|esimi)?",
}  # fmt: skip
NUMBER_WORDS: Final = (
    # French
    "zéro deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize vingt vingts trente quarante "
    "cinquante soixante septante huitante octante nonante cent cents mille milliard milliards deuxième troisième quatrième "
    "cinquième sixième septième huitième neuvième dixième onzième douzième quinzième vingtième trentième centième millième douzaine "
    "vingtaine centaine centaines millier milliers "
    # Spanish
    "cero dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis dieciseis diecisiete dieciocho "
    "diecinueve veinte veintiuno veintiún veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho "
    "veintinueve treinta cuarenta cincuenta sesenta setenta ochenta noventa cien ciento cientos doscientos trescientos "
    "cuatrocientos quinientos seiscientos setecientos ochocientos novecientos doscientas trescientas cuatrocientas quinientas "
    "seiscientas setecientas ochocientas novecientas mil millón millon millones docena docenas tercero cuarto quinto séptimo octavo "
    "noveno décimo "
    # Portuguese
    "dois duas três quatro oito sete dez treze catorze quatorze dezesseis dezasseis dezessete dezassete dezoito dezenove dezanove vinte "
    "trinta quarenta cinquenta sessenta oitenta cem duzentos trezentos quatrocentos quinhentos seiscentos setecentos oitocentos novecentos "
    "duzentas trezentas quatrocentas quinhentas milhão milhões milhares "
    "bilhão bilhões dúzia dúzias "
    # Romanian
    "doi două trei patru cinci șase şase sase șapte şapte sapte opt nouă zece unsprezece doisprezece treisprezece paisprezece "
    "cincisprezece șaisprezece șaptesprezece optsprezece nouăsprezece douăzeci treizeci patruzeci cincizeci șaizeci șaptezeci "
    "optzeci nouăzeci sută sute milion milioane "
    # Polish
    "jeden jedna dwa dwie trzy cztery pięć sześć siedem osiem dziewięć dziesięć jedenaście dwanaście trzynaście czternaście piętnaście "
    "szesnaście siedemnaście osiemnaście dziewiętnaście dwadzieścia trzydzieści czterdzieści pięćdziesiąt sześćdziesiąt siedemdziesiąt "
    "osiemdziesiąt dziewięćdziesiąt sto dwieście trzysta czterysta pięćset sześćset siedemset osiemset dziewięćset tysiąc tysiące tysięcy "
    "miliony milionów "
    # Czech
    "nula dva dvě tři čtyři pět šest sedm osm devět deset jedenáct dvanáct třináct čtrnáct patnáct šestnáct sedmnáct osmnáct devatenáct "
    "dvacet třicet čtyřicet padesát šedesát sedmdesát osmdesát devadesát stě tisíc tisíce "
    # Indonesian, Latin, Vietnamese, Swahili
    "satu dua tiga empat lima enam tujuh delapan sembilan sepuluh sebelas belas puluh seratus ratus seribu ribu juta "
    "quattuor quinque septem octo novem decem undecim duodecim viginti triginta quadraginta quinquaginta centum ducenti quingenti "
    "một bốn năm sáu bảy tám chín mười trăm nghìn triệu "
    "mbili tatu nne tano sita nane tisa kumi elfu "
    # Danish and Norwegian numbers that are too short to be part of a compound
    "milliard milliarder"
)
HOMOGRAPHS: Final = frozenset(WORD.findall("elf otto uno duo lima mila trent sita sata quince tio vent dos opt dua nove tano"))
"""Those that are words or names in English too. They count in a text without English function words."""
WEAK_NUMBER_WORDS: Final = frozenset(
    WORD.findall("on bin hat fire to ni ti en et hai ba due six once cent cents sex mil seize sept null doi fem doze")
)
"""Those that are frequent words in English. They count beside another number word, and in a text with function words of other languages."""
CONJUNCTIONS: Final = frozenset(WORD.findall("und en och og et y e i и та και"))
"""What joins the words of one number."""
_ENGLISH_FUNCTION_WORDS: Final = frozenset(WORD.findall("the and with from that this which they been were are its their"))
_OTHER_FUNCTION_WORDS: Final = frozenset(
    WORD.findall(
        "der das und ist eine wurde jahre les est une dans ans el una fue es años il della dei nel che sono anni foi em anos het een jaar "
        "är och det og år ve yıl az és"
    )
)
_CYRILLIC_EXACT = frozenset(
    WORD.findall(
        "ноль нуль один одна одно одного два две двух дві три трёх трех трьох сто ста пять шесть семь восемь шість сім вісім оба обе"
    )
)
_CYRILLIC = re.compile(
    "(?:двое|трое|четыр|чотир|четвер|пятер|пятнадц|пятидес|пятьдес|пятьс|пятис|шестнадц|шестьдес|шестис|шестьс|семнадц|семьдес|семьс|"
    "восемнадц|восьми|восемьдес|восемьс|девять|девяти|девятн|девяно|девят|десять|десяти|десят|одиннадц|двенадц|двaнадц|тринадц|четырнадц|"
    "двадц|тридц|сорок|двести|двухс|триста|трехс|трёхс|тысяч|тисяч|миллион|мільйон|миллиард|мільярд|перв|втор|трет|шест|седьм|восьм|"
    "одинадц|дванадц|чотирнадц|сімнадц|вісімнадц|дев.?ять|двісті|сотн|сотен|дюжин|вдвое|втрое|девет|седем|осем|десет|хиляд|стотин)"
)
_GREEK = re.compile(
    "(?:μηδεν|δυο|τρια|τρεις|τεσσερ|πεντε|εξι|επτα|εφτα|οκτω|οχτω|εννεα|εννια|δεκα|ενδεκα|εντεκα|δωδεκα|εικοσι|τριαντα|σαραντα|πενηντα|"
    "εξηντα|εβδομηντα|ογδοντα|ενενηντα|εκατο|διακοσι|τριακοσι|τετρακοσι|πεντακοσι|εξακοσι|επτακοσι|εφτακοσι|οκτακοσι|οχτακοσι|εννιακοσι|"
    "χιλι|εκατομμυρι|δισεκατομμυρι)|.*\u0374"
)
_ARABIC = re.compile(
    "(?:و|ب|ل|ف|ك|ال)*(?:صفر|واحد|واحدة|اثن|إثن|اثنا|اثنان|اثنين|ثلاث|أربع|اربع|خمس|ستة|ست|ستون|ستين|سبع|ثمان|تسع|عشر|عشرة|عشرون|عشرين|"
    "مائة|مئة|مائت|مئت|ألف|الف|آلاف|ألفين|ألفان|مليون|ملايين|مليار)(?:ة|ون|ين|ان|ا|ائة|مائة|مئة)?"
)
_HEBREW = re.compile(
    "(?:ו|ב|ל|מ|ה|ש|כ)*(?:אפס|אחת|אחד|שתיים|שניים|שתי|שני|שלוש|שלושה|ארבע|ארבעה|חמש|חמישה|שש|שישה|שבע|שבעה|שמונה|תשע|תשעה|עשר|עשרה|עשרים|"
    "שלושים|ארבעים|חמישים|שישים|שבעים|שמונים|תשעים|מאה|מאות|מאתיים|אלף|אלפים|אלפיים|מיליון|מיליארד)"
)
_KOREAN = re.compile(
    "(?:제|약)?[영공일이삼사오육륙칠팔구십백천만억조]{2,}(?:년|월|일|명|개|원|번|회|도|층|살|세|시|분|초|킬로|미터)?.{0,3}"
    "|[일이삼사오육칠팔구십백천만억](?:년|월|명|개|원|번째|회|층|살|세|시간|분|초|미터).{0,3}"
    "|(?:하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉|열|스물|서른|마흔|쉰|예순|일흔|여든|아흔).{0,4}"
    "|[한두세네](?:명|개|번|살|시간|배|층).{0,3}"
)
_KANA = re.compile("ひとつ|ふたつ|みっつ|よっつ|いつつ|むっつ|ななつ|やっつ|ここのつ|[ひびぴ]ゃく|じゅう|きゅう|せんきゅう|はっせん")
HAN_NUMERALS: Final = "〇零一二三四五六七八九十百千万萬億亿兆两兩壹弐貳贰参參叁肆伍陸陆柒捌玖拾佰仟廿卅〡-〩〸-〺"
"""Characters of Chinese and Japanese numerals, for a class of a regular expression."""
_KNOWN_SCRIPTS = frozenset(WORD.findall("LATIN CYRILLIC GREEK ARABIC HEBREW HANGUL CJK HIRAGANA KATAKANA IDEOGRAPHIC MODIFIER"))
"""Scripts of which number words are recognised here, and letters of no script."""
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
    """Whether a text has a word that English uses and no other language here does."""
    return not _ENGLISH_FUNCTION_WORDS.isdisjoint(tokens)


def is_of_other_language(tokens: Sequence[str]) -> bool:
    """Whether a text has a function word of another language, and none of English."""
    return not _OTHER_FUNCTION_WORDS.isdisjoint(tokens) and not is_english(tokens)


def is_number_word(token: str) -> bool:
    """Whether a word, case folded, is a number word of a language other than English."""
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
    """The script of a letter, as the name of its character has it."""
    return unicodedata.name(char, "UNKNOWN").split(" ")[0].split("-")[0]


def is_of_unknown_script(token: str) -> bool:
    """Whether a word has letters of a script of which no number word is recognised."""
    return not token.isascii() and any(script(char) not in _KNOWN_SCRIPTS for char in token if char.isalpha() and not char.isascii())


def to_latin(token: str) -> str:
    """A word with the letters of other scripts that look like Latin ones replaced by these."""
    return token if token.isascii() else token.translate(_LOOKALIKE_LETTERS)


def has_mixed_scripts(token: str) -> bool:
    """Whether a word has letters of two scripts that look alike, and one of them looks like a Latin one."""
    if token.isascii() or to_latin(token) == token:
        return False
    return len({script(char) for char in token if char.isalpha()} & _LOOKALIKE_SCRIPTS) > 1


def strip_accents(text: str) -> str:
    """A text without the marks on its letters."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))
