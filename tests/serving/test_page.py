"""The page in a real browser, before the real application."""

import base64
import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, Route, expect, sync_playwright

from onestep.serving.keys import add_key
from onestep.tests.serving.page_server import OPEN, served

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = next(filter(None, map(shutil.which, BROWSERS)), None)
WANTED: Final = f"needs one of {', '.join(BROWSERS)} on PATH, as from: apt-get install chromium"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=WANTED)
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Watched:
    """A page, what its console said, and what it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on(
            "request",
            lambda request: (
                self.bodies.extend([json.loads(request.post_data)]) if request.post_data else None
            ),
        )


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    yield Watched(context.new_page())
    context.close()


@pytest.fixture
def page(watched: Watched, url: str) -> Iterator[Page]:
    """A page that complains of nothing and asks nobody but its server."""
    yield watched.page
    assert watched.complaints == []
    others = [asked for asked in watched.asked if not asked.startswith((url, "data:", "blob:"))]
    assert others == []


def fact(page: Page, model: str, name: str) -> Any:
    return page.locator(f'[data-model="{model}"] [data-fact={name}]')


def sources(page: Page, model: str, *, n: int) -> list[str]:
    """The data URLs of a model's images, once there are so many."""
    images = page.locator(f'[data-model="{model}"][aria-busy=false] img')
    expect(images).to_have_count(n)
    return [str(image.get_attribute("src")) for image in images.all()]


def pixels(source: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def generate(url: str, **body: object) -> bytes:
    answer = httpx.post(f"{url}/v1/generate", json=body, timeout=30)
    answer.raise_for_status()
    return answer.content


def from_server(url: str, **body: object) -> list[np.ndarray]:
    images = np.load(io.BytesIO(generate(url, format="npy", **body)))
    levels = ((images + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return [np.broadcast_to(level, (*level.shape[:2], 3)) for level in levels]


def test_chosen_models_show_the_images_of_the_server_from_the_same_noise(
    page: Page, url: str
) -> None:
    page.goto(f"{url}/#n=5&seed=3")  # a grid of three by two with a place left over
    first = sources(page, "champion", n=5)
    labels = [k % 4 for k in range(5)]
    expected = from_server(url, model="champion", n=5, seed=3, labels=labels)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(first, expected, strict=True))
    assert sources(page, "digits/1", n=5) == first
    assert sources(page, "grid@best", n=5) != first
    colours = from_server(url, model="wide/1", n=5, seed=3)
    wide = sources(page, "wide/1", n=5)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(wide, colours, strict=True))
    expect(page.get_by_role("status")).to_have_text(
        "Seed 3: the same noise only within one shape: champion, digits/1, grid@best (1x8x8); "
        "wide/1 (3x4x4)."
    )
    page.get_by_role("checkbox", name="wide/1").uncheck()
    expect(page.get_by_role("status")).to_have_text("Seed 3: all from the same noise.")
    expect(page.locator("article")).to_have_count(3)


def test_each_model_says_its_version_time_quality_and_problem(page: Page, url: str) -> None:
    page.goto(f"{url}/#n=2&model=champion&model=grid%40best")
    expect(fact(page, "champion", "version")).to_have_text("digits/1 (MeanFlow)")
    expect(fact(page, "champion", "lineage")).to_have_text("faces/2 (FlowMatching), faces/1")
    expect(fact(page, "grid@best", "lineage")).to_be_hidden()
    expect(fact(page, "champion", "quality")).to_have_text("1nn_deviation 0.250")
    dot = page.locator("[data-model=champion] circle")  # the first of two, and the larger
    assert [dot.get_attribute(name) for name in ("cx", "cy")] == ["4", "4"]
    curve = page.locator("[data-model=champion] polyline")
    expect(curve).to_have_attribute("points", "4,4 116,28")
    expect(fact(page, "grid@best", "quality")).to_have_text("not measured")
    expect(page.locator("[data-model='grid@best'] svg")).to_be_hidden()
    total, each = fact(page, "champion", "time").inner_text().split(" ms")[:2]
    assert float(each.strip(", ")) == pytest.approx(float(total) / 2, abs=0.51)
    models = page.get_by_role("group", name="Models")
    expect(models).to_contain_text("grid/2 grid/3 does not load: its weights were altered")
    expect(models).to_contain_text("lost/1 not loaded: its weights were altered")
    expect(page.get_by_role("checkbox", name="lost/1")).to_be_disabled()
    page.get_by_label("Quality").select_option("1nn_accuracy")
    expect(fact(page, "champion", "quality")).to_have_text("1nn_accuracy 0.750")


def test_quality_is_not_shown_of_a_version_that_did_not_answer(page: Page, url: str) -> None:
    def older(route: Route) -> None:
        models = route.fetch().json()
        models["data"][0]["version"] = "digits/0"
        route.fulfill(json=models)

    page.route("**/v1/models", older)
    page.goto(f"{url}/#n=2&model=champion")
    expect(fact(page, "champion", "version")).to_have_text("digits/1 (MeanFlow)")
    expect(fact(page, "champion", "quality")).to_have_text("not known of this version")
    expect(fact(page, "champion", "lineage")).to_be_hidden()
    expect(page.locator("[data-model=champion] svg")).to_be_hidden()


def test_the_slider_changes_the_steps_to_the_nearest_that_a_model_allows(
    watched: Watched, page: Page, url: str
) -> None:
    page.goto(f"{url}/#n=2&model=champion&model=grid%40best")
    sources(page, "grid@best", n=2)
    slider = page.get_by_role("slider", name="Steps")
    slider.focus()
    watched.bodies.clear()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "3 steps")
    expect(fact(page, "champion", "steps")).to_have_text("3")
    expect(fact(page, "grid@best", "steps")).to_have_text(
        "2, the nearest to 3 that it allows (1, 2, 4)"
    )
    expect(fact(page, "champion", "quality")).to_have_text(
        "1nn_deviation not measured at 3 steps, only at 1, 4"
    )
    expect(page.locator("[data-model=champion] circle")).to_be_hidden()
    shown = sources(page, "champion", n=2)
    three = from_server(url, model="champion", n=2, seed=0, labels=[0, 1], steps=3)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(shown, three, strict=True))
    # Both presses were one change; neither model was asked for the steps in between.
    assert [body["steps"] for body in watched.bodies] == [3, 2]


