import pytest

from onestep.platform.password import hide_passwords, without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://ada:secret@host/optuna", "postgresql+psycopg://ada:***@host/optuna"),
        ("postgresql:/ada:secret@host/optuna", "postgresql:/ada:***@host/optuna"),
        ("https://:secret@host:5000", "https://:***@host:5000"),
        ("mysql://ada:123456@host", "mysql://ada:***@host"),
        ("mysql://ada:se@cret@host/db", "mysql://ada:***@host/db"),
        ("mysql://ada:se/cret@host/db", "mysql://ada:***@host/db"),
        ("mysql://ada:12/cret@host/db", "mysql://ada:***@host/db"),
        ("mysql://ada:s@cr/et@host/db", "mysql://ada:***@host/db"),
        ("postgresql://ada@server:secret@host/db", "postgresql://ada@server:***@host/db"),
        (
            "mssql+pyodbc:///?odbc_connect=Driver%3DX%3BPWD%3Dse%3Bcret",
            "mssql+pyodbc:///?odbc_connect=Driver%3DX%3BPWD%3D***",
        ),
        ("mysql://host/db?password=se#cret&user=ada", "mysql://host/db?password=***&user=ada"),
        (
            "postgresql://host/db?user=ada&password=secret",
            "postgresql://host/db?user=ada&password=***",
        ),
        ("storage.tracking_uri=http://ada:secret@host", "storage.tracking_uri=http://ada:***@host"),
        ("http://ada:one@a and http://eve:two@b", "http://ada:***@a and http://eve:***@b"),
    ],
)
def test_a_password_is_hidden_and_all_else_is_shown(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
    assert hide_passwords(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/ada/a:b@c/mlflow.db",
        "http://127.0.0.1:5000/files@v1",
        "http://[::1]:5000/files@v1",
        "postgresql://ada@host:5432/optuna",
        "postgresql://ada@server@host:5432/optuna",
        "http://ada@host:5000/files@v1",
        "postgresql://ada@[::1]:5432/files@v1",
        "digits@champion",
        "",
    ],
)
def test_a_text_without_a_password_stays_as_it_is(text: str) -> None:
    assert hide_passwords(text) == text


def test_passwords_are_hidden_however_deep_they_lie() -> None:
    url, shown = "mysql://ada:secret@host", "mysql://ada:***@host"
    value = {"storage": {"tracking_uri": url}, "overrides": (f"a={url}", "b=1"), "seed": 3}
    assert without_passwords(value) == {
        "storage": {"tracking_uri": shown},
        "overrides": [f"a={shown}", "b=1"],
        "seed": 3,
    }
