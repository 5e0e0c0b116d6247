"""RWKV's World vocabulary (rwkv_vocab_*.txt, BlinkDL/RWKV-LM) as a tokenizer.json.

Its own tokenizer takes the longest entry that matches at each place of the text's bytes. WordPiece without a prefix
does that within a piece, over bytes that are spelled as characters, and pieces are cut only where no entry reaches
over: behind a letter that no letter follows, and before a space that no space precedes. Whether that holds is checked
on the vocabulary.
"""

import ast
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from lcprobe.errors import DataError

LINE = re.compile(r"(\d+) (.+) (\d+)")
"""Id, entry as a literal of Python, and its bytes."""
CUTS = r"(?<=[A-Za-z])(?=[\x00-\x40\x5b-\x60\x7b-\x7f])|(?<=\S)(?= )"
"""Where texts are cut: between a letter and another character of ASCII, and before a space behind no white space."""
CROSSES = re.compile(rb"[A-Za-z][\x00-\x40\x5b-\x60\x7b-\x7f]|[^\s] ")
"""An entry that reaches over such a cut."""
END = "<|endoftext|>"
"""Name of id 0, which ends documents; the file has no entry for it."""
LONGEST_PIECE = 100_000


def from_world_vocabulary(path: Path) -> str:
    """The tokenizer.json of a vocabulary file. Raises DataError for a file of another form, and for entries that the
    cuts would break."""
    entries: dict[bytes, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = LINE.fullmatch(line)
        entry = _entry(match[2]) if match else None
        if match is None or entry is None or len(entry) != int(match[3]):
            raise DataError(f"{path}: line {number}: {line[:40]!r}; allowed: an id, a string and its number of bytes")
        entries[entry] = int(match[1])
    crossing = next((entry for entry in entries if CROSSES.search(entry)), None)
    if crossing is not None:
        raise DataError(f"{path}: the entry {crossing!r} reaches over a word's end; allowed: the World vocabulary")
    missing = next((byte for byte in range(256) if bytes([byte]) not in entries), None)
    if missing is not None:
        raise DataError(f"{path}: no entry for the byte {missing}; allowed: the World vocabulary")
    spelled = _bytes_as_characters()
    vocabulary = {"".join(spelled[byte] for byte in entry): index for entry, index in entries.items()}
    vocabulary[END] = 0
    model = models.WordPiece(vocabulary, unk_token=END, max_input_chars_per_word=LONGEST_PIECE)  # type: ignore[call-arg]
    tokenizer = Tokenizer(model)
    tokenizer.model.continuing_subword_prefix = ""  # type: ignore[attr-defined]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(CUTS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    return tokenizer.to_str()


def _entry(text: str) -> bytes | None:
    """The bytes of an entry, written as a literal; None where it is no such literal."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None


def _bytes_as_characters() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
