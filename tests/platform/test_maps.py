"""Maps of the code are true: package docstrings, README's tree, the paths and names in the documents."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.platform.workspace import REPOSITORY

TOPS = ("p2o_core", "tasks", "flows")
PACKAGES = sorted(path.parent for top in TOPS for path in (REPOSITORY / top).rglob("__init__.py"))
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
IN_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PATH = re.compile(r"(?:p2o_core|tasks|flows|tests|docs|recipes|microworld|stress|examples)/[\w./-]*\w/?")
EXTENDING = REPOSITORY / "docs" / "extending.md"


def docstring(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_package_names_its_modules_and_no_others(package: Path) -> None:
    named = {name.rstrip("/") for name in re.findall(r"``([a-z_0-9]+/?)``", docstring(package))}
    files = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    there = files | {path.parent.name for path in package.glob("*/__init__.py")}
    if package.relative_to(REPOSITORY).as_posix() != "p2o_core/config":
        assert there - named == set(), "modules that the docstring does not name"
    assert named - there <= {*TOPS, "mlproject", "p2o"}, "names of no module"


def test_the_readme_has_every_folder() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```\n", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    tree = next(text for language, text in blocks if not language)
    folders = set(re.findall(r"(\w+)/", tree))
    packages = {path.name for path in PACKAGES}
    assert packages <= folders, packages - folders
    known = packages | {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    assert folders <= known, folders - known
    for top in ("tasks", "flows"):
        line = next(line for line in tree.splitlines() if line.startswith(f"{top}/"))
        words = line.removeprefix(f"{top}/").split("  ")
        modules = next(word for word in words if word).split()
        assert all((REPOSITORY / top / f"{module}.py").exists() for module in modules), modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_code_exist(page: Path) -> None:
    named = [code for code in IN_CODE.findall(page.read_text()) if PATH.fullmatch(code)]
    missing = [path for path in named if not (REPOSITORY / path).exists()]
    assert missing == []


@pytest.mark.parametrize(
    "section", EXTENDING.read_text().split("\n## ")[1:], ids=lambda section: section.splitlines()[0]
)
def test_extending_names_what_its_files_hold(section: str) -> None:
    """Each section names a file of code and one of tests, and every name in it stands in one of its files."""
    code = IN_CODE.findall(section)
    files = [REPOSITORY / name for name in code if (REPOSITORY / name).is_file()]
    assert any(path.is_relative_to(REPOSITORY / "tests") for path in files)
    assert any(path.name != "params.yaml" and not path.is_relative_to(REPOSITORY / "tests") for path in files)
    text = "\n".join(path.read_text() for path in files)
    names = [
        name for name in code if re.fullmatch(r"[A-Za-z_][\w.]*(\(\w*\))?", name) and not (REPOSITORY / name).exists()
    ]
    missing = [name for name in names if name.split("(")[0].rpartition(".")[2] not in text]
    assert missing == []


def test_the_readme_leads_to_the_iteration_on_its_first_screen() -> None:
    first = "\n".join((REPOSITORY / "README.md").read_text().splitlines()[:20])
    assert "(p2o_core/iteration.py)" in first
    assert "(docs/extending.md)" in (REPOSITORY / "README.md").read_text()
