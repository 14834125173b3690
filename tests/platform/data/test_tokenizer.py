import pytest
import torch

from onestep.methods.core.condition import NULL_LABEL
from onestep.platform.data.tokenizer import Tokenizer

WORDS = Tokenizer(words=("a", "red", "cat", "dog"))


def test_a_word_is_its_place_and_short_captions_are_padded() -> None:
    tokens = WORDS.encode(["a red dog", "cat", ""])
    null = NULL_LABEL
    assert tokens.tolist() == [[0, 1, 3], [2, null, null], [null, null, null]]
    assert tokens.dtype == torch.long


def test_captions_come_back() -> None:
    captions = ("a red dog", "cat", "")
    assert WORDS.decode(WORDS.encode(captions)) == captions


def test_case_and_spaces_do_not_matter() -> None:
    assert torch.equal(WORDS.encode([" A  red Cat "]), WORDS.encode(["a red cat"]))


def test_an_unknown_word_is_refused() -> None:
    said = "a caption has the unknown word 'bird', allowed: a, red, cat, dog"
    with pytest.raises(ValueError, match=said):
        WORDS.encode(["a cat", "a red bird"])
