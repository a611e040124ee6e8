"""Codes of countries, currencies and languages, structures of IBANs, and check digits of IBANs and card numbers. The
lists are part of the code, so no data needs to be installed or downloaded.

ISO 3166-1 (https://www.iso.org/iso-3166-country-codes.html) and ISO 4217
(https://www.iso.org/iso-4217-currency-codes.html) as of February 2026, ISO 639-1
(https://www.loc.gov/standards/iso639-2/), and the IBAN registry
(https://www.swift.com/standards/data-standards/iban-international-bank-account-number).
"""

from __future__ import annotations

import re
from typing import Final

_COUNTRIES = (
    "ADAND AEARE AFAFG AGATG AIAIA ALALB AMARM AOAGO AQATA ARARG ASASM ATAUT AUAUS AWABW AXALA AZAZE BABIH BBBRB "
    "BDBGD BEBEL BFBFA BGBGR BHBHR BIBDI BJBEN BLBLM BMBMU BNBRN BOBOL BQBES BRBRA BSBHS BTBTN BVBVT BWBWA BYBLR "
    "BZBLZ CACAN CCCCK CDCOD CFCAF CGCOG CHCHE CICIV CKCOK CLCHL CMCMR CNCHN COCOL CRCRI CUCUB CVCPV CWCUW CXCXR "
    "CYCYP CZCZE DEDEU DJDJI DKDNK DMDMA DODOM DZDZA ECECU EEEST EGEGY EHESH ERERI ESESP ETETH FIFIN FJFJI FKFLK "
    "FMFSM FOFRO FRFRA GAGAB GBGBR GDGRD GEGEO GFGUF GGGGY GHGHA GIGIB GLGRL GMGMB GNGIN GPGLP GQGNQ GRGRC GSSGS "
    "GTGTM GUGUM GWGNB GYGUY HKHKG HMHMD HNHND HRHRV HTHTI HUHUN IDIDN IEIRL ILISR IMIMN ININD IOIOT IQIRQ IRIRN "
    "ISISL ITITA JEJEY JMJAM JOJOR JPJPN KEKEN KGKGZ KHKHM KIKIR KMCOM KNKNA KPPRK KRKOR KWKWT KYCYM KZKAZ LALAO "
    "LBLBN LCLCA LILIE LKLKA LRLBR LSLSO LTLTU LULUX LVLVA LYLBY MAMAR MCMCO MDMDA MEMNE MFMAF MGMDG MHMHL MKMKD "
    "MLMLI MMMMR MNMNG MOMAC MPMNP MQMTQ MRMRT MSMSR MTMLT MUMUS MVMDV MWMWI MXMEX MYMYS MZMOZ NANAM NCNCL NENER "
    "NFNFK NGNGA NINIC NLNLD NONOR NPNPL NRNRU NUNIU NZNZL OMOMN PAPAN PEPER PFPYF PGPNG PHPHL PKPAK PLPOL PMSPM "
    "PNPCN PRPRI PSPSE PTPRT PWPLW PYPRY QAQAT REREU ROROU RSSRB RURUS RWRWA SASAU SBSLB SCSYC SDSDN SESWE SGSGP "
    "SHSHN SISVN SJSJM SKSVK SLSLE SMSMR SNSEN SOSOM SRSUR SSSSD STSTP SVSLV SXSXM SYSYR SZSWZ TCTCA TDTCD TFATF "
    "TGTGO THTHA TJTJK TKTKL TLTLS TMTKM TNTUN TOTON TRTUR TTTTO TVTUV TWTWN TZTZA UAUKR UGUGA UMUMI USUSA UYURY "
    "UZUZB VAVAT VCVCT VEVEN VGVGB VIVIR VNVNM VUVUT WFWLF WSWSM YEYEM YTMYT ZAZAF ZMZMB ZWZWE"
)
COUNTRIES: Final = frozenset(pair[:2] for pair in _COUNTRIES.split())
"""Two-letter codes (ISO 3166-1 alpha-2)."""
COUNTRIES_ALPHA3: Final = frozenset(pair[2:] for pair in _COUNTRIES.split())
"""Three-letter codes (alpha-3)."""
RESERVED_COUNTRIES: Final = frozenset({"AC", "CP", "DG", "EA", "EU", "EZ", "IC", "SU", "TA", "UK", "UN", "XK"})
"""Codes that are reserved or in use, but not countries of the list."""
_CURRENCIES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF "
    "CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD "
    "HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD "
    "MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN "
    "PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD "
    "TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XOF XPD "
    "XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG"
)
CURRENCIES: Final = frozenset(_CURRENCIES.split())
"""ISO 4217."""
_FORMER = (
    "ADP AFA ANG ATS BEF BGL BGN BYR CSD CUC CYP DDM DEM ECS EEK ESP FIM FRF GHC GRD HRK IEP ITL LTL LUF LVL MGF MRO "
    "MTL MZM NLG PTE ROL RUR SDD SIT SKK SLL SRG STD TMM TRL VEB VEF YUM ZMK ZWD ZWL"
)
FORMER_CURRENCIES: Final = frozenset(_FORMER.split())
"""Withdrawn codes, which occur in old documents."""
_LANGUAGES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja "
    "jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb "
    "nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so "
    "sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
