"""A GGUF file with a false header is refused before the conversion reads it."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import FleetError
from orchestra.fleet.weights import gguf_header
from orchestra.fleet.weights.gguf_header import check_gguf

UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
F32, Q8_0 = 0, 8


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def number(value: int) -> bytes:
    return struct.pack("<II", UINT32, value)


def strings(*values: str) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(map(text, values))


def tensor(name: str, *shape: int, kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)


ENTRIES: Mapping[str, bytes] = {
    "general.architecture": struct.pack("<I", STRING) + text("llama"),
    "llama.block_count": number(1),
    "llama.context_length": number(1 << 20),
    "llama.embedding_length": number(8),
    "llama.feed_forward_length": struct.pack("<IIQ", ARRAY, INT32, 1) + struct.pack("<i", 4),
    "llama.rope.freq_base": struct.pack("<If", FLOAT32, 1e4),
    "tokenizer.ggml.tokens": strings("a", "b", "c"),
}
TENSORS = (tensor("token_embd.weight", 8, 3), tensor("blk.0.ffn_up.weight", 8, 4, offset=96))
DATA = 96 + 128


def gguf(
    changed: Mapping[str, bytes] | None = None,
    tensors: tuple[bytes, ...] = TENSORS,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    twice: str = "",
    data: int = DATA,
) -> bytes:
    entries = {**ENTRIES, **(changed or {})}
    head = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(entries) + bool(twice))))
    pairs = [*entries.items(), *((key, entries[key]) for key in [twice] if key)]
    head += b"".join(text(key) + value for key, value in pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


def test_gguf_valid_header_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    header = check_gguf(path)
    assert header.elements == 24 + 32
    assert header.sizes["tokenizer.ggml.tokens"] == 3
    assert header.sizes["llama.feed_forward_length"] == 4


FALSE_HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "shorter than a header"),
    "magic": (gguf(magic=b"GGML"), "not a GGUF file"),
    "version": (gguf(version=1), "its version is 1"),
    "tensor_count": (gguf(counts=(1 << 62, 7)), "4,611,686,018,427,387,904 tensors"),
    "entry_count": (gguf(counts=(2, 1 << 62)), "4,611,686,018,427,387,904 entries"),
    "more_entries": (gguf(counts=(2, 9)), "beyond the end"),
    "text_length": (gguf({"general.name": struct.pack("<IQ", STRING, 1 << 60)}), "beyond the end"),
    "array_length": (gguf({"x": struct.pack("<IIQ", ARRAY, UINT32, 1 << 60)}), "beyond the end"),
    "strings_length": (gguf({"x": struct.pack("<IIQ", ARRAY, STRING, 1 << 60)}), "beyond the end"),
    "nested_array": (gguf({"x": struct.pack("<IIQ", ARRAY, ARRAY, 1)}), "array of the type 9"),
    "unknown_type": (gguf({"x": struct.pack("<I", 99)}), "unknown type 99"),
    "no_utf8": (gguf({"general.name": struct.pack("<IQ", STRING, 1) + b"\xff"}), "utf-8"),
    "no_architecture": (gguf({"general.architecture": number(1)}), "no general.architecture"),
    "alignment": (gguf({"general.alignment": number(0)}), "its alignment is 0"),
    "dimensions": (gguf(tensors=(text("w") + struct.pack("<I", 1 << 31),)), "2,147,483,648 dimensions"),
    "empty_side": (gguf(tensors=(tensor("w", 0),)), "the shape (0,)"),
    "partial_block": (gguf(tensors=(tensor("w", 8, kind=Q8_0),)), "in blocks of 32"),
    "tensor_type": (gguf(tensors=(tensor("w", 8, kind=77),)), "unknown type 77"),
    "same_name": (gguf(tensors=(TENSORS[0], TENSORS[0])), "twice"),
    "large_tensor": (gguf(tensors=(tensor("w", 1 << 40, 1 << 20),)), "ends at byte 4,611,686,018,427,387,904"),
    "far_tensor": (gguf(tensors=(tensor("w", 8, offset=1 << 63),)), "ends at byte"),
    "same_key": (gguf(twice="llama.block_count"), "'llama.block_count' twice"),
    "overlap": (gguf(tensors=(TENSORS[0], tensor("blk.0.ffn_up.weight", 8, 4, offset=64))), "overlaps"),
    "cut_off": (gguf(data=DATA - 1), "ends at byte 224 of 223"),
    "block_count": (gguf({"llama.block_count": number(1_000_000)}), "its llama.block_count is 1,000,000"),
    "embedding_length": (gguf({"llama.embedding_length": number(1 << 30)}), "its llama.embedding_length is"),
    "key_length": (gguf({"llama.attention.key_length": number(1 << 30)}), "its llama.attention.key_length is"),
    "negative_size": (gguf({"llama.vocab_size": struct.pack("<Ii", INT32, -1)}), "its llama.vocab_size is -1"),
    "array_size": (
        gguf({"llama.feed_forward_length": struct.pack("<IIQii", ARRAY, INT32, 2, 4, 1 << 30)}),
        "its llama.feed_forward_length is 1,073,741,824",
    ),
    "tokens": (gguf({"tokenizer.ggml.tokens": strings(*"abcdefghi")}), "its tokenizer.ggml.tokens is 9"),
}


@pytest.mark.parametrize(("content", "message"), FALSE_HEADERS.values(), ids=FALSE_HEADERS.keys())
def test_gguf_false_header_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(FleetError) as caught:
        check_gguf(path)
    assert caught.value.code == "F007"
    assert caught.value.message.startswith(f"{path} is not converted: ")
    assert message in caught.value.message
    assert caught.value.hint


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_gguf_random_damage_is_accepted_or_refused(data: st.DataObject) -> None:
    """No other exception, and no reading beyond the file."""
    content = bytearray(gguf())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - DATA - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(content[: data.draw(st.integers(0, len(content)))])
        file.flush()
        with contextlib.suppress(FleetError):
            assert check_gguf(Path(file.name)).elements <= 8 * len(content)


def test_gguf_block_sizes_equal_those_of_gguf_library() -> None:
    gguf_library: Any = pytest.importorskip("gguf")
    for kind, sizes in gguf_header.BLOCKS.items():
        assert gguf_library.GGML_QUANT_SIZES[gguf_library.GGMLQuantizationType(kind)] == sizes
