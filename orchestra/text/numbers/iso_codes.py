"""Codes of countries, currencies and languages, lengths of IBANs, and check digits of IBANs and card numbers. The lists
are part of the code, so no data needs to be installed or downloaded.

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
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)
IBAN_LENGTHS: Final = {one[:2]: int(one[2:]) for one in _ACCOUNTS.split()}
"""Length of an IBAN in characters, by country."""


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