LANGUAGES: Final = frozenset(_LANGUAGES.split())
"""ISO 639-1."""
_ACCOUNTS = (
    "AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c CR18n "
    "CY8n16c CZ20n DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n GE2a16n "
    "GI4a15c GL14n GR7n16c GT24c HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c KW4a22c "
    "KZ3n13c LB4n20c LC4a24c LI5n12c LT16n LU3n13c LV4a13c LY21n MC10n11c2n MD20c ME18n MK3n10c2n MN16n MR23n "
    "MT4a5n18c MU4a19n3a NI4a20n NL4a10n NO11n OM3n16c PK4a16c PL24n PS4a21c PT21n QA4a21c RO4a16c RS18n RU14n15c "
    "SA2n18c SC4a20n3a SD14n SE20n SI15n SK20n SM1a10n12c SO19n ST21n SV4a20n TL19n TN20n TR6n16c UA6n19c VA18n "
    "VG4a16n XK16n YE4a4n18c"
)
"""Structure of an account number by country, as the registry writes it (release 101): numbers of digits (n), capital
letters (a), and either (c).
"""
IBAN_STRUCTURES: Final = {
    entry[:2]: tuple((int(count), kind) for count, kind in re.findall(r"(\d+)([nac])", entry))
    for entry in _ACCOUNTS.split()
}
"""Structure of an IBAN after its check digits, by country."""
IBAN_LENGTHS: Final = {
    country: 4 + sum(count for count, _ in structure) for country, structure in IBAN_STRUCTURES.items()
}
"""Length of an IBAN in characters, by country."""

_CHARACTERS: Final = {"n": ("[0-9]", "digits"), "a": ("[A-Z]", "letters"), "c": ("[A-Z0-9]", "letters or digits")}
"""Pattern and name of the characters of a structure."""
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", re.ASCII)
_CARD = re.compile(r"\d{12,19}", re.ASCII)
_BLANKS = re.compile(r"[\s\u00a0\u202f-]")


def compact(text: str) -> str:
    """Removes spaces and hyphens from a number."""
    return _BLANKS.sub("", text)


def iban_error(text: str) -> str | None:
    """Returns why a text is not an IBAN (ISO 13616); empty for a valid one, None if the registry has none for its
    country.
    """
    plain = compact(text).upper()
    if not _IBAN.fullmatch(plain):
        return "an IBAN has two letters, two digits and 11 to 30 letters or digits more"
    if (wanted := IBAN_LENGTHS.get(plain[:2])) is None:
        return None
    if len(plain) != wanted:
        return f"an IBAN of {plain[:2]} has {wanted} characters, not {len(plain)}"
    structure = IBAN_STRUCTURES[plain[:2]]
    if not re.fullmatch("".join(f"{_CHARACTERS[kind][0]}{{{count}}}" for count, kind in structure), plain[4:]):
        parts = ", ".join(f"{count} {_CHARACTERS[kind][1]}" for count, kind in structure)
        return f"an IBAN of {plain[:2]} has after its check digits {parts}"
    digits = "".join(str(int(char, 36)) for char in plain[4:] + plain[:4])
    right = int(digits) % 97 == 1 and 2 <= int(plain[2:4]) <= 98
    return "" if right else "its check digits are those of another one"


def card_number_error(text: str) -> str:
    """Returns why a text is not a card number (ISO/IEC 7812); empty if its check digit (Luhn) is valid."""
    plain = compact(text)
    if not _CARD.fullmatch(plain):
        return "the number of a card has 12 to 19 digits"
    total = sum(sum(divmod(int(char) * (1 + at % 2), 10)) for at, char in enumerate(reversed(plain)))
    return "" if total % 10 == 0 else "its last digit is that of another one"