def test_the_page_is_used_by_the_keyboard_alone(watched: Watched, page: Page, url: str) -> None:
    page.goto(f"{url}/#n=2&model=champion")
    sources(page, "champion", n=2)
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(10):
        page.keyboard.press("Tab")
        name, value = page.evaluate("[document.activeElement.name, document.activeElement.value]")
        reached += [name] if name not in reached else []
        match name, value:
            case "model", "digits/1":
                page.keyboard.press("Space")
            case "steps", _:
                page.keyboard.press("ArrowRight")
                # Or it would be asked for with the half of what is typed next.
                expect(fact(page, "digits/1", "steps")).to_have_text("2")
            case "labels", _:
                page.keyboard.type("two, 3")
            case "seed", _:
                page.keyboard.press("Control+A")
                page.keyboard.type("41")
                page.keyboard.press("Enter")
                break
    assert reached[-4:] == ["model", "steps", "labels", "seed"]
    expect(page.get_by_role("status")).to_have_text("Seed 41: all from the same noise.")
    expect(fact(page, "digits/1", "steps")).to_have_text("2")
    assert watched.bodies[-1] == {
        "model": "digits/1",
        "n": 2,
        "seed": 41,
        "steps": 2,
        "labels": ["two", 3],
        "format": "grid",
    }


