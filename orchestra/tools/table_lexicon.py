"""Words of questions about tables: what they measure, how they compare and which operation they ask for.

The words are those of offices in general, in English, German, French and Spanish. They name no table and no column of a
project. A question word and a header mean the same measure if both belong to one group of `MEASURES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from orchestra.text.numbers.words import SMALL_NUMBERS
from orchestra.tools.word_forms import stem_word

MEASURES: Final[Mapping[str, str]] = {
    "income": (
        "revenue income turnover takings sales earnings earn earned earns earning proceeds receipts sold sell "
        "umsatz einnahmen erlös eingenommen recettes recette gagné ingresos ventas money revenues"
    ),
    "cost": (
        "bought buy cost costs expense expenses spend spent spending paid pay pays payment charge charges "
        "outlay money amount cheap dear expensive kosten kostet kostete gekostet ausgaben ausgegeben bezahlt "
        "teuer billig betrag coût coûte coûté dépense dépenses payé cher montant coste cuesta costó gasto "
        "gastos gastado pagado caro barato importe invoice"
    ),
    "price": (
        "price prices priced cost costs costing rate fare fee fees tariff expensive cheap dear value worth "
        "teuer billig preis preise kostet kostete gebühr prix cher coûte tarif precio precios caro barato "
        "cuesta tarifa"
    ),
    "wage": (
        "wage wages salary salaries pay paid earn earns earned lohn löhne gehalt verdient verdienen salaire "
        "salaires sueldo salario"
    ),
    "weight": (
        "weight weights weigh weighs weighed heavy light kg kilos kilo kilograms tonnes gewicht schwer wiegt "
        "wiegen leicht poids lourd pèse peso pesado pesa"
    ),
    "length": "length long short lang länge kurz longueur longitud largo",
    "height": "height high tall höhe hoch hauteur altura alto",
    "depth": "depth deep draught tiefe tief profondeur profundidad",
    "width": "width wide broad breite breit largeur ancho",
    "duration": (
        "duration long time took take takes taken lasted lasts hours minutes dauer dauert dauerte lang durée "
        "duré duración tardó"
    ),
    "age": "age aged old young alter alt jung âge âgé edad",
    "birth": "born birth birthday birthdate old young geboren geburtsdatum né née naissance nacido nacimiento",
    "quantity": (
        "quantity quantities qty amount units pieces stock menge anzahl stück bestand quantité stocks "
        "cantidad unidades existencias"
    ),
    "area": "area size big large small sqm space fläche größe groß klein surface superficie tamaño grande",
    "distance": (
        "distance far km kilometres kilometers miles mileage entfernung weit strecke distances loin distancia lejos"
    ),
    "speed": "speed fast slow quick geschwindigkeit schnell langsam vitesse rapide velocidad rápido",
    "rating": (
        "rating ratings score scores stars rated mark marks grade bewertung note noten évaluation valoración nota"
    ),
    "balance": (
        "balance arrears owe owes owed owing debt debts outstanding due saldo rückstand schuldet schulden "
        "offen solde doit doivent impayé deuda debe deben pendiente"
    ),
    "discount": "discount discounts rebate reduction rabatt nachlass remise réduction descuento",
    "temperature": "temperature temperatures warm hot cold temperatur kalt heiß température chaud froid temperatura",
    "capacity": "capacity capacities size seats kapazität plätze capacité places capacidad plazas",
    "share": "share shares percentage percent rate proportion anteil prozent part pourcentage porcentaje",
    "person": (
        "who person people name names employee employees staff worker colleague colleagues agent technician "
        "teacher driver owner member members player artist author manager lawyer solicitor counsel consultant "
        "engineer trainer instructor coach vet therapist guide chef cook partner adviser advisor officer "
        "guard cleaner courier nurse doctor seller buyer assistant wer mitarbeiter personen kollege kollegen "
        "fahrer lehrer qui personne personnes employé employés quién empleado personas helm"
    ),
    "company": (
        "company companies firm firms supplier suppliers contractor contractors vendor vendors provider "
        "providers manufacturer business dealer firma firmen lieferant lieferanten hersteller anbieter "
        "händler entreprise société fournisseur fournisseurs empresa proveedor proveedores"
    ),
    "customer": (
        "customer customers client clients account buyer buyers guest guests member members patient patients "
        "tenant tenants kunde kunden gast gäste mieter clientes cliente inquilino"
    ),
    "place": (
        "where place places location locations site sites city cities town towns branch branches shop shops "
        "store stores room rooms destination area region address ort orte standort standorte filiale filialen "
        "raum lieu lieux ville où salle lugar sitio ciudad sala dónde tienda"
    ),
    "kind": (
        "kind kinds type types category categories sort sorts class group art arten typ typen kategorie sorte "
        "catégorie catégories genre tipo tipos categoría clase"
    ),
    "state": "status state stage zustand stand état statut estado",
    "item": (
        "product products item items article articles goods title thing things produkt produkte artikel ware "
        "produit produits producto productos artículo"
    ),
    "time": (
        "when date day days datum tag wann quand jour cuándo fecha día month months monat monate mois mes meses year"
    ),
    "begin": (
        "start started starts begin began begins since joined hired opened from beginn begann anfang seit "
        "eingestellt début commencé depuis inicio empezó desde"
    ),
    "finish": (
        "end ended ends finish finished finishes completed complete completion closed expires expiry expire "
        "expired due deadline until renewal ende endet fertig abgeschlossen läuft ablauf fällig fin terminé "
        "échéance terminado vence vencimiento"
    ),
    "buy": "bought buy buys purchase purchased gekauft kauf anschaffung acheté achat comprado compra",
    "fault": "fault faults damage damages defect broken breakage schaden defekt dommage panne daño avería",
    "reason": "reason why cause grund warum ursache raison pourquoi motivo razón causa",
    "phone": "phone telephone number mobile telefon nummer téléphone numéro teléfono",
}
"""Groups of words that mean one measure or one kind of column. A word may be in several."""
INTENSIVE: Final = frozenset(
    [
        "price",
        "length",
        "height",
        "depth",
        "width",
        "age",
        "birth",
        "speed",
        "rating",
        "discount",
        "temperature",
        "capacity",
        "share",
    ]
)
"""Measures of which a sum over records means nothing, such as prices and temperatures."""
ASKER: Final = re.compile(
    r"^\W*(?:the|our|my|a|an)?\s*[\w'-]+(?:\s[\w'-]+){0,2}\s(?:asks?|(?:wants?|needs?|would like) to know|is asking"
    r"|wonders?|"
    r"möchte wissen|fragt|demande|veut savoir|pregunta|quiere saber)\b",
    re.I,
)
"""Words about the person for whom a question is asked."""
NUMBER_WORDS: Final[Mapping[str, int]] = {
    **SMALL_NUMBERS,
    **dict(
        zip(
            [
                "ein",
                "eine",
                "einem",
                "einen",
                "zwei",
                "drei",
                "vier",
                "fünf",
                "sechs",
                "sieben",
                "acht",
                "neun",
                "zehn",
            ],
            (1, 1, 1, 1, *range(2, 11)),
            strict=True,
        )
    ),
    **dict(zip(["deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"], range(2, 11), strict=True)),
    **dict(
        zip(["dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez"], range(2, 11), strict=True)
    ),
}
STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "a an the of in on at to for from by with and or is are was were be been being do does did doing done has have "
        "had having our we us i i'd i'm my me you your it its this that these those there their they them he she his "
        "her "
        "him what which who whom whose when where how many much please pls plz tell show give gives gave given get "
        "gets "
        "got all each any every will would can could should shall may might than then as per into out up only very so "
        "too if but about between still yet now here also just both either or whether let lets need needs needed want "
        "wants wanted like know asks asked ask asking work works find look looking see say says said thanks thank thx "
        "hi hello hey dear good morning afternoon cheers make makes made take takes took come comes came go goes went "
        "going put keep kept leave left over under again currently present moment today according sheet table list "
        "records file data figures numbers overview quick quickly question wondering wonder kindly one ones used us "
        "s t d re ve ll m bring brings brought brought-in have't within during across so-far far date used until "
        "der die das den dem des ein eine einen einem einer eines und oder ist sind war waren wird werden wurde wurden "
        "hat haben hatte hatten im in am an auf aus bei für mit nach von vom zu zum zur über unter um wir uns unser "
        "unsere unserer unserem unseren ich mir mein meine sie er es ihr ihre wer was wann wo wie welche welcher "
        "welches "
        "welchen welchem wieviel viel viele bitte mal nur noch schon alle alles jede jeder jedes gibt es man mich da "
        "denn doch eigentlich insgesamt haben sich als "
        "le la les l un une des du de d et ou est sont était étaient a ont avait avaient au aux en dans sur pour par "
        "avec chez nous notre nos je j'ai mon ma mes vous votre vos il elle ils elles ce cette ces qui que quoi "
        "quand où "
        "comment quel quelle quels quelles combien svp merci bonjour tous toutes tout y fait faire se sa son ses "
        "el los las unos unas del al y o es son era eran fue fueron ha han había hay en con por para sobre entre "
        "nosotros nuestro nuestra nuestros mi mis su sus qué quién cuál cuáles cuándo dónde cómo cuánto cuánta cuántos "
        "cuántas por favor gracias hola todos todas se lo le nos",
    )
)
"""Words that a table need not explain."""
_SUPERLATIVES: Final[Mapping[str, tuple[bool, str]]] = {
    **dict.fromkeys(("most", "highest", "largest", "biggest", "greatest", "maximum", "max", "best", "top"), (True, "")),
    **dict.fromkeys(("least", "lowest", "smallest", "fewest", "minimum", "min", "worst"), (False, "")),
    **dict.fromkeys(("meisten", "höchste", "höchsten", "größte", "größten", "beste", "besten", "meiste"), (True, "")),
    **dict.fromkeys(
        ("wenigsten", "niedrigste", "niedrigsten", "kleinste", "kleinsten", "geringste", "geringsten"), (False, "")
    ),
    **dict.fromkeys(("mayor", "máximo", "máxima"), (True, "")),
    **dict.fromkeys(("menor", "mínimo", "mínima"), (False, "")),
    "heaviest": (True, "weight"),
    "lightest": (False, "weight"),
    "longest": (True, "length duration"),
    "shortest": (False, "length duration"),
    "tallest": (True, "height"),
    "deepest": (True, "depth"),
    "shallowest": (False, "depth"),
    "widest": (True, "width"),
    "dearest": (True, "price cost"),
    "priciest": (True, "price cost"),
    "cheapest": (False, "price cost"),
    "costliest": (True, "price cost"),
    "oldest": (True, "age birth buy begin time"),
    "eldest": (True, "age birth"),
    "youngest": (False, "age birth"),
    "newest": (False, "age begin buy time"),
    "fastest": (True, "speed duration"),
    "quickest": (True, "speed duration"),
    "slowest": (False, "speed duration"),
    "farthest": (True, "distance"),
    "furthest": (True, "distance"),
    "nearest": (False, "distance"),
    "closest": (False, "distance"),
    "warmest": (True, "temperature"),
    "hottest": (True, "temperature"),
    "coldest": (False, "temperature"),
    "busiest": (True, "count"),
    "quietest": (False, "count"),
    "latest": (True, "time"),
    "earliest": (False, "time"),
    "soonest": (False, "time"),
    "teuerste": (True, "price cost"),
    "teuersten": (True, "price cost"),
    "billigste": (False, "price cost"),
    "billigsten": (False, "price cost"),
    "günstigste": (False, "price cost"),
    "günstigsten": (False, "price cost"),
    "schwerste": (True, "weight"),
    "schwersten": (True, "weight"),
    "leichteste": (False, "weight"),
    "längste": (True, "length duration"),
    "längsten": (True, "length duration"),
    "kürzeste": (False, "length duration"),
    "älteste": (True, "age birth buy begin time"),
    "ältesten": (True, "age birth buy begin time"),
    "jüngste": (False, "age birth"),
    "neueste": (False, "age begin buy time"),
}
_SUPERLATIVE_PHRASES: Final = (
    (
        re.compile(r"\bmost expensive\b|\ble plus cher\b|\bla plus chère\b|\bmás caro\b|\bmás cara\b", re.I),
        True,
        "price cost",
    ),
    (
        re.compile(r"\bleast expensive\b|\ble moins cher\b|\bla moins chère\b|\bmás barat[oa]\b", re.I),
        False,
        "price cost",
    ),
    (
        re.compile(r"\bmost recent(?:ly)?\b|\blast (?:of all|time)\b|\bplus récente?s?\b|\bmás recientes?\b", re.I),
        True,
        "time",
    ),
    (re.compile(r"\bmore (?:\w+ )?than any(?:one|body)?\b", re.I), True, ""),
    (re.compile(r"\b(?:le|la|les) plus lourde?s?\b", re.I), True, "weight"),
    (re.compile(r"\b(?:le|la|les) plus longue?s?\b", re.I), True, "length duration"),
    (re.compile(r"\b(?:le|la|les) plus anciene?n?e?s?\b", re.I), True, "age birth buy begin time"),
    (
        re.compile(
            r"\b(?:le|la|les) plus\b(?: (?:élevée?s?|grande?s?|gros(?:se)?s?|hauts?|haute)\b)?|\b(?:el|la|los|las"
            r"|lo) más\b(?: alt[oa]s?\b)?",
            re.I,
        ),
        True,
        "",
    ),
    (
        re.compile(r"\b(?:le|la|les) moins\b(?: (?:élevée?s?|grande?s?)\b)?|\b(?:el|la|los|las|lo) menos\b", re.I),
        False,
        "",
    ),
    (re.compile(r"\bam meisten\b", re.I), True, ""),
    (re.compile(r"\bam wenigsten\b", re.I), False, ""),
)
_TIME_ORDER: Final = (
    (re.compile(r"\b(?:last|letzte[rsnm]?|dernière?s?|último|última)\b", re.I), True),
    (
        re.compile(
            r"\b(?:first|next|erste[rsnm]?|nächste[rsnm]?|premi(?:er|ère)s?|prochaine?s?|primer[oa]?|próxim[oa]"
            r"|goes? off first)\b",
            re.I,
        ),
        False,
    ),
)
"""Words that mean an order in time if the question is about a date."""
PERCENT: Final = re.compile(r"\b(?:per\s?cent(?:age)?s?|prozent\w*|pour ?cent(?:age)?|por ciento|porcentaje)\b|%", re.I)
CHANGE: Final = re.compile(
    r"\b(?:grow\w*|grew|growth|ris(?:e|es|en|ing)|rose|increas\w*|fall\w*|fell|declin\w*|decreas\w*|drop\w*|chang\w*|"
    r"(?:go|goes|gone|went|going) (?:up|down)|gain\w*|lost|lose|shr[aiu]nk\w*|gestiegen|gesunken|gewachsen|wuchs|stieg|"
    r"sank|zunahme|abnahme|veränderung|augment\w+|diminu\w+|baiss\w+|hausse|creci\w+|aument\w+|baj\w+|subi\w+)\b",
    re.I,
)
DOWN: Final = re.compile(
    r"\b(?:fall\w*|fell|declin\w*|decreas\w*|drop\w*|lost|lose|loss|(?:go|goes|gone|went) down|shr[aiu]nk\w*|less"
    r"|lower|"
    r"fewer|worse|gesunken|sank|diminu\w+|baiss\w+|baj\w+)\b",
    re.I,
)
SHARE: Final = re.compile(
    r"\b(?:share|proportion|percentage|per ?cent|fraction|anteil|prozent|pourcentage|porcentaje)\b", re.I
)
MEAN: Final = re.compile(
    r"\b(?:on average|averages?|mean|typical(?:ly)?|avg|durchschnitt\w*|im schnitt|mittel(?:wert)?|moyenne?s?|en "
    r"moyenne|"
    r"promedio|media|de media)\b",
    re.I,
)
MEDIAN: Final = re.compile(r"\b(?:median|médiane?|mediana)\b", re.I)
SUM: Final = re.compile(
    r"\b(?:in total|totals?|sum|sums|altogether|alltogether|in all|all told|together|overall"  # prose: ok
    r"|combined|added up|all "
    r"in all|"
    r"whole|entire|insgesamt|gesamt\w*|zusammen|summe|au total|totale?s?|ensemble|somme|en total|en conjunto|suma)\b",
    re.I,
)
COUNT: Final = re.compile(
    r"\bhow many(?: times)?\b|\bhow often\b|\b(?:total )?(?:number|count) of\b|\bcount (?=\w)|\bwie ?viele\b"
    r"|\banzahl\b|"
    r"\bzahl der\b|\bcombien d[e']|\bnombre d[e']|\bcu[áa]nt[oa]s\b|\bn[úu]mero de\b",
    re.I,
)
DISTINCT: Final = re.compile(
    r"\b(?:different|distinct|unique|separate|verschiedene[nr]?|différente?s?|distint[oa]s)\b", re.I
)
HOW_MUCH: Final = re.compile(
    r"\bhow much\b|\bwhat (?:amount|sum|money)\b|\bwie ?viel\b|\bcombien\b|\bcu[áa]nt[oa]\b|\bwhat (?:do|does"
    r"|did)(?= .{1,60}\bcost\b)",
    re.I,
)
DIFFERENCE: Final = re.compile(
    r"\bhow (?:much|many) (?:\w+ )?(?:more|less|fewer|higher|lower|better|longer|shorter|heavier"
    r"|cheaper|dearer"  # prose: ok
    r"|older)\b|"
    r"\bby how (?:much|many)\b|\b(?:difference|gap)\b|\bum wie ?viel\b|\bunterschied\b|\bwie ?viel (?:mehr|weniger)\b|"
    r"\bde combien\b|\bdifférence\b|\bdiferencia\b|\bcu[áa]nt[oa]s? m[áa]s\b|\bcu[áa]nt[oa]s? menos\b|\bby what\b",
    re.I,
)
COMPARED: Final = re.compile(
    r"\b(?:than|above|below|over|under|compared (?:with|to)|against|versus|vs\.?|relative to|als|gegenüber|par "
    r"rapport|que)\b",
    re.I,
)
"""Words before the second thing of a comparison."""
EXCLUSION: Final = re.compile(
    r"\b(?:except(?: for)?|excluding|exclude|without|apart from|other than|leav(?:e|ing) out|left out|ignor(?:e|ing)"
    r"|not counting|"
    r"but not|not (?:in|at|from|by|with|to)|not|no|isn't|aren't|wasn't|weren't|never|outside|ohne|außer|nicht|kein\w*"
    r"|sans|"
    r"sauf|hormis|excepté|sin|excepto|salvo|menos)\b",
    re.I,
)
NEGATION: Final = re.compile(
    r"\b(?:no|not|without|never|lack\w*|isn't|aren't|wasn't|weren't|hasn't|haven't|hadn't|don't|doesn't|didn't"
    r"|un\w{4,}|"
    r"owes?|owed|owing|outstanding|overdue|missing|nobody|none|open|pending|nicht|kein\w*|noch "  # prose: ok
    r"offen|ohne|pas|sans"
    r"|aucune?|"
    r"sin|ningún|ninguna)\b",
    re.I,
)
"""Words that negate a column of yes and no: `not paid`, `unpaid`, `owe`."""
OWED: Final = re.compile(
    r"\b(?:owes?|owed|owing|arrears|debts?|behind with|schuld\w*|rückst\w+|doi(?:t|vent)|impayés?|deben?|deudas?)\b",
    re.I,
)
PROFIT: Final = re.compile(
    r"\b(?:profits?|profitable|margins?|(?:after|net of|less|minus) (?:the |all |its |their )?(?:costs?|expenses?)"
    r"|gewinn\w*|"
    r"nach (?:abzug der )?kosten|bénéfices?|marge|beneficios?|ganancias?)\b",
    re.I,
)
REMAINDER: Final = re.compile(
    r"\b(?:unused|not (?:being )?used|(?:nobody|no one|no-one) (?:is |are )?(?:us(?:es?|ing)|using)"  # prose: ok
    r"|idle|spare"
    r"|left(?: over)?|"
    r"remain\w*|free|vacant|empty|available|unsold|still (?:to|available)|ungenutzt\w*|frei\w*|übrig|libres?"
    r"|restante?s?|"
    r"disponibles?)\b",
    re.I,
)
GROUP: Final = re.compile(
    r"\b(?:per|by|for each|for every|each|every|broken down by|je|pro|nach|par|por|for all)\s+(?=\w)", re.I
)
WHICH: Final = re.compile(
    r"\b(?:which|what|whose|who|whom|where|when|welche[rsnm]?|wer|wessen|wem|was|wo|wann|quel(?:le)?s?|qui|quand|où|"
    r"qué|quién|cuál(?:es)?|cuándo|dónde|name|list)\b",
    re.I,
)
NONE_VALUES: Final = frozenset(
    {"no", "none", "", "-", "–", "—", "0", "false", "n", "nein", "non", "n/a", "unpaid", "open"}
)
YES_VALUES: Final = frozenset(
    {"yes", "y", "true", "ja", "oui", "sí", "si", "x", "✓", "1", "paid", "no", "n", "false", "nein", "non"}
)
BOUNDS: Final = (
    (
        "upto",
        re.compile(
            r"\b(?:at most|up to|no more than|not more than|maximum of|a maximum of|höchstens|maximal|au plus|jusqu'à"
            r"|como máximo)\b",
            re.I,
        ),
    ),
    (
        "from",
        re.compile(
            r"\b(?:at least|minimum of|a minimum of|no less than|not less than|mindestens|au moins|al menos|por lo "
            r"menos)\b",
            re.I,
        ),
    ),
    (
        "below",
        re.compile(
            r"\b(?:(?:less|fewer|lower|smaller|younger|cheaper|shorter|lighter) than|under|below|short of|unter"
            r"|weniger als|"
            r"moins d[e']|menos de|kürzer als|billiger als|par debajo de)\b",
            re.I,
        ),
    ),
    (
        "above",
        re.compile(
            r"\b(?:(?:more|higher|larger|greater|bigger|older|longer|heavier|dearer) than|over"  # prose: ok
            r"|above|exceed\w*|past"
            r"|upwards of|über|"
            r"mehr als|plus d[e']|más de|länger als|größer als|teurer als|por encima de)\b",
            re.I,
        ),
    ),
)
BOUND_SUFFIXES: Final = (
    (
        "from",
        re.compile(
            r"^\W{0,2}\w{0,12}\s*\b(?:or (?:more|above|over|longer|older|higher)|oder mehr|ou plus|o más)\b|^\+", re.I
        ),
    ),
    (
        "upto",
        re.compile(
            r"^\W{0,2}\w{0,12}\s*\b(?:or (?:less|fewer|below|under|lower)|oder weniger|ou moins|o menos)\b", re.I
        ),
    ),
)


def _groups() -> Mapping[str, frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for name, words in MEASURES.items():
        for word in words.split():
            groups.setdefault(stem_word(word), set()).add(name)
    return {word: frozenset(names) for word, names in groups.items()}


_GROUPS: Final = _groups()


def measure_groups(stem: str) -> frozenset[str]:
    """Returns the groups of `MEASURES` that a stem belongs to."""
    return _GROUPS.get(stem, frozenset())


def find_superlatives(text: str) -> Iterator[tuple[int, int, bool, frozenset[str]]]:
    """Yields the superlatives of a text: start, end, whether the largest is meant, and the measures that it names."""
    taken: list[tuple[int, int]] = []
    for pattern, largest, groups in _SUPERLATIVE_PHRASES:
        for match in pattern.finditer(text):
            if not any(start < match.end() and match.start() < end for start, end in taken):
                taken.append(match.span())
                yield match.start(), match.end(), largest, frozenset(groups.split())
    for match in re.finditer(r"\w+", text):
        entry = _SUPERLATIVES.get(match[0].casefold())
        if entry is not None and not any(start < match.end() and match.start() < end for start, end in taken):
            yield match.start(), match.end(), entry[0], frozenset(entry[1].split())


def find_time_orders(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yields words such as `last` and `first`: start, end, and whether the latest is meant."""
    for pattern, latest in _TIME_ORDER:
        for match in pattern.finditer(text):
            yield match.start(), match.end(), latest
