"""Pictures that do not keep numbers as they were, recognised by the headers of their compressed bytes."""

import struct
import zlib
from collections.abc import Iterator


def jpeg(data: bytes) -> bool:
    """True if JPEG loses; its lossless process (ISO 10918-1, annex H) does not, of which SOF3 is the frame header."""
    return all(marker != 0xC3 for marker, _ in _segments(data, 2))


def webp(data: bytes) -> bool:
    """True if a frame is coded as VP8, and not VP8L (RFC 9649)."""
    place, end = 12, len(data)
    while place + 8 <= end:
        chunk, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if chunk == b"VP8 ":
            return True
        if chunk == b"ANMF":  # a frame: 16 bytes, then chunks
            place += 8 + 16
            continue
        place += 8 + size + size % 2
    return False


def jpeg_2000(data: bytes) -> bool:
    """True if the wavelet is the irreversible one of 9 and 7 taps (ISO 15444-1, A.6.1)."""
    start = data.find(b"\xff\x4f\xff\x51")  # of the codestream, and of its first segment
    if start < 0:
        return False
    cod = next((place for marker, place in _segments(data, start + 2) if marker == 0x52), None)
    return cod is not None and cod + 13 < len(data) and data[cod + 13] == 0


def lerc(data: bytes, packing: int = 0) -> bool:
    """True if numbers may differ by more than rounding, which is 0.5 for whole numbers (Esri's Lerc2 and CntZImage).

    `packing` is how TIFF has packed the blob: 0 not at all, 1 Deflate, 2 ZSTD.
    """
    if packing == 1:
        data = zlib.decompress(data)
    elif packing == 2:
        import imagecodecs

        data = bytes(imagecodecs.zstd_decode(data))
    if data.startswith(b"CntZImage "):  # the first version, which knows floats only
        return struct.unpack_from("<d", data, 26)[0] > 0
    version = struct.unpack_from("<i", data, 6)[0]
    has_checksum, has_depth, has_more = version >= 3, version >= 4, version >= 6
    numbers = 10 + 4 * has_checksum
    count = 6 + has_depth + has_more
    kind = struct.unpack_from("<i", data, numbers + 4 * (5 + has_depth))[0]  # 6 and 7 are floats
    (error,) = struct.unpack_from("<d", data, numbers + 4 * (count + has_more))
    return error > (0 if kind >= 6 else 0.5)


def _segments(data: bytes, place: int) -> Iterator[tuple[int, int]]:
    """The markers of JPEG and JPEG 2000, with where they are, up to the compressed numbers."""
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in (0xDA, 0x90, 0x93):  # a scan, a tile, its numbers
            return
        yield marker, place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
