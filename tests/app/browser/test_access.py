"""The page by keyboard, by touch, in light and dark, for screen readers, and how fast it answers."""

import statistics
import sys

import pytest

pytestmark = pytest.mark.browser

HEAD = (225, 90)
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
DIALOGS = ("help-dialog", "export-dialog", "classes-dialog", "settings-dialog")


def test_an_object_is_made_by_keyboard_alone(app, photo, opened, classes):
    driver = opened(app, photo)
    page = driver.page
    for _ in range(60):
        driver.press("Tab")
        if page.evaluate("document.activeElement.id") == "surface":
            break
    else:
        pytest.fail("the photo is not reached by Tab")
    driver.press("ArrowUp")  # shows the crosshair in the middle
    for key in ["Control+ArrowUp"] * 3 + ["ArrowLeft"] * 3 + ["Shift+ArrowLeft"] * 2:
        driver.press(key)
    crosshair = driver.evaluate("return app.cursor")
    assert abs(crosshair[0] - 230) < 25
    assert page.locator("#position").inner_text() == f"{crosshair[0]}, {crosshair[1]}"
    driver.press("Space")
    assert driver.answer()["steps"][0]["points"] == [[*crosshair, 1]]
    for key in ["Control+ArrowRight"] * 2:
        driver.press(key)
    beside = driver.evaluate("return app.cursor")
    driver.press("Shift+Space")
    assert driver.answer()["steps"][-1]["points"][-1] == [*beside, 0]
    driver.press("1", "Enter")
    (saved,) = driver.saved(1)
    assert saved["class"] == "person"
    assert page.locator("#live").inner_text().startswith("Object 1 saved as person")


def test_boxes_lassos_and_strokes_are_drawn_by_keyboard(driver):
    driver.page.locator("#surface").focus()
    driver.press("b", "ArrowUp", "Space", "Control+ArrowRight", "Control+ArrowDown", "Space")
    (step,) = driver.answer()["steps"]
    assert step["box"][2] - step["box"][0] > 20
    driver.press("Escape", "l", "Space", "Control+ArrowUp", "Space", "Control+ArrowLeft", "Space", "Enter")
    (step,) = driver.answer()["steps"]
    assert len(step["mask"]["outlines"][0]) == 3
    driver.press("Escape", "d", "Space", "Control+ArrowDown", "Control+ArrowDown", "Space")
    (step,) = driver.answer()["steps"]
    assert len(step["mask"]["strokes"][0]["points"]) > 2


def test_keys_do_not_act_while_a_name_is_typed(driver):
    driver.press("b")
    driver.drag((150, 10), (300, 210))
    driver.settle()
    driver.press("Enter")
    driver.saved(1)
    driver.press("v")
    driver.click(*HEAD)
    driver.press("n")
    driver.page.keyboard.type("plbdve 12")
    driver.press("Enter")
    assert driver.saved(1)[0]["name"] == "plbdve 12"
    assert driver.evaluate("return app.tool") == "select"


def test_keys_of_one_character_can_be_confined_to_the_photo(driver):
    driver.press("?")
    driver.page.locator("#single-keys").uncheck()
    driver.press("Escape")
    driver.page.locator("#export").focus()
    driver.press("b")
    assert driver.evaluate("return app.tool") == "point"
    driver.page.locator("#surface").focus()
    driver.press("b")
    assert driver.evaluate("return app.tool") == "box"


def test_a_phone_makes_an_object_by_touch(app, photo, opened):
    driver = opened(app, photo, **PHONE)
    page = driver.page
    page.touchscreen.tap(*driver.place(*HEAD))
    assert driver.answer()["of"] == 3
    assert driver.is_painted(*HEAD)
    page.get_by_role("button", name="Background").tap()
    page.touchscreen.tap(*driver.place(335, 60))
    assert driver.answer()["steps"][-1]["points"][-1] == [335, 60, 0]
    page.get_by_role("button", name="Accept").tap()
    driver.saved(1)
    page.locator("#tab-objects").tap()
    row = page.locator("#objects").get_by_role("button", name="Object 1").first
    row.wait_for()
    row.tap()
    page.get_by_role("button", name="Correct").wait_for()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "nothing is wider than the phone"


def test_what_is_touched_is_large_enough(app, photo, opened):
    driver = opened(app, photo, **PHONE)
    driver.page.touchscreen.tap(*driver.place(*HEAD))
    driver.answer()
    for tab in ("#tab-objects", "#tab-photos"):
        driver.page.locator(tab).tap()
        small = driver.page.evaluate("""() => [...document.querySelectorAll('button, select, input, [role=tab]')]
            .filter((element) => element.checkVisibility() && element.getClientRects().length)
            .map((element) => [element.outerHTML.slice(0, 80), element.getBoundingClientRect()])
            .filter(([, box]) => box.width && (box.width < 43.9 || box.height < 43.9)).map(([html, box]) =>
                `${html} ${box.width} x ${box.height}`)""")
        assert small == []


def test_a_phones_photo_stays_where_it_is_when_a_mask_comes(app, photo, opened):
    driver = opened(app, photo, **PHONE)
    before = driver.place(256, 256)
    driver.page.touchscreen.tap(*driver.place(*HEAD))
    driver.answer()
    assert driver.place(256, 256) == before
    assert driver.page.locator("#draft").is_visible()


