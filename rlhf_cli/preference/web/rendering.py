"""Text of unknown origin as HTML: Markdown for reading, plain for looking closely. Nothing in it acts or loads."""

from collections.abc import Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

from rlhf_cli.preference.inert import inert

MAX_MARKDOWN_CHARACTERS = 50_000

_TAGS = set(
    "p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s hr br table thead tbody tr th td".split()
)


def plain(text: str) -> Markup:
    """Return `text` as it stands, escaped, its control characters visible."""
    return escape(inert(text))


def markdown(text: str) -> Markup:
    """Return `text` read as Markdown: HTML in it is escaped, a link is text, an image is not loaded.

    What Markdown would hide (a cell too many, the 21st level of a list) or takes too long (over
    MAX_MARKDOWN_CHARACTERS) comes back as `plain` in a block: whoever judges must see every word.
    """
    shown = inert(text)
    if len(text) <= MAX_MARKDOWN_CHARACTERS:
        html = Markup(nh3.clean(_MARKDOWN.render(shown), tags=_TAGS, attributes={"ol": {"start"}}))
        if _num_letters(html.striptags()) == _num_letters(shown):
            return html
    return Markup("<pre>{}</pre>").format(escape(shown))


def _num_letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _fence(_: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """Render a code block with the word behind its backticks, usually the language, above it."""
    token = tokens[index]
    label = Markup("<em>{}</em>").format(token.info.strip()) if token.info.strip() else ""
    return Markup("<pre>{}<code>{}</code></pre>\n").format(label, token.content)


# Links, images and entities stay the characters that were written: they are to be judged, not followed.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "entity", "reference", "html_block", "html_inline"])
)
_MARKDOWN.add_render_rule("fence", _fence)
