"""A photograph's file without what surrounds its pixels: bytes in, bytes out, nothing decoded.

Cameras, phones and tools surround pixels with EXIF, colour profiles, previews, further frames, videos. Each can be
broken, huge or millions of parts while the pixels are sound. So decoders get the pixels alone, and what surrounds them
is handed back beside them. The walks follow the formats' own documents: ITU-T T.81 (JPEG), the PNG and WebP container
specifications, GIF89a, ISO/IEC 23008-12 (HEIF, AVIF).

functions/bintally/counting/pixels.py and model/pixels.py are the same text, since neither folder may import the other;
a test compares them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import product

from PIL import Image, features

MOST_SCANS = 40
"""A progressive JPEG of a camera or an encoder has at most 20. Each scan visits all pixels again: at 50 million
pixels one takes some 0.1 s, so that 5,000 scans in a small file would hold a function for minutes."""
MOST_PARTS = 50_000
"""Segments, chunks or blocks of a file; of 30 MB in PNG's usual chunks of 8 KB there are 4,000."""
LONGEST_TEXT = 1024**2
"""Bytes of a PNG's text that are unpacked."""


BROKEN: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error),  # RuntimeError: the decoder of AVIF
)
"""Errors with which Pillow reports broken data."""


class Unreadable(ValueError):
    """No decoder is asked about these bytes; the message says what they are, and what to do."""


@dataclass(frozen=True)
class File:
    """A photograph's file, taken apart."""

    kind: str
    """Pillow's name of the format."""
    data: bytes
    """The file with its pixels and nothing else."""
    exif: bytes = b""
    xmp: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    """A PNG's keywords and texts."""
    modified: tuple[int, ...] = ()
    """A PNG's tIME: year, month, day, hour, minute, second of its last change, in UTC."""
    unended: bool = False
    """A JPEG that lacks its end mark. `data` has one; `is_whole` says whether anything else is missing."""


def take_apart(data: bytes) -> File:
    """Raises Unreadable for what is no photograph, and for one of too many parts."""
    kind = kind_of(data)
    if kind not in WALKS or (kind in OPTIONAL and not OPTIONAL[kind]()):
        raise Unreadable(f"not a JPEG, PNG or WebP image{said_of(data)}")
    return WALKS[kind](data)


# What it is

OPTIONAL: dict[str, Callable[[], bool]] = {
    "AVIF": cache(lambda: bool(features.check("avif"))),
    "HEIF": cache(lambda: find_spec("PIL.HeifImagePlugin") is not None),
}
"""Formats that some builds of Pillow decode."""

HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
AS_JPEG = "send it as JPEG"
IPHONE = "on an iPhone choose Settings > Camera > Formats > Most Compatible"
STARTS: tuple[tuple[int, bytes, str, str], ...] = (  # offset, bytes, the name of the format, what to do
    (0, b"\xff\xd8\xff", "JPEG", ""),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", ""),
    (0, b"GIF8", "GIF", ""),
    (8, b"WEBPVP8", "WEBP", ""),
    (0, b"%PDF", "a PDF document", "send its photographs as JPEG"),
    (0, b"II*\0\x10\0\0\0CR", "a CR2 raw photograph", AS_JPEG),
    (0, b"FUJIFILMCCD-RAW", "a RAF raw photograph", AS_JPEG),
    (0, b"IIU\0", "a RW2 raw photograph", AS_JPEG),
    (0, b"IIRO", "an ORF raw photograph", AS_JPEG),
    (0, b"IIRS", "an ORF raw photograph", AS_JPEG),
    (0, b"MMOR", "an ORF raw photograph", AS_JPEG),
    (0, b"FOVb", "an X3F raw photograph", AS_JPEG),
    (0, b"II*\0", "a TIFF or raw photograph (DNG, NEF, ARW)", f"{AS_JPEG}; phones: switch RAW off"),
    (0, b"MM\0*", "a TIFF or raw photograph (DNG, NEF, ARW)", f"{AS_JPEG}; phones: switch RAW off"),
    (0, b"\xff\x0a", "a JPEG XL image", AS_JPEG),
    (4, b"JXL ", "a JPEG XL image", AS_JPEG),
    (4, b"jP  ", "a JPEG 2000 image", AS_JPEG),
    (0, b"BM", "a BMP image", AS_JPEG),
    (0, b"PK\x03\x04", "a ZIP archive, as shared Live Photos are", "send the still photographs in it as JPEG"),
    (0, b"\x00\x05\x16\x07", "a file that macOS writes beside others (AppleDouble)", "leave out files named ._*"),
    (0, b"\x00\x05\x16\x00", "a file that macOS writes beside others (AppleSingle)", "leave it out"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska, WebM)", "send a photograph"),
    (8, b"AVI ", "a video (AVI)", "send a photograph"),
    (4, b"moov", "a video (MOV)", "of a Live Photo send the still photograph"),
    (4, b"mdat", "a video (MOV)", "of a Live Photo send the still photograph"),
    (4, b"wide", "a video (MOV)", "of a Live Photo send the still photograph"),
)
BRANDS: dict[bytes, tuple[str, str]] = {  # of the files that begin with a box named ftyp
    b"qt  ": ("a video (MOV)", "of a Live Photo send the still photograph"),
    b"crx ": ("a CR3 raw photograph", AS_JPEG),
}


