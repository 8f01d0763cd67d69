"""The pointer over photos with many objects, at high zoom, and with the brush."""

import pytest

pytestmark = pytest.mark.browser

HEAD = (225, 90)
MANY = 300


def show_many(driver):
    """Shows objects that the server does not have: 300 outlines of 400 corners, in rows."""
    driver.evaluate(
        """const {emit} = await at('state'); work.objects = Array.from({length: given}, (_, index) => {
            const [x, y] = [12 + 25 * (index % 20), 12 + 33 * Math.floor(index / 20)];
            const ring = Array.from({length: 400}, (_, corner) => { const angle = corner * Math.PI / 200;
                const radius = 9 + Math.sin(angle * 9);
                return [x + radius * Math.cos(angle), y + radius * Math.sin(angle)]; });
            return {id: `many${index}`, name: '', class: null, colour: null, hidden: false, deleted: false, score: 0.9,
                source: 'prompts', area: 250, box: [x - 10, y - 10, x + 10, y + 10], polygons: [[ring]], clicks: 1,
                number: index + 1}; }); emit('work')""",
        MANY,
    )
    driver.settle()


def test_pointer_and_selection_stay_fluid_over_hundreds_of_objects(driver):
    driver.press("v")
    show_many(driver)
    fills = driver.evaluate(
        """const {emit} = await at('state'); const {drawn} = await at('view'); const {select} = await at('tools');
        let fills = 0; const fill = CanvasRenderingContext2D.prototype.fill;
        CanvasRenderingContext2D.prototype.fill = function (...given) { fills++; return fill.apply(this, given); };
        const counted = async (act) => { fills = 0; act(); await drawn(); return fills; };
        return [await counted(() => emit('shape')), await counted(() => { app.hovered = 'many7'; emit('hover'); })]"""
    )
    assert fills[0] == 0, "a pointer that moves draws no mask again"
    assert fills[1] < 5, "only what the pointer is at is drawn"
    assert driver.is_painted(12, 12)
    assert driver.paint(187, 12)[3] > driver.paint(212, 12)[3], "it stands out"
    kept = driver.evaluate(
        """const rows = [...document.querySelectorAll('#objects li')]; const {select} = await at('tools');
        select('many3'); await new Promise(requestAnimationFrame);
        const after = [...document.querySelectorAll('#objects li')];
        return [after[3].classList.contains('selected'), after.filter((row) => rows.includes(row)).length]"""
    )
    assert kept == [True, MANY - 1], "of the list only the selected row is made anew"
    driver.evaluate(
        """const {emit} = await at('state'); work.objects[0].hidden = true;
        work.objects = [...work.objects]; emit('work')"""
    )
    assert not driver.is_painted(12, 12)
    driver.evaluate("const {zoomTo} = await at('camera'); zoomTo(4)")
    driver.page.wait_for_timeout(300)
    assert driver.is_painted(237, 243)


def test_the_brush_is_sized_by_its_slider_and_paints_dots(driver):
    driver.press("d")
    slider = driver.page.get_by_label("Brush radius")
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    driver.page.mouse.move(box["x"] + 14, y)
    driver.page.mouse.down()
    sizes = []
    for share in (0.3, 0.5, 0.7):
        driver.page.mouse.move(box["x"] + share * box["width"], y, steps=3)
        sizes.append(driver.evaluate("return app.brush.radius"))
    driver.page.mouse.up()
    assert sizes == sorted(set(sizes))
    assert sizes[-1] > 120
    driver.page.get_by_text(f"{sizes[-1]} px").wait_for()
    slider.focus()
    photo = driver.evaluate("return app.photoId")
    driver.press("PageDown")
    assert driver.evaluate("return [app.photoId, app.brush.radius < given]", sizes[-1]) == [photo, True]
    driver.evaluate("app.brush.radius = 15")
    driver.click(*HEAD)
    (step,) = driver.answer()["steps"]
    assert len(step["mask"]["strokes"][0]["points"]) == 1
    driver.page.mouse.move(*driver.place(400, 400))
    assert driver.evaluate("const {shape} = await at('tools'); return shape.current") is None


def test_a_pointer_that_trembles_within_a_pixel_gets_its_preview(driver):
    driver.evaluate("const {zoomTo} = await at('camera'); zoomTo(40)")
    x, y = driver.place(256, 256)
    driver.page.mouse.move(x - 90, y)
    with driver.page.expect_response(lambda response: "predict" in response.url and response.ok):
        for step in range(20):
            driver.page.mouse.move(x + step % 5, y)
            driver.page.wait_for_timeout(20)


def test_outlines_follow_pixels_where_pixels_are_seen(driver):
    sent = []
    driver.page.on("request", lambda request: "predict" in request.url and sent.append(request.post_data_json))
    driver.press("w")
    driver.click(*HEAD)
    driver.answer()
    assert "tolerance" not in sent[-1]
    driver.evaluate("const {zoomTo} = await at('camera'); zoomTo(8)")
    driver.click(256, 256)
    answer = driver.answer()
    assert sent[-1]["tolerance"] == 0
    longest = driver.evaluate("""const {shownAnswer} = await at('draft');
        return Math.max(...shownAnswer().polygons.flat().flatMap((ring) => ring.map(([x, y], index) => {
            const [a, b] = ring[(index + 1) % ring.length]; return Math.min(Math.abs(x - a), Math.abs(y - b)); })))""")
    assert answer["area"] > 0
    assert longest == 0.5, "a slanted edge cuts the corner of one pixel, and no more"
