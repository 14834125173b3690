from collections import Counter

import pytest

from onestep.serving.native import GenerateRequest
from onestep.serving.schema import ImagesRequest
from onestep.serving.split import Split, seeded, sticky_key

KEYS = [f"user {k}" for k in range(4000)]


def taken(percent: float, version: str = "digits/4") -> set[str]:
    split = Split(version=version, percent=percent)
    return {key for key in KEYS if split.takes(key)}


@pytest.mark.parametrize("percent", [1.0, 10.0, 50.0])
def test_the_share_is_that_of_the_percent(percent: float) -> None:
    share, n = percent / 100, len(KEYS)
    error = (share * (1 - share) / n) ** 0.5
    assert abs(len(taken(percent)) / n - share) < 4 * error


def test_a_share_that_grows_keeps_those_it_has_and_all_is_all() -> None:
    assert taken(10.0) < taken(25.0) < taken(100.0) == set(KEYS)


def test_another_version_gets_other_keys() -> None:
    both = taken(20.0) & taken(20.0, "digits/5")
    assert 0.02 < len(both) / len(KEYS) < 0.06  # 0.04, were they independent


def test_a_request_is_told_by_its_user_then_its_key_then_its_label_and_seed() -> None:
    plain = ImagesRequest(prompt="3", seed=7)
    user = ImagesRequest(prompt="3", seed=7, user="ada")
    assert sticky_key(plain.asked_by("team")) == "key team"
    assert sticky_key(user) == sticky_key(ImagesRequest(prompt="4", user="ada"))
    assert len({sticky_key(user.asked_by(name)) for name in ("", "team", "other")}) == 3
    assert sticky_key(plain) == sticky_key(ImagesRequest(prompt="3", seed=7, n=2, steps=4))
    others = [ImagesRequest(prompt="4", seed=7), ImagesRequest(prompt="3", seed=8)]
    assert sticky_key(plain) not in map(sticky_key, others)


def test_no_key_of_one_kind_is_that_of_another() -> None:
    named = ImagesRequest(user="key ada"), ImagesRequest().asked_by("ada")
    assert len(set(map(sticky_key, named))) == 2


def test_rows_are_told_by_where_they_begin() -> None:
    asked = [
        {"labels": 3, "seed": 7},
        {"labels": 4, "seed": 7},
        {"labels": 3, "seed": 7, "start": 64},
        {"labels": [3, 4], "seeds": [0, 7]},
        {"labels": [3, 4], "seeds": [7, 0]},
        {"labels": 3, "noise": "AAAA"},
    ]
    keys = [sticky_key(GenerateRequest(**one)) for one in asked]
    assert len(set(keys)) == len(keys)
    assert keys[0] == sticky_key(GenerateRequest(**asked[0], format="npy", steps=4))


def test_a_request_without_a_seed_gets_one_and_no_other_does() -> None:
    drawn = Counter(seeded(ImagesRequest()).seed for _ in range(8))
    assert len(drawn) == 8
    for given in (
        ImagesRequest(seed=0),
        GenerateRequest(seed=0),
        GenerateRequest(seeds=[1]),
        GenerateRequest(noise="AAAA"),
    ):
        assert seeded(given) == given
    assert seeded(GenerateRequest(n=2)).seed is not None
    assert seeded(ImagesRequest().asked_by("ada")).asker == "ada"