def kind_of(data: bytes) -> str:
    """Pillow's name of a format that Bintally may read, a name for people of one that it does not, or ""."""
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 256), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & HEIF_BRANDS else BRANDS.get(data[8:12], ("a video (MP4)", ""))[0]
    return next((name for at, start, name, _ in STARTS if data.startswith(start, at)), "")


def said_of(data: bytes) -> str:
    """The rest of a reason: the format that was found, and what to do."""
    kind = kind_of(data)
    if kind == "HEIF":
        return f", but HEIC: {AS_JPEG}; {IPHONE}"
    if kind == "AVIF":
        return f", but AVIF, which this build of Pillow does not decode: {AS_JPEG}"
    if data[4:8] == b"ftyp":
        advice = BRANDS.get(data[8:12], ("", "send a photograph; of a Live Photo the still one"))[1]
        return f", but {kind}: {advice}"
    if kind:
        return f", but {kind}: {next(advice for _, _, name, advice in STARTS if name == kind)}"
    if re.match(rb"(\xef\xbb\xbf)?\s*<", data[:200]):
        return ", but a web page or another XML document: send the photograph itself"
    if re.fullmatch(rb"[^\x00-\x08\x0e-\x1f]*[,;\t][^\x00-\x08\x0e-\x1f]*[\r\n][^\x00-\x08\x0e-\x1f]*", data[:500]):
        return ", but a table of text: files of records go to records/, quantities of photographs to their metadata"
    return ""


# JPEG

