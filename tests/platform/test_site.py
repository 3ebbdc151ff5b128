"""The documentation site: built as in CI, whole, and without anything from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer.main

from flows.console.__main__ import app
from tests.platform.workspace import REPOSITORY, environment

ASKS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Elements with which a page asks for something as it opens, and the attribute that says where."""
LARGEST = 250 * 1024


class Asked(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if ASKS.get(tag) == name]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict: a page outside the navigation, a link or an anchor that leads nowhere, in pages and in docstrings, is an
    error. The proxy answers nobody, so whoever asks for a page elsewhere fails."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    built = subprocess.run(
        ["mkdocs", "build", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env=environment() | {"http_proxy": nowhere, "https_proxy": nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = ["index.html", "console.html", *(f"{page.stem}.html" for page in (REPOSITORY / "docs").glob("*.md"))]
    code = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "p2o_core").rglob("*.py")]
    pages += [f"code/{path.as_posix()}.html" for path in code]
    home = (site / "index.html").read_text()
    for page in pages:
        assert (site / page).exists(), page
        if page.count("/") < 2:
            assert page == "index.html" or f'href="{page}"' in home, f"{page} is not in the navigation"


def test_the_code_speaks_for_itself(site: Path) -> None:
    """Docstrings, settings with descriptions, and links from the documents."""
    losses = (site / "code/p2o_core/losses.py.html").read_text()
    assert 'id="p2o_core.losses.template_ratio_mask"' in losses
    assert "Filter for tokens that the bare prompt" in losses
    assert "rollouts a problem (n); the paper" in (site / "code/p2o_core/config/stages.py.html").read_text()
    assert 'href="code/p2o_core/iteration.py.html"' in (site / "index.html").read_text()
    assert 'href="code/p2o_core/losses.py.html"' in (site / "extending.html").read_text()
    assert "code/tests/core/test_losses.py.html" in (site / "extending.html").read_text()


def test_every_command_is_described(site: Path) -> None:
    text = (site / "console.html").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) > 15
    for name in commands:
        assert re.search(rf'<h2 id="[^"]*">\s*<code>p2o {name}</code>', text), name


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    asked = {address for page in pages for address in Asked(page).addresses}
    assert any(address.endswith(".js") for address in asked)
    assert [address for address in asked if re.match(r"(?:\w+:)?//", address)] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", styles) == []


def test_the_search_knows_pages_and_docstrings(site: Path) -> None:
    found = {entry["location"] for entry in json.loads((site / "search/search_index.json").read_text())["docs"]}
    assert "how-to.html#stop-and-resume" in found
    assert "code/p2o_core/losses.py.html#p2o_core.losses.policy_loss" in found
    assert not [place for place in found if place.startswith("code/tests/")], "sources drown the rest"


def test_pictures_are_small_and_shown(site: Path) -> None:
    """Each picture has words for those who do not see it, and stands in a page."""
    pictures = {path.name for path in (REPOSITORY / "docs/images").iterdir()}
    shown: dict[str, str] = {}
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        shown |= {Path(path).name: words for words, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text())}
    assert shown.keys() == pictures
    assert all(len(words.split()) > 3 for words in shown.values())
    for name in pictures:
        assert os.path.getsize(site / "images" / name) <= LARGEST, name
