"""How the page looks and feels in a real browser: themes, a phone, text that attacks."""

from hostile import HOSTILE
from page_server import MakeServer, Server, wait_until


def test_theme_and_plain_text_by_key_and_click_survive_a_reload(server: Server, visit):
    robin = visit(server.links[0], color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = robin.page.evaluate(ground)
    robin.page.get_by_role("button", name="Change the colours").click()
    dark = robin.page.evaluate(ground)
    with robin.page.expect_response("**/display"):
        robin.page.keyboard.press("m")
    assert robin.page.locator(".answer .raw").first.is_visible()
    robin.page.reload()
    assert dark != light
    assert robin.page.evaluate(ground) == dark
    assert robin.page.locator(".answer .raw").first.is_visible()


def test_a_phone_shows_the_answers_one_below_the_other(server: Server, visit):
    robin = visit(server.links[0], viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    one, two = (robin.page.locator(".answer").nth(i).bounding_box() for i in (0, 1))
    assert one["y"] + one["height"] <= two["y"]
    assert robin.page.evaluate("document.documentElement.scrollWidth") <= 360
    buttons = robin.page.locator(".verdicts button").all()
    assert all(button.bounding_box()["height"] >= 44 for button in buttons)
    assert robin.page.get_by_role("button", name="A is better").bounding_box()["y"] < 740
    robin.page.get_by_text("How much, and why").tap()
    robin.page.locator(".segments span", has_text="much").tap()
    robin.click("A is better", then="Question 2")
    assert next(iter(server.desk.votes.values())).strength == 3


def test_hostile_text_does_nothing(make_server: MakeServer, visit):
    whole = "\n\n".join(HOSTILE)
    server = make_server(
        [(whole, whole, whole), *[(text, text, text) for text in HOSTILE], ("end", "a", "b")]
    )
    robin = visit(server.links[0])
    for number in range(1, len(server.desk.questions)):
        assert robin.page.evaluate("window.hacked === undefined && parent === window")
        assert (
            robin.page.locator(".text :is(a, img, svg, iframe, form, button, input, style, script)").count()
            == 0
        )
        assert robin.page.locator("button[name=winner]").count() == 5
        robin.page.keyboard.press("ab"[number % 2])
        wait_until(lambda count=number: len(server.desk.votes) == count)
        robin.page.wait_for_selector(f'[data-task="{number + 1}"]')
    assert robin.page.url == f"http://127.0.0.1:{server.port}/"
