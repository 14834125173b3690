"""What users are told of the server's own places: nothing."""

from typing import Final

import pytest

from onestep.serving.errors import without_paths

PLACE: Final = "(a place on the server)"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no file /home/ada/x, so it ends", "no file P, so it ends"),
        ("no file '/home/ada lovelace/store/x' there", "no file P there"),
        ("no file /home/ada lovelace/store/x there", "no file P there"),
        ("got PosixPath('/home/ada lovelace/x y')", "got P)"),
        ("./store/secret/x is missing", "P is missing"),
        ("got ../../etc/keys.yaml.", "got P."),
        ("no mlruns/0/ab12/artifacts", "no P"),
        (r"no C:\srv\x, no \\host\share", "no P, no P"),
        ("path=/srv/x", "P"),
        ("postgresql://ada:p'w)x@db.internal/store failed", "P failed"),
        ("'postgresql://ada:p'w@db.internal/store' failed", "P failed"),
        ("'postgresql://ada:p')@db.internal/store' failed", "P failed"),
        ("'sqlite://ada:p')@db.internal' failed", "P failed"),
        ("(http://mlflow:5000/api/2.0) answers not", "(P) answers not"),
        ("the server's file '/srv/a b' isn't there", "the server's file P isn't there"),
        ('users\' folder "/srv/a b" and `~/x y`', "users' folder P"),
        ("/srv/3 and ../3 and ~/3", "P"),
    ],
)
def test_a_place_is_replaced_as_a_whole(said: str, told: str) -> None:
    assert without_paths(said) == told.replace("P", PLACE)


@pytest.mark.parametrize(
    "said",
    [
        "digits/3 was altered",
        "model must be one that is served here, got 'digits/99'; allowed: a.b-c_d/2, 'faces/1'",
        "digits/3's net (of faces/2) has 128/2000 images.",
        "digits@champion is not loaded yet",
        "got image/png, not application/json",
        "the model's file isn't the users' own",
    ],
)
def test_references_and_quotients_stay(said: str) -> None:
    assert without_paths(said) == said
