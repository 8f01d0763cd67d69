"""What the page says: to eyes and to screen readers, of names and of keys on all keyboards."""

import json

import pytest

pytestmark = pytest.mark.browser

HEAD = (225, 90)


def press_as(driver, **event):
    """A key as another keyboard gives it."""
    driver.page.evaluate(
        """given => document.activeElement.dispatchEvent(
            new KeyboardEvent('keydown', {bubbles: true, cancelable: true, ...given}))""",
        event,
    )


def test_what_cannot_be_done_is_said_on_the_screen(driver):
    driver.press("b")
    driver.drag((100, 100), (150, 101))
    driver.message("That box is too small.")
    driver.press("9")
    driver.message("There is no class 9.")
    driver.press("c")
    driver.message("Select an object first.")
    driver.press("l")
    driver.click(100, 100)
    driver.press("Enter")
    driver.message("An outline needs at least three corners.")


def test_the_crosshair_says_where_it_rests_and_what_is_there(driver):
    driver.page.locator("#surface").focus()
    driver.press("ArrowUp")
    live = driver.page.locator("#live")
    driver.eventually(live.inner_text, "256, 256")
    driver.click(*HEAD)
    driver.answer()
    x, y = driver.pixel_of_mask()
    driver.evaluate("const {emit} = await at('state'); app.cursor = given; emit('cursor')", [x, y])
    driver.eventually(live.inner_text, f"{x}, {y}, in the mask")
    driver.press("Enter")
    driver.saved(1)
    driver.evaluate("const {emit} = await at('state'); app.cursor = given; emit('cursor')", [x, y])
    driver.eventually(live.inner_text, f"{x}, {y}, Object 1")


def test_keys_act_on_keyboards_of_other_scripts(driver):
    driver.page.locator("#surface").focus()
    press_as(driver, key="и", code="KeyB")
    assert driver.evaluate("return app.tool") == "box"
    press_as(driver, key="в", code="KeyD")
    assert driver.evaluate("return app.tool") == "brush"
    before = driver.evaluate("return app.brush.radius")
    press_as(driver, key="]", code="Digit9", ctrlKey=True, altKey=True, modifierAltGraph=True)  # Windows, German
    press_as(driver, key="]", code="Digit6", altKey=True)  # macOS, German
    press_as(driver, key="ъ", code="BracketRight")
    assert driver.evaluate("return app.brush.radius") > before * 1.9
    driver.press("p")
    driver.click(*HEAD)
    assert driver.answer()
    press_as(driver, key="я", code="KeyZ", ctrlKey=True)
    assert driver.answer() is None
    press_as(driver, key="Я", code="KeyZ", ctrlKey=True, shiftKey=True)
    assert driver.answer()
    driver.evaluate("window.dispatchEvent(new KeyboardEvent('keydown', {key: 'b', code: 'KeyB'}))")
    assert driver.evaluate("return app.tool") == "box"


def test_names_without_control_characters_alone_are_taken(driver, classes):
    driver.open()
    page = driver.page
    page.locator("[data-action=editClasses]").click()
    name = page.get_by_label("New class")
    name.fill("rid\u202enam")
    name.press("Enter")
    assert name.evaluate("input => input.validationMessage") == "The name contains a control character."
    name.fill("روبوت")
    name.press("Enter")
    driver.eventually(lambda: list(driver.app.classes()), [*classes, "روبوت"])
    page.get_by_label("Name of class 1").fill("a\u202eb")
    page.get_by_label("Name of class 1").press("Tab")
    driver.message("The name contains a control character.")
    assert page.get_by_label("Name of class 1").input_value() == classes[0]
    assert list(driver.app.classes()) == [*classes, "روبوت"]


def test_a_long_class_leaves_the_panel_as_wide_as_it_is(app, driver):
    listed = [{"name": "a class with a name that is far too long for the side panel", "colour": "#1ec8b7"}]
    app.send("PUT", "/api/classes", {"revision": app.get("/api/session")["classes_revision"], "classes": listed})
    driver.open()
    driver.press("1")
    driver.click(*HEAD)
    driver.answer()
    driver.press("Enter")
    driver.saved(1)
    right = driver.page.evaluate("""() => Math.max(...[...document.querySelectorAll('.side *')]
        .map((element) => element.getBoundingClientRect().right))""")
    assert right <= 1200


def test_an_export_says_how_many_photos_failed(driver):
    answer = {"files": [], "count": 0, "failed": {f"{number}.jpg": "it is gone" for number in range(69)}}
    driver.page.route("**/api/export", lambda route: route.fulfill(json=answer))
    driver.press("Control+e")
    driver.page.locator("#export-run").click()
    result = driver.page.locator("#export-result")
    result.get_by_text("69 photos could not be exported:").wait_for()
    assert result.locator("li").count() == 21
    assert result.locator("li").last.inner_text() == "and 49 more"


def test_enter_in_the_settings_finds_everything(driver):
    asked = []
    lines = [{"config": {}}, {"done": True, "count": 0, "config": {}}]
    driver.page.route(
        "**/segment/everything",
        lambda route: (
            asked.append(route.request.post_data_json["config"]),
            route.fulfill(content_type="application/x-ndjson", body="".join(json.dumps(line) + "\n" for line in lines)),
        ),
    )
    driver.evaluate("const {openSettings} = await at('dialogs'); openSettings()")
    field = driver.page.get_by_label("Points per side")
    field.fill("7")
    field.press("Enter")
    driver.message("Nothing was found")
    assert asked == [{"points_per_side": 7}]
    assert not driver.page.locator("#settings-dialog").is_visible()


def test_the_tools_are_a_group_and_hiding_changes_one_thing(driver):
    assert driver.page.get_by_role("group", name="Tools").count() == 1
    driver.click(*HEAD)
    driver.answer()
    driver.press("Enter")
    driver.saved(1)
    driver.page.get_by_role("button", name="Hide Object 1").click()
    shown = driver.page.get_by_role("button", name="Show Object 1")
    shown.wait_for()
    assert shown.get_attribute("aria-pressed") is None
