"""The picture of the server's page in the README, of models that `make demo` has left behind."""

import argparse
import logging
import shutil
import warnings
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from playwright.sync_api import ViewportSize, sync_playwright

from onestep.benchmarks.record import DOCS
from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings

PICTURE: Final = DOCS / "images" / "serving_page.png"
MODELS: Final = ("digits/1", "digits/3", "digits@champion")
CHOICE: Final = {"seed": 0, "n": 10, "steps": 2, "metric": "eval/1nn_deviation"}
SIZE: Final[ViewportSize] = {"width": 1060, "height": 700}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, help="references in the registry")
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("ray").setLevel(logging.ERROR)
    with Hosted(ServeSettings.from_dict({"models": list(arguments.models), "port": 0})) as hosted:
        take(hosted.url, arguments.out)
    print(arguments.out)


def take(url: str, path: Path) -> None:
    """Takes the picture once all models have answered thrice: the first time is no usual one."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path)
        page = browser.new_page(viewport=SIZE)
        page.goto(f"{url}/#{urlencode(CHOICE)}")
        for _ in range(2):
            page.get_by_text("all from the same noise").wait_for()
            page.get_by_role("button", name="Generate").click()
        page.get_by_text("all from the same noise").wait_for()
        page.screenshot(path=path, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