def test_a_low_window_has_room_for_photo_and_panel(app, photo, opened):
    driver = opened(app, photo, viewport={"width": 700, "height": 450})
    page = driver.page
    driver.click(*HEAD)
    driver.answer()
    driver.press("Enter")
    driver.saved(1)
    driver.press("v")
    driver.click(*HEAD)
    for _ in range(2):
        driver.press("n")
        assert page.get_by_label("Name", exact=True).is_visible(), "the sheet is open, and stays so"
        driver.press("Escape")
    seen = page.locator("#surface").bounding_box()
    assert seen["height"] > 200
    assert seen["width"] > 300


def test_two_fingers_zoom_and_move_the_photo(app, photo, opened):
    driver = opened(app, photo, **PHONE)
    before = driver.evaluate("const {camera} = await at('camera'); return camera.scale")
    session = driver.page.context.new_cdp_session(driver.page)
    x, y = driver.place(256, 256)

    def touch(kind, *points):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    touch("touchStart", (x - 30, y), (x + 30, y))
    for step in range(1, 7):
        touch("touchMove", (x - 30 - 10 * step, y), (x + 30 + 10 * step, y))
    touch("touchEnd")
    after = driver.evaluate("const {camera} = await at('camera'); return camera.scale")
    assert after / before == pytest.approx(3, rel=0.1)
    assert driver.place(256, 256) == pytest.approx((x, y), abs=6)
    assert driver.answer() is None, "a pinch is no click"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_to_object_to(app, photo, opened, classes, scheme, options):
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    axe = axe_playwright.Axe()
    driver = opened(app, photo, color_scheme=scheme, bypass_csp=True, **options)
    page = driver.page

    def check(what):
        found = axe.run(
            page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        )
        assert found.response["violations"] == [], f"{what}: {found.generate_report()}"

    driver.press("1")
    driver.click(*HEAD)
    driver.answer()
    check("a mask in progress")
    driver.press("Enter")
    driver.saved(1)
    page.locator("#tab-objects").click()
    driver.press("v")
    driver.click(*HEAD)
    driver.answer()
    check("an object that is selected")
    page.locator("#tab-photos").click()
    page.wait_for_timeout(200)
    check("photos")
    driver.evaluate(
        """const {complain, say} = await at('messages'); say('A note');
        complain('An error', {action: {label: 'Now', run() {}}})"""
    )
    check("messages")
    for dialog in DIALOGS:
        driver.evaluate(
            """const {openExport, openSettings, open} = await at('dialogs');
            ({'export-dialog': openExport, 'settings-dialog': openSettings}[given] ?? (() => open(given)))()""",
            dialog,
        )
        check(dialog)
        page.keyboard.press("Escape")


def test_every_control_has_a_name_and_every_tool_a_key(driver):
    nameless = driver.page.evaluate("""() => [...document.querySelectorAll('button, input, select, a, [tabindex]')]
        .filter((element) => !element.matches('#files') && !(element.getAttribute('aria-label')
            || element.textContent.trim() || element.labels?.length)).map((element) => element.outerHTML)""")
    assert nameless == []
    for button in driver.page.locator("[data-tool]").all():
        title = button.get_attribute("title")
        key = title.rpartition("(")[2].rstrip(")")
        driver.page.locator("#surface").focus()
        driver.press(key.lower())
        assert driver.evaluate("return app.tool") == button.get_attribute("data-tool"), title


def test_the_theme_follows_the_system_until_one_is_chosen(app, photo, opened):
    driver = opened(app, photo, color_scheme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = driver.page.evaluate(ground)
    driver.press("t")
    light = driver.page.evaluate(ground)
    assert light != dark
    driver.page.reload()
    driver.ready()
    assert driver.page.evaluate(ground) == light
    driver.press("t")
    assert driver.page.evaluate(ground) == dark


def test_a_click_is_answered_in_the_time_of_the_decoder_and_little_more(driver, capsys):
    def click(x, y):
        driver.press("Escape")
        driver.click(x, y)
        assert driver.answer()
        last = "(({duration, detail}) => ({duration, ...detail}))(performance.getEntriesByName('click').at(-1))"
        return driver.page.evaluate(last)

    quiet = 0  # after its start the server compiles for a while, between clicks
    for number in range(150):
        quiet = quiet + 1 if click(100 + 2 * number, 90)["queued"] < 0.01 else 0
        if quiet == 5:
            break
    clicks = [click(140 + 12 * number, 90 + 15 * number) for number in range(20)]
    total = [measured["duration"] for measured in clicks]
    beyond = [measured["duration"] - 1000 * measured["decode"] for measured in clicks]
    with capsys.disabled():
        print(
            f"\na click is answered after {statistics.median(total):.0f} ms (median), "
            f"{sorted(total)[-2]:.0f} ms (95 of 100); beyond the decoder's time {statistics.median(beyond):.0f} ms and "
            f"{sorted(beyond)[-2]:.0f} ms",
            file=sys.__stderr__,  # which is also seen from several processes
        )
    assert statistics.median(beyond) < 250  # 50 ms are aimed at, on a machine that does nothing else


def test_the_documentation_has_the_table_of_keys(driver, root):
    sections = driver.evaluate("const {KEYS} = await at('keys'); return KEYS.map(({title, keys}) => [title, keys])")
    lines = []
    for title, keys in sections:
        lines.append(f"| **{title}** | |")
        lines += [f"| {' '.join(f'`{name}`' for name in key['shown'])} | {key['what']} |" for key in keys]
    assert "\n".join(lines) in (root / "docs" / "app.md").read_text(encoding="utf-8")