_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""The next marker; stuffed bytes and restart markers belong to the pixels."""
_KEPT = {*range(0xC0, 0xC9), 0xDA, 0xDB, 0xDC, 0xDD}
"""Frames, scans and the tables of both."""
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF}
"""Their decoding takes as long as their pixels allow, however few bytes they have."""
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_COLOURS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
"""Application segments that say how pixels are coloured."""


def _jpeg(data: bytes) -> File:
    kept, exif, xmp, scans, parts, at, in_scan = [b"\xff\xd8"], [], b"", 0, 0, 2, False
    while found := _MARKER.search(data, at):
        if in_scan:
            kept.append(data[at : found.start()])
        code, at = found[1][0], found.end()
        length = int.from_bytes(data[at : at + 2], "big")
        if code == 0xD9 or code in (0x01, 0xD8):
            in_scan = False
            if code == 0xD9:
                break
            continue
        if length < 2 or at + length > len(data):
            at, in_scan, found = len(data), False, None
            break
        body = data[at : at + length]
        at, parts = at + length, parts + 1
        if parts > MOST_PARTS:
            raise Unreadable(f"the JPEG has more than {MOST_PARTS:,} segments")
        if code in _ARITHMETIC:
            raise Unreadable("an arithmetic-coded JPEG, which few programs show; save it again as an ordinary JPEG")
        if code in _KEPT or (code in _COLOURS and body.startswith(_COLOURS[code], 2)):
            kept.append(bytes((0xFF, code)) + body)
        elif code == 0xE1 and body.startswith(EXIF, 2):
            exif.append(body[2 + len(EXIF) :])
        elif code == 0xE1 and body.startswith(XMP, 2) and not xmp:
            xmp = body[2 + len(XMP) :]
        in_scan = code == 0xDA
        scans += in_scan
        if scans > MOST_SCANS:
            raise Unreadable(f"the JPEG has more than {MOST_SCANS} scans; save it again as an ordinary JPEG")
    if found is None and in_scan:
        kept.append(data[at:].rstrip(b"\xff"))  # half an end mark
    kept.append(b"\xff\xd9")
    return File("JPEG", b"".join(kept), EXIF * bool(exif) + b"".join(exif), xmp, unended=found is None)


def is_whole(data: bytes, pixels: bytes, draw: Callable[[bytes], bytes]) -> bool:
    """Whether a JPEG that lacked its end mark lacks none of its pixels, which `draw` decodes from `data`.

    libjpeg invents what is missing, without an error, from the bytes that follow. So the pixels are whole when they
    do not depend on these, and when no scan is missing.
    """
    return _all_coefficients(data) and all(
        draw(data[:-2] + padding + data[-2:]) == pixels for padding in (bytes(4096), b"\x5a\xc3\x96\x0f" * 1024)
    )


def _all_coefficients(data: bytes) -> bool:
    """Whether the scans say every coefficient of every component to its last bit (T.81, G.1.1)."""
    missing: set[tuple[int, int]] = set()
    for code, body in _tables(data):
        if code in (0xC0, 0xC1, 0xC2) and len(body) > 5 and len(body) >= 6 + 3 * body[5]:
            missing = set(product(body[6 : 6 + 3 * body[5] : 3], range(64)))
        elif code == 0xDA and body and len(body) >= 4 + 2 * body[0]:
            first, last, low = body[-3], body[-2], body[-1] & 15
            if low == 0:
                missing -= set(product(body[1 : 1 + 2 * body[0] : 2], range(first, last + 1)))
    return not missing


def _tables(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG as `_jpeg` leaves it."""
    at = 2
    while found := _MARKER.search(data, at):
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        if found[1] == b"\xd9":
            return
        at = found.end() + length
        yield found[1][0], data[found.end() + 2 : at]


# PNG, of an animated one the picture that others show

_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def _png(data: bytes) -> File:
    texts: list[tuple[str, str]] = []
    kept, file, at, parts = [data[:8]], File("PNG", b""), 8, 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end, parts = at + 12 + length, parts + 1
        if parts > MOST_PARTS:
            raise Unreadable(f"the PNG has more than {MOST_PARTS:,} chunks")
        body = data[at + 8 : end - 4]
        if name in _PNG_KEPT:
            kept.append(data[at:end])
        elif name == b"eXIf":
            file = replace(file, exif=body if body.startswith(EXIF) else EXIF + body)
        elif name == b"tIME" and length == 7:
            file = replace(file, modified=struct.unpack(">H5B", body))
        elif name in (b"tEXt", b"iTXt", b"zTXt") and len(texts) < 100 and (text := _text(name, body)):
            texts.append(text)
        if name == b"IEND":
            break
        at = end
    xmp = next((text for keyword, text in texts if keyword == "XML:com.adobe.xmp"), "")
    return replace(file, data=b"".join(kept), xmp=xmp.encode(), texts=tuple(texts))


def _text(name: bytes, body: bytes) -> tuple[str, str] | None:
    """Keyword and text of a PNG's text chunk; None when it cannot be read."""
    keyword, _, rest = body.partition(b"\0")
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.split(b"\0", 2)[2] if rest.count(b"\0") > 1 else b""
    elif packed:
        rest = rest[1:]
    try:
        if packed:
            rest = zlib.decompressobj().decompress(rest, LONGEST_TEXT)
        return keyword.decode("latin-1"), rest[:LONGEST_TEXT].decode("utf-8" if name == b"iTXt" else "latin-1")
    except (zlib.error, UnicodeDecodeError):
        return None


