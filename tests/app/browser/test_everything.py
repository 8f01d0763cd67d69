"""Everything in a photo is found, and what the pointer or the keys choose is kept."""

import re

import pytest

pytestmark = pytest.mark.browser


def use_settings(driver, **settings):
    driver.evaluate("const {setting} = await at('storage'); setting('everything', JSON.stringify(given))", settings)


@pytest.fixture
def found(driver):
    """A page in everything-mode, with few points so that it is quick."""
    use_settings(driver, points_per_side=8, pred_iou_thresh=0.3, stability_score_thresh=0.5)
    driver.page.get_by_role("button", name=re.compile("Everything-mode")).click()
    driver.page.get_by_text(re.compile(r"\d+ masks to choose from")).wait_for(timeout=60_000)
    assert len(masks(driver)) > 5
    return driver


def masks(driver):
    """What is found and not kept: index, area, box."""
    return driver.evaluate("""const {everything} = await at('everything'); const {pathOf} = await at('masks');
        return everything.masks.filter((mask) => !mask.taken).map(({index, area, box}) => ({index, area, box}))""")


def hovered(driver):
    return driver.evaluate("const {everything} = await at('everything'); return everything.hovered?.index ?? null")


def inner(driver, index):
    """A pixel at which mask `index` is the smallest."""
    return driver.evaluate(
        """const {everything} = await at('everything'); const {smallestAt} = await at('masks');
        const open = everything.masks.filter((mask) => !mask.taken);
        const [x0, y0, x1, y1] = open.find((mask) => mask.index === given).box.map(Math.round);
        for (let y = y0; y < y1; y += 2) for (let x = x0; x < x1; x += 2)
            if (smallestAt(open, [x, y])?.index === given) return [x, y];
        return null""",
        index,
    )


def test_the_mask_below_the_pointer_is_highlighted_and_kept_by_a_click(found):
    first = masks(found)[0]
    place = inner(found, first["index"])
    before = found.paint(*place)
    found.page.mouse.move(*found.place(*place))
    assert hovered(found) == first["index"]
    assert found.paint(*place)[3] > before[3]
    found.click(*place)
    (saved,) = found.saved(1)
    assert (saved["source"], saved["area"], saved["box"]) == ("everything", first["area"], first["box"])
    assert first["index"] not in [mask["index"] for mask in masks(found)]
    found.press("Control+z")
    found.saved(0)
    assert first["index"] in [mask["index"] for mask in masks(found)]


def test_keys_go_through_the_masks_and_keep_several(found):
    found.page.locator("#surface").focus()
    kept = []
    for _ in range(3):
        found.press("j")
        kept.append(hovered(found))
        found.press("Enter")
    assert len(set(kept)) == 3
    assert len(found.saved(3)) == 3


def test_all_masks_are_kept_at_once_and_undone_at_once(found):
    count = len(masks(found))
    found.page.get_by_role("button", name="Accept all").click()
    found.saved(count)
    assert masks(found) == []
    found.press("Control+z")
    found.saved(0)
    assert len(masks(found)) == count


def test_masks_that_are_kept_are_not_offered_again(found):
    before = len(masks(found))
    found.click(*inner(found, masks(found)[0]["index"]))
    found.saved(1)
    count = len(masks(found))
    assert count == before - 1
    found.press("e")
    assert masks(found) == []
    found.press("e")
    found.page.get_by_text(f"{count} masks to choose from").wait_for(timeout=60_000)


def test_kept_masks_are_corrected_by_clicks(found):
    inside = inner(found, masks(found)[0]["index"])
    found.click(*inside)
    (kept,) = found.saved(1)
    found.press("Escape", "v")
    found.page.locator("#objects button.name").click()
    found.press("c")
    found.page.locator("#draft").wait_for()
    assert found.is_painted(*inside), "the mask as it is, until there is another"
    place = [int((kept["box"][0] + kept["box"][2]) / 2), int((kept["box"][1] + kept["box"][3]) / 2)]
    found.click(*place)
    (step,) = found.answer()["steps"]
    assert step["points"] == [[*place, 1]]
    assert step["mask"]["rle"]["size"] == [512, 512]
    found.press("Enter")
    (saved,) = found.saved(1)
    assert saved["source"] == "prompts"
    found.press("Control+z")
    assert found.saved(1)[0]["id"] == kept["id"]


def test_a_search_shows_its_progress_and_can_be_stopped(driver):
    use_settings(driver, points_per_side=64)
    driver.press("e")
    progress = driver.page.get_by_role("progressbar", name="Finding everything")
    progress.wait_for()
    for _ in range(100):
        driver.page.wait_for_timeout(100)
        if (share := float(progress.get_attribute("value"))) > 0:
            break
    assert 0 < share < 1
    driver.page.get_by_role("button", name="Stop").click()
    progress.wait_for(state="detached")
    driver.click(225, 90)
    assert driver.answer()["of"] == 3


def test_settings_are_checked_and_used(driver):
    asked = []
    driver.page.on(
        "request",
        lambda request: "everything" in request.url and request.post_data and asked.append(request.post_data_json),
    )
    driver.evaluate("const {openSettings} = await at('dialogs'); openSettings()")
    driver.page.get_by_label("Points per side").fill("0")
    driver.page.get_by_role("button", name="Find everything").click()
    assert driver.page.locator("#settings-dialog").evaluate("dialog => dialog.open")
    driver.page.get_by_label("Points per side").fill("4")
    driver.page.get_by_role("button", name="Find everything").click()
    driver.page.get_by_text(re.compile("to choose from")).wait_for(timeout=60_000)
    assert asked[-1]["config"] == {"points_per_side": 4}


def test_a_mask_can_be_kept_before_the_last_is_there(driver):
    use_settings(driver, points_per_side=8, pred_iou_thresh=0.3, stability_score_thresh=0.5)
    driver.evaluate("""const real = window.fetch; window.fetch = async (path, ...rest) => {
        const answer = await real(path, ...rest);
        if (!path.includes("everything")) return answer;
        const lines = (await answer.text()).trim().split("\\n"), text = new TextEncoder();
        return new Response(new ReadableStream({ async start(to) {
            to.enqueue(text.encode(`${lines.slice(0, -1).join("\\n")}\\n`));
            await new Promise((release) => (window.release = release));
            to.enqueue(text.encode(lines.at(-1))); to.close(); } })); }""")
    driver.press("e")
    driver.eventually(lambda: len(masks(driver)) > 5, True)
    first = masks(driver)[0]
    driver.click(*inner(driver, first["index"]))
    (saved,) = driver.saved(1)
    assert (saved["source"], saved["area"]) == ("everything", first["area"])
    driver.page.evaluate("window.release()")
    driver.page.get_by_text(re.compile(r"\d+ masks to choose from")).wait_for()
