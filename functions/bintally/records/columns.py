"""Names of columns as warehouse systems write them: which column says what."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Literal, get_args
from urllib.parse import parse_qsl

from bintally.common.errors import Rejected

Target = Literal["site", "bin", "expected_quantity", "as_of", "value", "product"]
TARGETS: tuple[Target, ...] = get_args(Target)
NEEDED: tuple[Target, ...] = ("bin", "expected_quantity")

# Names of each target in ranks: the first rank of which a table has a name counts. Two names of one rank are ambiguous.
# Spelled as `folded` answers: "On-Hand Qty (EA)" is onhandqty.
_NAMES: dict[Target, tuple[str, ...]] = {
    "site": (
        "site siteid",
        "sitecode sitename sitenumber warehouse warehouseid warehousecode warehousename warehouseno whse wh whs"
        " facility facilityid facilitycode fc fulfillmentcenter fulfilmentcentre dc distributioncenter"
        " distributioncentre plant depot",
    ),
    "bin": (
        "bin binid",
        "bincode binname binnumber binno binlabel binlocation storagebin storagebinid storagebincode",
        "location locationid locationcode locationname locationnumber locationno locationlabel loc loccode locid"
        " storagelocation stocklocation warehouselocation shelflocation picklocation slot slotid",
    ),
    "expected_quantity": (
        "expectedquantity expectedqty",
        "qtyexpected quantityexpected expectedcount expected recordedquantity recordedqty systemquantity systemqty"
        " systemcount bookquantity bookqty bookstock",
        "onhand onhandqty onhandquantity onhandinventory onhandstock onhandunits qtyonhand quantityonhand qoh soh"
        " stockonhand inventoryonhand unitsonhand",
        "quantity qty stock stockqty stockquantity stocklevel inventory inventoryqty inventoryquantity inventorylevel"
        " currentqty currentquantity currentstock totalqty totalquantity",
        "units",
    ),
    "as_of": (
        "asof asofdate asoftime asofdatetime",
        "snapshot snapshotdate snapshottime snapshotdatetime snapshotat exportedat exportdate reportdate",
        "lastupdated lastupdate lastupdatedat lastupdatedon lastupdatedate updated updatedat updatedon updatedate"
        " lastmodified lastmodifiedat lastmodifieddate lastchanged lastchange recordedat recorddate",
        "timestamp datetime date",
    ),
    # Of one item: a column that may as well be the value of all of them is taken only if the sender names it.
    "value": (
        "valueperitem itemvalue unitvalue valueperunit",
        "unitcost unitprice costperunit priceperunit costperitem priceperitem itemcost itemprice standardcost stdcost",
        "cost price",
    ),
    # All of these together identify a stock line: two lots of one SKU are two lines.
    "product": (
        "product productid productcode productnumber productno sku skuid skucode asin fnsku fcsku item itemid itemcode"
        " itemnumber itemno material materialid materialnumber materialno article articleid articlenumber articleno"
        " part partnumber partno partid upc ean ean13 gtin isbn barcode style stylecode variant variantid lot lotid"
        " lotno lotnumber batch batchid batchno batchnumber serial serialno serialnumber lpn licenseplate pallet"
        " palletid palletno container containerid hu handlingunit",
        "productname itemname articlename materialname partname skuname",
    ),
}
_UNITS = re.compile(r"[(\[](ea|each|pc|pcs|pieces|unit|units|no|nos|qty|utc|gmt|z|local|local time)\.?[)\]]\s*$")


@dataclass(frozen=True)
class Columns:
    """The places of the columns that are used, and the names of the others."""

    places: Mapping[Target, int]
    """Of all targets but product; site, as_of and value may be missing."""
    product: tuple[int, ...]
    unused: tuple[str, ...]
    zone: tzinfo | None = None
    """Of as_of, when its name says UTC."""


@dataclass(frozen=True)
class Wanted:
    """Columns that the sender chose, by target; an empty name means that no column is used for it."""

    names: Mapping[Target, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """From the metadata `columns` of the file: bin=Location&expected_quantity=Stock%20level. Raises Rejected."""
        pairs = dict(parse_qsl(text, keep_blank_values=True))
        if wrong := [name for name in pairs if name not in TARGETS]:
            raise Rejected(f"the metadata `columns` maps {wrong[0]!r}; {', '.join(TARGETS)} can be mapped")
        return cls({target: pairs[target] for target in TARGETS if target in pairs})


def folded(name: str) -> str:
    """A name without case, accents, spaces, punctuation and unit: `On-Hand Qty (EA)` is onhandqty."""
    text = _UNITS.sub("", unicodedata.normalize("NFKD", name).casefold())
    return "".join(letter for letter in text if letter.isalnum())


def find(names: Sequence[str], wanted: Wanted) -> Columns | None:
    """The columns of a table whose first line has these names; None when it names no bin or no quantity.

    Raises Rejected when it names a column twice, or lacks one that the sender chose.
    """
    plain = [folded(name) for name in names]
    found = {target: _places(names, plain, target, wanted) for target in _NAMES}
    if not (found["bin"] and found["expected_quantity"]):
        return None
    for target, places in found.items():
        if len(places) > 1 and target == "value":
            found[target] = []  # nobody asked for it, so nobody has to choose
        elif len(places) > 1 and target != "product":
            which = ", ".join(repr(names[place]) for place in places)
            raise Rejected(f"{target} may be any of the columns {which}; keep one, or choose one: {target}=<column>")
    for target, name in wanted.names.items():
        if name and not found[target]:
            raise Rejected(f"the file has no column {name!r}; it has {_shown(names)}")
    goods = found.pop("product")
    chosen = {target: places[0] for target, places in found.items() if places}
    used = set(chosen.values())
    product = [place for place in goods if place not in used]
    unused = tuple(name for at, name in enumerate(names) if name and at not in {*used, *product})
    says_utc = "as_of" in chosen and re.search(r"\b(utc|gmt)\b", names[chosen["as_of"]].casefold())
    return Columns(chosen, tuple(product), unused, UTC if says_utc else None)


def of_object(names: Sequence[str], wanted: Wanted) -> dict[Target, int]:
    """The places of the quantity and the time among the names of a JSON object. Raises Rejected."""
    found: dict[Target, int] = {}
    for target in ("expected_quantity", "as_of", "value"):
        exact = [at for at, name in enumerate(names) if name == target and target not in wanted.names]
        places = exact or _places(names, [folded(name) for name in names], target, wanted)
        if len(places) > 1 and target != "value":
            raise Rejected(f"{target} may be any of {', '.join(repr(names[at]) for at in places)}; keep one")
        if len(places) == 1:
            found[target] = places[0]
    return found


def explain(names: Sequence[str], line: int, wanted: Wanted) -> str:
    """Why `find` knows no columns; `names` are those of the line that comes nearest."""
    plain = [folded(name) for name in names]
    missing = [target for target in NEEDED if not _places(names, plain, target, wanted)]
    return (
        f"no line names a column for {' and '.join(missing or NEEDED)}; line {line} has {_shown(names)}. Name the"
        " columns site, bin, expected_quantity and optionally as_of, or choose them, such as bin=Location"
    )


def nearness(names: Sequence[str], wanted: Wanted) -> int:
    """How many targets a line names."""
    plain = [folded(name) for name in names]
    return sum(bool(_places(names, plain, target, wanted)) for target in TARGETS)


def _places(names: Sequence[str], plain: Sequence[str], target: Target, wanted: Wanted) -> list[int]:
    """The columns that may be meant, in the order of the file."""
    if (name := wanted.names.get(target)) is not None:
        same = [at for at, each in enumerate(names) if name and each == name]
        return same or [at for at, each in enumerate(plain) if name and each == folded(name)]
    for rank in _NAMES[target]:
        known = rank.split()
        if found := [at for at, each in enumerate(plain) if each in known or _without_utc(each, target) in known]:
            return found
    return []


def _without_utc(name: str, target: Target) -> str:
    return name.removesuffix("utc").removesuffix("gmt") if target == "as_of" else name


def _shown(names: Sequence[str]) -> str:
    more = ", …" if len(names) > 12 else ""
    return (", ".join(repr(name[:40]) for name in names[:12] if name) or "no text") + more