# WebP and GIF, of animations the first frame

_WEBP_KEPT = {b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"}
_WEBP_SURROUNDINGS = 0x20 | 0x08 | 0x04
"""Flags of VP8X: colour profile, EXIF, XMP."""


def _webp(data: bytes) -> File:
    kept, file, at, parts, frames = [b"WEBP"], File("WEBP", b""), 12, 0, 0
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        end, parts = at + 8 + length + length % 2, parts + 1
        if parts > MOST_PARTS:
            raise Unreadable(f"the WebP has more than {MOST_PARTS:,} chunks")
        body = data[at + 8 : at + 8 + length]
        frames += name == b"ANMF"
        if len(body) < length and name in _WEBP_KEPT and frames < 2:
            return replace(file, data=data)  # the decoder says that it is truncated
        if name == b"VP8X" and body:
            kept.append(data[at : at + 8] + bytes((body[0] & ~_WEBP_SURROUNDINGS,)) + data[at + 9 : end])
        elif name in _WEBP_KEPT and (name != b"ANMF" or frames == 1):
            kept.append(data[at:end].ljust(8 + length + length % 2, b"\0"))
        elif name == b"EXIF":
            file = replace(file, exif=body if body.startswith(EXIF) else EXIF + body)
        elif name == b"XMP ":
            file = replace(file, xmp=body)
        at = end
    content = b"".join(kept)
    return replace(file, data=b"RIFF" + struct.pack("<I", len(content)) + content)


def _gif(data: bytes) -> File:
    at = 13 + _colours(data, 10)
    kept, control = data[:at], b""
    while at < len(data):
        if data[at] == 0x21:
            end = _blocks_end(data, at + 2)
            control = data[at:end] if data[at + 1 : at + 2] == b"\xf9" else control
            at = end
        elif data[at] == 0x2C:
            end = _blocks_end(data, at + 11 + _colours(data, at + 9))
            return File("GIF", kept + control + data[at:end] + b";")
        else:
            break
    return File("GIF", kept)


def _colours(data: bytes, at: int) -> int:
    """Bytes of the colour table that the flags there announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks_end(data: bytes, at: int) -> int:
    """The place after a chain of sub-blocks. Raises Unreadable when it has more than any encoder writes."""
    for _ in range(20 * MOST_PARTS):
        if at >= len(data) or data[at] == 0:
            return at + 1
        at += data[at] + 1
    raise Unreadable(f"the GIF has more than {20 * MOST_PARTS:,} blocks")


# AVIF


def _avif(data: bytes) -> File:
    """Its EXIF is hidden from the decoder, which would refuse the picture for it; AVIF stores turns apart from EXIF."""
    at, parts = 0, 0
    while at + 8 <= len(data) and parts < MOST_PARTS:
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"meta" and 8 <= length <= len(data) - at:
            data = data[:at] + data[at : at + length].replace(b"Exif", b"skip") + data[at + length :]
            break
        if length < 8:
            break
        at, parts = at + length, parts + 1
    return File("AVIF", data)


def _heif(data: bytes) -> File:
    return File("HEIF", data)


WALKS: dict[str, Callable[[bytes], File]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "AVIF": _avif,
    "HEIF": _heif,
}


# Turns

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright. Any other orientation is none."""


def upright(image: Image.Image, file: File, found: dict[str | tuple[int, int], object]) -> Image.Image:
    """The picture as its file's orientation says. `found` is what the decoder found beside the pixels: `info`."""
    exif = found.get("exif")
    turn = TURNS.get(_orientation(exif if isinstance(exif, bytes) else file.exif, file.xmp))
    return image if turn is None else image.transpose(turn)


def _orientation(exif: bytes, xmp: bytes) -> int:
    with suppress(*BROKEN):
        read = Image.Exif()
        read.load(exif)
        if 0x0112 in read:
            return int(read[0x0112])
    written = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", xmp)
    return int(written[1]) if written else 1
