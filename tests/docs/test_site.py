"""`make docs` builds the documentation as a site: strictly, with a page of every command's --help."""

import html
import os
import re
import subprocess
from pathlib import Path

import click
import pytest

from cli.main import main

REPOSITORY = Path(__file__).parents[2]
SEPARATE = {"index.html", "commands.html", "contributing.html", "changes.html", "model-card.html"}
"""Pages whose source is not in docs/."""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    mkdocs = REPOSITORY / ".venv" / "bin" / "mkdocs"
    assert mkdocs.exists(), "make .venv/docs.installed"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", folder],
        cwd=REPOSITORY, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    docs = REPOSITORY / "docs"
    wanted = {page.relative_to(docs).with_suffix(".html").as_posix() for page in docs.rglob("*.md")}
    wanted = {page.replace("README.html", "index.html") for page in wanted}
    assert wanted | SEPARATE <= {page.relative_to(site).as_posix() for page in site.rglob("*.html")}


def test_every_command_has_its_help(site: Path) -> None:
    page = html.unescape((site / "commands.html").read_text())

    def check(command: click.Command, name: str) -> None:
        assert f"Usage: {name} " in page
        if isinstance(command, click.Group):
            context = click.Context(command)
            for verb in command.list_commands(context):
                if below := command.get_command(context, verb):
                    check(below, f"{name} {verb}")

    check(main, "bintally")


def test_nothing_links_to_what_is_missing_or_comes_from_elsewhere(site: Path) -> None:
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # that page links from the root of a web server
        text = page.read_text()
        for target in re.findall(r'<(?:img|script|source)[^>]* src="([^"]+)"', text):
            assert (page.parent / target.partition("?")[0]).exists(), f"{page.name}: {target}"
        for target in re.findall(r'<a [^>]*href="([^"#]+)', text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
