r"""What other tools make MinHash shingles of: their normalisation, their tokens, and their shortest texts.

datatrove   MinhashDedupSignature of datatrove 0.10 with its default TextNormConfig: lower case, numbers to 0,
            punctuation to spaces, white space to single spaces, accents away (NFD without Mn); then spaCy's
            English words. A text with fewer words than a shingle has none.
text-dedup  text_dedup.minhash 0.4: re.split(r"\W", text.lower()), whose empty strings between two characters
            that are no word count as words. A text with fewer than 5 has no shingle (min_length).
nemo        NeMo Curator's MinHash stage (cuDF minhash): characters of the text as it is. A text with fewer
            than a shingle is one shingle.
Normalisation is Arrow's, so it follows the Unicode version of pyarrow.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Peer = Literal["datatrove", "text-dedup", "nemo"]

MIN_LENGTH = 5
"""text-dedup's min_length."""

_NUMBER = r"\p{Nd}+(?:[.,،٫⎖⎗⎘]\p{Nd}+)?"
_SPACE = r"\x09-\x0d\x1c-\x20\x{85}\p{Z}"
_PUNCTUATION = (
    "!/—”:％１〈&(、━\\\\【#%「」，】；+\\^\\]~“《„';’{|∶´\\[=\\-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    r"\x00-\x08\x0b\x0c\x0d-\x1f\x7f-\x{9f}"
)


def peer_tokens(peer: Peer, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(first int64[n + 1], hashes uint64[:]): document i has the tokens hashes[first[i]:first[i + 1]]."""
    from dataselect.kernels import peer_tokens as kernels
    from dataselect.kernels.arrow import text_buffers

    if peer == "nemo":
        return kernels.code_points(*text_buffers(texts))
    if peer == "text-dedup":
        return kernels.split_tokens(*text_buffers(with_final_sigmas(texts)))
    return kernels.spacy_tokens(*text_buffers(simplified(texts)))


def least_tokens(peer: Peer, ngram: int) -> int:
    """A text with fewer tokens has no shingle."""
    return {"datatrove": ngram, "text-dedup": MIN_LENGTH, "nemo": 1}[peer]


def simplified(texts: pa.Array) -> pa.Array:
    """Datatrove's simplify_text with its defaults."""
    texts = pc.utf8_lower(with_final_sigmas(texts))
    texts = pc.replace_substring_regex(texts, _NUMBER, "0")
    texts = pc.replace_substring_regex(texts, f"[{_SPACE}{_PUNCTUATION}]+", " ")
    texts = pc.utf8_normalize(texts, form="NFD")
    return pc.replace_substring_regex(texts, r"\p{Mn}+", "")


def with_final_sigmas(texts: pa.Array) -> pa.Array:
    """Texts with a capital sigma in lower case, as str.lower() has them: what a sigma becomes depends on the
    letters around it, which Arrow and our kernels don't look at.
    """
    has = pc.match_substring(texts, "Σ")
    lowered = [text.lower() for text in texts.filter(has).to_pylist()]
    return pc.replace_with_mask(texts, has, pa.array(lowered, texts.type)) if lowered else texts
