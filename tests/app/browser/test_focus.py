"""Where the keys go after what they have done is gone."""

import re

import pytest

pytestmark = pytest.mark.browser


def add_objects(driver, count):
    """Gives the photo small objects without a page."""
    boxes = [(150 + 20 * number, 10, 300, 210) for number in range(count)]
    revision = driver.app.get(f"/api/photos/{driver.photo}")["work"]["revision"]
    objects = [{"steps": [{"box": box, "multimask": False}]} for box in boxes]
    driver.app.send("POST", f"/api/photos/{driver.photo}/objects", {"revision": revision, "objects": objects})
    driver.open()


def focused(driver):
    return driver.page.evaluate(
        "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    )


def test_the_focus_stays_in_the_list_of_objects(driver):
    add_objects(driver, 3)
    page = driver.page
    page.get_by_role("button", name="Delete Object 2").focus()
    driver.press("Enter")
    driver.saved(2)
    assert focused(driver) == "Delete Object 3"
    driver.press("Enter")
    driver.saved(1)
    assert focused(driver) == "Delete Object 1"
    page.get_by_role("button", name=re.compile("^Object 1")).first.focus()
    driver.press("Enter", "n")
    page.keyboard.type("head")
    driver.press("Enter")
    driver.says_saved()
    assert focused(driver).startswith("head")
    page.get_by_role("button", name="Correct").focus()
    driver.press("Enter")
    page.locator("#draft").wait_for()
    assert focused(driver) == "Photo"
    page.locator("#draft").get_by_role("button", name="Cancel").focus()
    driver.press("Enter")
    page.locator("#draft").wait_for(state="hidden")
    assert focused(driver) == "Photo"
    page.get_by_role("button", name="Delete head").focus()
    driver.press("Enter")
    driver.saved(0)
    assert focused(driver) == "Photo"


def test_the_focus_is_the_photos_after_accepting_and_after_a_message(driver):
    page = driver.page
    driver.click(225, 90)
    driver.answer()
    page.get_by_role("button", name="Accept").focus()
    driver.press("Enter")
    driver.saved(1)
    assert focused(driver) == "Photo"
    driver.evaluate("const {complain} = await at('messages'); complain('An error')")
    page.get_by_role("button", name="Dismiss").focus()
    driver.press("Enter")
    assert page.locator(".message").count() == 0
    assert focused(driver) == "Photo"


def test_the_focus_stays_in_the_dialog_of_classes(driver, classes):
    driver.open()
    page = driver.page
    page.locator("[data-action=editClasses]").click()
    page.get_by_role("button", name="Remove rocket").focus()
    driver.press("Enter")
    assert focused(driver) == "Remove person"
    driver.press("Enter")
    assert page.evaluate("document.activeElement.id") == "class-name"
    driver.eventually(driver.app.classes, {})