def test_every_control_has_a_name(page: Page, url: str) -> None:
    page.goto(f"{url}/#n=2")
    sources(page, "champion", n=2)
    # Models that are drawn later bring links of their own.
    expect(page.locator("[data-model][aria-busy=true]")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    for role in ("checkbox", "slider", "textbox", "spinbutton", "combobox", "button", "link"):
        # A name that is not exact is one that holds it, which every name does.
        bare = page.get_by_role(role, include_hidden=True, name="", exact=True)  # type: ignore[arg-type]
        assert bare.count() == 0, role
    pictures = page.locator("[data-model=champion] img").all()
    assert [picture.get_attribute("alt") for picture in pictures] == [
        "champion: image 0, class zero",
        "champion: image 1, class one",
    ]
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('input, select')]"
        ".filter(one => !one.labels.length).map(one => one.name)"
    )
    assert unlabelled == []


def test_downloads_are_the_files_of_the_server(page: Page, url: str) -> None:
    page.goto(f"{url}/#n=3&seed=5&model=champion&labels=2")
    shown = sources(page, "champion", n=3)
    body = {"model": "champion", "n": 3, "seed": 5, "labels": 2}

    def saved(act: Callable[[], None]) -> tuple[str, bytes]:
        with page.expect_download() as found:
            act()
        return found.value.suggested_filename, found.value.path().read_bytes()

    grid = saved(page.get_by_role("link", name="champion: grid PNG").click)
    assert grid == ("digits-1_seed5_steps1.png", generate(url, format="grid", **body))
    array = saved(page.get_by_role("button", name="champion: npy").click)
    assert array == ("digits-1_seed5_steps1.npy", generate(url, format="npy", **body))
    one = saved(page.get_by_role("link", name="champion: image 2, class two").click)
    assert one == ("digits-1_seed5_steps1_image2.png", base64.b64decode(shown[2].split(",")[1]))


def test_a_refusal_stands_beside_its_model_and_the_others_go_on(watched: Watched, url: str) -> None:
    page = watched.page
    page.goto(f"{url}/#n=2&labels=9&model=champion&model=wide%2F1")
    expect(page.locator("[data-model=champion] .error")).to_have_text(
        "labels must be a class label, got 9; allowed: 0..3 or zero, one, two, three"
    )
    sources(page, "wide/1", n=2)
    assert page.locator("[data-model=champion] img").count() == 0
    expect(page.get_by_role("status")).to_contain_text("Refused: champion.")
    page.get_by_label("Classes").fill("3")
    page.get_by_label("Classes").press("Enter")
    sources(page, "champion", n=2)
    expect(page.locator("[data-model=champion] .error")).to_be_hidden()


def test_an_answer_that_is_no_json_is_told_by_its_status(watched: Watched, url: str) -> None:
    page = watched.page
    page.route("**/v1/generate", lambda route: route.fulfill(status=502, body="<h1>Bad</h1>"))
    page.goto(f"{url}/#model=champion")
    expect(page.locator("[data-model=champion] .error")).to_have_text("the server answered 502")
    page.route("**/v1/models", lambda route: route.fulfill(status=200, body="<h1>Welcome</h1>"))
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_have_text("the server answered with no list of models")


def test_guidance_is_asked_for_and_sent_where_a_model_takes_it(
    watched: Watched, page: Page, url: str
) -> None:
    page.goto(f"{url}/#n=2&model=champion")
    sources(page, "champion", n=2)
    expect(page.get_by_label("Guidance")).to_be_hidden()
    page.get_by_role("checkbox", name="guided/1").check()
    expect(fact(page, "guided/1", "guidance")).to_have_text("2")
    expect(fact(page, "champion", "guidance")).to_be_hidden()
    watched.bodies.clear()
    page.get_by_label("Guidance").fill("3.5")
    page.get_by_label("Guidance").press("Enter")
    expect(fact(page, "guided/1", "guidance")).to_have_text("3.5")
    assert [body.get("guidance") for body in watched.bodies] == [None, 3.5]


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(page: Page, url: str) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if json.loads(route.request.post_data or "{}")["seed"] == 1:
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/generate", hold)
    page.goto(f"{url}/#n=2&seed=1&model=champion")
    expect(page.locator("[data-model=champion][aria-busy=true]")).to_be_attached()
    page.get_by_label("Seed", exact=True).fill("2")
    page.get_by_label("Seed", exact=True).press("Enter")
    newer = sources(page, "champion", n=2)
    with contextlib.suppress(Error):  # the page has given it up
        held[0].continue_()
    page.wait_for_timeout(300)
    assert sources(page, "champion", n=2) == newer
    expect(page.get_by_role("status")).to_have_text("Seed 2: all from the same noise.")


