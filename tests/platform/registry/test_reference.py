import pytest

from onestep.platform.registry.reference import (
    Alias,
    ModelVersion,
    check_alias,
    check_name,
    parse_reference,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits/3", ModelVersion(name="digits", version=3)),
        ("8_gaussians.v2/12", ModelVersion(name="8_gaussians.v2", version=12)),
        ("digits@champion", Alias(alias="champion", name="digits")),
        ("champion", Alias(alias="champion")),
    ],
)
def test_a_reference_is_read_and_written(text, expected):
    assert parse_reference(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "digits/", "digits/0", "digits/-1", "digits/1.5", "a/b/3", "@champion", "digits@"),
        *("A B", "digits@v1", "latest", "../etc", "digits/3@champion", "digits/3\n", "champion\n"),
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ValueError, match="a model is referred to as name/version, name@alias"):
        parse_reference(text)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", ".hidden", "a b", "a'b", "n" * 101])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="model name must be"):
        check_name(name)


@pytest.mark.parametrize("alias", ["", "Champion", "v1", "latest", "3", "a b", "a/b", "a" * 61])
def test_what_is_no_alias_is_refused(alias):
    with pytest.raises(ValueError, match="alias must be"):
        check_alias(alias)


def test_a_checksum_does_not_read_like_a_version():
    assert ModelVersion.is_written("digits/3")
    assert not ModelVersion.is_written("sha256:" + "a" * 64)
    assert not ModelVersion.is_written("3")
