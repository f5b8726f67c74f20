"""MkDocs hook: adds the files outside docs/ to the documentation site (`make docs`).

The pages of docs/ link to files of the repository by relative paths, which GitHub follows. The site follows the same
paths: some Markdown files outside docs/ are pages (PAGES), any other linked file is copied below `files/`, and a
linked folder is replaced by its name. The page `commands.md` is every command's --help, read from the click commands.
"""

import os
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "model/pretrained/README.md": "model-card.md",
}
"""Pages of the site by their path in the repository."""
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")  # words, path, anchor
WIDTH = 88  # columns of the help texts


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the pages of docs/decisions in the navigation, its README first."""
    pages = sorted((DOCS / "decisions").glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
    for entry in config.nav or []:
        if "Decisions" in entry:
            entry["Decisions"] = [page.relative_to(DOCS).as_posix() for page in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside docs/, the files that any page links to, and the page of commands."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / path).read_text()))
    targets = set().union(*(linked(page) for page in [*DOCS.rglob("*.md"), *(REPOSITORY / path for path in PAGES)]))
    for target in sorted(targets):
        if (place := place_of(target)).startswith("files/"):
            files.append(File.generated(config, place, abs_src_path=str(target)))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links adapted to the site."""
    own = page.file.src_uri
    source = next((REPOSITORY / path for path, name in PAGES.items() if name == own), DOCS / own)

    def follow(found: re.Match[str]) -> str:
        words, path, anchor = found.groups(default="")
        target = (source.parent / path).resolve()
        if not path or "://" in path or not target.exists():
            return found.group()
        if target.is_dir():
            return words
        return f"[{words}]({os.path.relpath(place_of(target), Path(own).parent)}{anchor})"

    return markdown if own == "commands.md" else LINK.sub(follow, markdown)


def linked(source: Path) -> set[Path]:
    """The files of the repository that a Markdown file links to."""
    paths = {path for _, path, _ in LINK.findall(source.read_text()) if path and "://" not in path}
    return {target for path in paths if (target := (source.parent / path).resolve()).is_file()}


def place_of(path: Path) -> str:
    """The place of a repository's file on the site."""
    inside = path.relative_to(REPOSITORY).as_posix()
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return PAGES.get(inside, f"files/{inside}")


def commands_page() -> str:
    from cli.main import main

    return "\n".join(["# Commands", "", *sections(main, click.Context(main, info_name="bintally"), 2)])


def sections(command: click.Command, context: click.Context, level: int) -> list[str]:
    """A heading and the help of a command, followed by those of its subcommands."""
    context.terminal_width = context.max_content_width = WIDTH
    lines = [f"{'#' * level} {context.command_path}", "", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (below := command.get_command(context, name)) and not below.hidden:
                lines += sections(below, click.Context(below, info_name=name, parent=context), min(level + 1, 4))
    return lines
