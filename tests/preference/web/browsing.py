"""People at the page in a real browser."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


def see(page: "Page", text: str) -> None:
    """Wait until `text` is shown; the plain form beside the formatted one makes it be there twice."""
    page.get_by_text(text, exact=True).first.wait_for()


class Visit:
    """One person's browser window, with what it complained about and whom it called."""

    def __init__(self, browser: "Browser", link: str, **options: object) -> None:
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.called: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.called.append(request.url))
        self.page.goto(link)
        if self.page.get_by_role("button", name="Start").count():
            self.page.get_by_role("button", name="Start").click()

    def press(self, key: str, *, then: str) -> None:
        """Press a key, and wait until the page shows `then`."""
        self.page.wait_for_timeout(300)  # the same key again at once is taken for one held down
        self.page.keyboard.press(key)
        see(self.page, then)

    def click(self, name: str, *, then: str) -> None:
        self.page.get_by_role("button", name=re.compile(f"^{name}")).click()
        see(self.page, then)
