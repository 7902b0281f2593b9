"""Model text as HTML: readable where it is Markdown, harmless whatever it is."""

import re

import pytest
from hostile import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.preference.web.rendering import MAX_MARKDOWN_CHARACTERS, markdown, plain

TAG = re.compile(r"</?([a-z]+[0-9]?)( start=\"\d+\")?>")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a *b* **c** `d` ~~e~~", "<p>a <em>b</em> <strong>c</strong> <code>d</code> <s>e</s></p>\n"),
        ("one\ntwo", "<p>one<br>\ntwo</p>\n"),
        ("# T\n\n3. x", '<h1>T</h1>\n<ol start="3">\n<li>x</li>\n</ol>\n'),
        ("```python\na < b\n```", "<pre><em>python</em><code>a &lt; b\n</code></pre>\n"),
        (
            "[x](http://h/) <http://h/> ![i](http://h/i)",
            "<p>[x](http://h/) &lt;http://h/&gt; ![i](http://h/i)</p>\n",
        ),
        ("```&copy;\nx\n```", "<pre><em>&amp;copy;</em><code>x\n</code></pre>\n"),
        ("<b>bold</b>", "<p>&lt;b&gt;bold&lt;/b&gt;</p>\n"),
        ("&copy; &lt;", "<p>&amp;copy; &amp;lt;</p>\n"),
        ("red \x1b[31m", "<p>red ␛[31m</p>\n"),
    ],
)
def test_markdown_reads_as(text: str, html: str):
    assert markdown(text) == html


def test_plain_is_what_was_written():
    assert plain("<b> & **c**\n\x07") == "&lt;b&gt; &amp; **c**\n␇"


def test_very_long_text_is_not_parsed():
    assert markdown("*" * (MAX_MARKDOWN_CHARACTERS + 1)).startswith("<pre>****")


@pytest.mark.parametrize(
    "text",
    [
        "> " * 30 + "deep",
        "| a |\n|-|\n| b | hidden |",
        "".join("  " * i + "- x\n" for i in range(30)),
    ],
)
def test_what_markdown_would_hide_is_shown_as_it_stands(text: str):
    assert markdown(text) == f"<pre>{plain(text)}</pre>"


@given(st.text(alphabet="ab &;<>|`~-+#*_[]()!:\n", max_size=80))
def test_every_letter_is_shown(text: str):
    shown = markdown(text).striptags()
    assert sum(map(str.isalpha, shown)) == sum(map(str.isalpha, text))


def is_inert(html: str) -> bool:
    return "<" not in TAG.sub("", html) and not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", html
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_leaves_only_plain_tags(text: str):
    assert is_inert(markdown(text))
    assert is_inert(plain(text))


@given(st.text(alphabet=st.sampled_from("<>&\"'`*_[]()!#|-\n \\/=a:\x1b\u202escriptonx"), max_size=120))
def test_no_mixture_leaves_more_than_plain_tags(text: str):
    assert is_inert(markdown(text))