def test_the_address_holds_the_choice(page: Page, url: str, browser: Browser) -> None:
    page.goto(f"{url}/#model=gone%2F1&model=digits%2F1&n=2&steps=4&metric=eval/1nn_accuracy")
    expect(fact(page, "digits/1", "steps")).to_have_text("4")
    expect(page.get_by_role("group", name="Models")).to_contain_text("gone/1 not served here")
    page.get_by_role("button", name="New seed").click()
    expect(page.get_by_role("status")).not_to_have_text("Seed 0: all from the same noise.")
    page.get_by_label("Classes").fill("one")
    page.get_by_label("Classes").press("Enter")
    expect(page.locator("li", has_text="one")).to_have_count(2)
    shown = sources(page, "digits/1", n=2)
    other = browser.new_page()
    other.goto(page.url)
    assert sources(other, "digits/1", n=2) == shown
    expect(other.locator("article")).to_have_count(1)
    expect(other.get_by_label("Quality")).to_have_value("eval/1nn_accuracy")
    other.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_does_not_scroll_and_images_are_whole_multiples(
    page: Page, url: str, scheme: Literal["light", "dark"]
) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{url}/#n=9")
    sources(page, "wide/1", n=9)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    scales = page.evaluate("[...document.images].map(one => one.width / one.naturalWidth)")
    assert set(scales) == {12, 24}
    assert page.locator("img").first.evaluate("one => getComputedStyle(one).imageRendering") == (
        "pixelated"
    )
    places = page.evaluate(
        "[...document.querySelectorAll('ol')].map(list => "
        "[...list.children].map(item => item.getBoundingClientRect().x).join())"
    )
    assert len(places) == 4
    assert len(set(places)) == 1  # image k lies under image k
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        corner = picture.convert("L").getpixel((2, 2))
    assert isinstance(corner, int)
    assert corner < 64 if scheme == "dark" else corner > 192


def test_inline_code_does_not_run(watched: Watched, url: str) -> None:
    page = watched.page
    page.goto(f"{url}/#n=2&model=champion")
    sources(page, "champion", n=2)
    assert watched.complaints == []
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'document.title = 1'}))"
    )
    assert page.title() == "onestep"
    assert "Content Security Policy" in watched.complaints[-1]


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Browser, tmp_path: Path) -> None:
    context, path = browser.new_context(), tmp_path / "keys.yaml"
    right = add_key(path, "ada")
    with served(replace(OPEN, keys=str(path))) as url:
        page = context.new_page()
        page.goto(f"{url}/#n=2&model=champion")
        field = page.get_by_label("API key")
        expect(field).to_be_focused()
        expect(page.get_by_role("status")).to_contain_text("a valid key must be sent")
        for key in ("wrong", right):
            field.fill(key)
            field.press("Enter")
        sources(page, "champion", n=2)
        expect(field).to_be_hidden()
        page.reload()
        sources(page, "champion", n=2)
        other = context.new_page()
        other.goto(url)
        expect(other.get_by_label("API key")).to_be_visible()
    context.close()


def test_the_page_of_the_api_is_drawn(page: Page, url: str) -> None:
    page.goto(f"{url}/docs")
    expect(page.get_by_role("heading", name="POST /v1/generate")).to_be_visible()
    expect(page.get_by_role("heading", name="GenerateRequest")).to_be_visible()
