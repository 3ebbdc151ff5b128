"""MkDocs hooks: the site's sources are the repository, so that every relative link leads to the same place in both.

MkDocs resolves links among the files it knows, by their path below ``docs/``. Here each file is known by its path in
the repository: README.md is the first page, ``../recipes/arms.yaml`` in a page of docs/ is the page of that file.
MkDocs's own check of links and anchors then checks links into the code too.
"""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import typer
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from typer.cli import get_docs_for_click
from typer.main import get_command

from flows.console.__main__ import app

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("p2o_core", "microworld", "tasks", "flows", "recipes", "examples", "stress", "tests", "docs/tools")
DOCUMENTED = (
    "p2o_core/**/*.py",
    "tasks/*.py",
    "tasks/running/[jlprs]*.py",
    "tasks/parameters/experiment.py",
    "flows/[!_]*.py",
)
"""Modules that have a page made from their docstrings: the algorithm, the stages, and the flows that users start."""
CONSOLE = "docs/console.md"
FENCE = "`" * 8


class CodeFile(File):
    """A page about a file of the repository: what its docstrings say, and its text."""

    def is_documentation_page(self) -> bool:
        return True


class LinkedPaths(Extension):
    """`p2o_core/losses.py` in a page leads to that file's page."""

    def __init__(self) -> None:
        super().__init__()
        self.page = ""
        self.files: Files | None = None

    def extendMarkdown(self, md: Markdown) -> None:
        # after inline code is made (20) and before MkDocs looks at links (0)
        md.treeprocessors.register(_LinkedPaths(md, self), "linked_paths", 10)


class _LinkedPaths(Treeprocessor):
    def __init__(self, md: Markdown, extension: LinkedPaths) -> None:
        super().__init__(md)
        self.extension = extension

    def run(self, root: etree.Element) -> None:
        linked = {child for link in root.iter("a") for child in link.iter("code")}
        for element in list(root.iter("code")):
            path = element.text or ""
            if element in linked or not self.extension.files or not self.extension.files.get_file_from_path(path):
                continue
            tail, element.tail, element.text, element.tag = element.tail, None, None, "a"
            element.set("href", posixpath.relpath(path, posixpath.dirname(self.extension.page)))
            etree.SubElement(element, "code").text = path
            element.tail = tail


LINKED_PATHS = LinkedPaths()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take up the extension above, and the pages of modules into the navigation."""
    if LINKED_PATHS not in config.markdown_extensions:
        config.markdown_extensions.append(LINKED_PATHS)
    config.watch += [str(REPOSITORY / name) for name in ("README.md", *FOLDERS)]
    (reference,) = (section["Reference"] for section in config.nav if "Reference" in section)
    tree: dict[str, list] = {}
    for path in documented():
        tree.setdefault(path.parent.as_posix(), []).append(path.as_posix())
    reference += [{folder: pages} for folder, pages in tree.items()]
    return config


def documented() -> list[Path]:
    """Modules with a page of their own, as paths in the repository: packages first."""
    found = {path.relative_to(REPOSITORY) for pattern in DOCUMENTED for path in REPOSITORY.glob(pattern)}
    return sorted(found, key=lambda path: (path.parent.as_posix(), path.name != "__init__.py", path.name))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Know every file by its path in the repository, and add the pages that are made here."""
    docs = Path(config.docs_dir)
    known = Files([])
    for file in files:
        if file.src_dir != config.docs_dir:  # the theme's
            known.append(file)
            continue
        source = f"{docs.name}/{file.src_uri}"
        if source.startswith(FOLDERS):  # code, below
            continue
        known.append(File(source, str(REPOSITORY), config.site_dir, False, dest_uri=file.dest_uri))
    known.append(File("README.md", str(REPOSITORY), config.site_dir, False, dest_uri="index.html"))
    console = File.generated(config, CONSOLE, content=console_page())
    console.dest_uri = "console.html"
    known.append(console)
    said = "\n".join(file.content_string for file in known.documentation_pages())
    own_pages = documented()
    for path in repository_files():
        name = path.as_posix()
        if path in own_pages or name in said:
            page = CodeFile(name, None, config.site_dir, False, dest_uri=f"code/{name}.html")
            page.content_string = code_page(path, path in own_pages)
            page.inclusion = InclusionLevel.INCLUDED if path in own_pages else InclusionLevel.NOT_IN_NAV
            known.append(page)
    LINKED_PATHS.files = known
    return known


def repository_files() -> Iterator[Path]:
    """Files that pages may name, as paths in the repository."""
    for path in sorted(REPOSITORY.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix in ("", ".yaml", ".toml", ".txt"):
            yield path.relative_to(REPOSITORY)
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.*")):
            if path.is_file() and path.suffix != ".pyc":
                yield path.relative_to(REPOSITORY)


def code_page(path: Path, documented: bool) -> str:
    """Markdown: what the module's docstrings say, where that is wanted, and the file's text."""
    text = (REPOSITORY / path).read_text()
    try:
        language = get_lexer_for_filename(path.name).aliases[0]
    except ClassNotFound:
        language = "text"
    block = f"{FENCE}{language}\n{text}\n{FENCE}"
    if not documented:
        return f"---\nsearch: {{exclude: true}}\n---\n\n# {path.as_posix()}\n\n{block}\n"
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    return f'::: {module}\n\n??? quote "The whole file"\n\n{indent(block, "    ")}\n'


def console_page() -> str:
    """Markdown: every command with its options, as typer knows them."""
    command = get_command(app)
    context = typer.Context(command, info_name="p2o")
    return get_docs_for_click(obj=command, ctx=context, name="p2o", title="Commands of the console")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tell the extension which page is made now."""
    LINKED_PATHS.page = page.file.src_uri
    return markdown


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Name the pages of modules by their last word."""
    for page in nav.pages:
        if isinstance(page.file, CodeFile):
            path = Path(page.file.src_uri)
            page.title = path.parent.name if path.stem == "__init__" else path.stem
    return nav
