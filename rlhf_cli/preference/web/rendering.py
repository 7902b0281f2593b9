"""Text of unknown origin as HTML: Markdown for reading, plain for looking closely. Nothing in it acts or loads."""

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from rlhf_cli.preference.inert import inert

MAX_MARKDOWN_CHARACTERS = 50_000

# Links and images stay the characters that were written: an address is to be judged, not followed.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "reference", "html_block", "html_inline"])
)
_TAGS = set(
    "p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s hr br table thead tbody tr th td".split()
)


def plain(text: str) -> Markup:
    """Return `text` as it stands, escaped, its control characters visible."""
    return escape(inert(text))


def markdown(text: str) -> Markup:
    """Return `text` read as Markdown: HTML in it is escaped, a link is text, an image is not loaded.

    What is longer than MAX_MARKDOWN_CHARACTERS comes back as `plain` in a code block.
    """
    if len(text) > MAX_MARKDOWN_CHARACTERS:
        return Markup("<pre>{}</pre>").format(plain(text))
    return Markup(nh3.clean(_MARKDOWN.render(inert(text)), tags=_TAGS, attributes={"ol": {"start"}}))
