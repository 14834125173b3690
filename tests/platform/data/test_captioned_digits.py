import pytest
import torch

from onestep.platform.data.captioned_digits import CaptionedDigits
from onestep.platform.data.digits import Digits
from onestep.platform.data.source import Dataset, Examples
from onestep.platform.data.tokenizer import Tokenizer

SOURCE = CaptionedDigits()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return SOURCE.load()


def captions_of(part: Examples) -> tuple[str, ...]:
    assert part.tokens is not None
    return Tokenizer(words=SOURCE.vocabulary).decode(part.tokens)


def test_every_digit_is_there_in_both_shades(data: Dataset) -> None:
    plain = Digits().load()
    for ours, theirs in ((data.train, plain.train), (data.held_out, plain.held_out)):
        bright, dark = ours.x.chunk(2)
        assert torch.equal(bright, theirs.x)
        assert torch.equal(
            ours.take(slice(0, 5))[0], -ours.take(slice(len(dark), len(dark) + 5))[0]
        )


def test_no_digit_is_on_both_sides_in_any_shade(data: Dataset) -> None:
    sides = [{x.numpy().tobytes() for x in part.x} for part in (data.train, data.held_out)]
    assert not sides[0] & sides[1]


def test_a_caption_says_the_numeral_and_the_shade_of_its_image(data: Dataset) -> None:
    for part in (data.train, data.held_out):
        assert part.label is not None
        shade_of = {"bright": "bright", "black": "bright", "dark": "dark", "white": "dark"}
        for caption, label, x in zip(captions_of(part), part.label.tolist(), part.x, strict=True):
            shade, numeral = SOURCE.label_names[label].split()
            words = caption.split()
            assert numeral in words
            assert {shade_of[word] for word in words if word in shade_of} == {shade}
            # The ground is most of an image.
            assert (x.double().mean() < 8.0) == (shade == "bright")


def test_every_class_is_said_in_four_phrases_of_several_lengths(data: Dataset) -> None:
    assert data.train.label is not None
    captions = captions_of(data.train)
    for label in range(data.classes):
        said = {c for c, k in zip(captions, data.train.label.tolist(), strict=True) if k == label}
        assert len(said) == 4
        assert {len(caption.split()) for caption in said} == {2, 3, 4, 5}


def test_all_words_are_used_and_no_others(data: Dataset) -> None:
    used = {word for caption in captions_of(data.train) for word in caption.split()}
    assert used == set(SOURCE.vocabulary)
    assert len(SOURCE.vocabulary) == 16


def test_models_are_told_the_caption_and_not_the_class(data: Dataset) -> None:
    assert (data.classes, data.told_classes, SOURCE.told_classes) == (20, 0, 0)
    condition = data.train.condition(slice(0, 3))
    assert condition is not None
    assert condition.label is None
    assert condition.tokens is not None
    assert condition.tokens.shape == (3, 5)


def test_conditions_in_turn_ask_for_every_class(data: Dataset) -> None:
    condition = data.in_turn(40)
    assert condition is not None
    assert condition.tokens is not None
    said = Tokenizer(words=SOURCE.vocabulary).decode(condition.tokens)
    assert said[:20] == said[20:]
    for label, caption in enumerate(said[:20]):
        assert SOURCE.label_names[label].split()[1] in caption.split()


def test_captions_are_in_the_digest(data: Dataset) -> None:
    assert SOURCE.load().digest == data.digest
    other = Examples(
        x=data.train.x, label=data.train.label, tokens=data.train.tokens.flip(0), white=16
    )
    assert Dataset.of(SOURCE, train=other, held_out=data.held_out).digest != data.digest


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"held_out_fraction must be in \(0, 1\), got 1"):
        CaptionedDigits(held_out_fraction=1.0)
    with pytest.raises(ValueError, match="2 examples need as many captions, got 1"):
        Examples(x=torch.zeros(2, 1), tokens=torch.zeros(1, 3, dtype=torch.long))
