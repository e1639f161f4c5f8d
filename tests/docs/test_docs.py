"""The documents lead where they say, and say what the code says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from silo.cli.main import cli as silo
from silo.cli.siloctl import cli as siloctl
from silo.events.catalogue import EVENTS
from silo.settings import Settings
from tools import gen_config_docs, gen_event_docs

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
BY_NAME = {"ids": [str(page.relative_to(ROOT)) for page in PAGES]}


def words(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# --- links ---------------------------------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    """Where the page points to, as far as that is in this repository."""
    targets: list[str] = re.findall(r"\]\(([^)\s]+)\)", without_code(words(page)))
    return [target for target in targets if not re.match(r"https?://|mailto:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings: list[str] = re.findall(r"^#+ (.+)$", without_code(words(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, **BY_NAME)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} points to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target), (
                f"{page.name} points to {link}, but {target.name} has no such heading"
            )


def test_the_readme_leads_to_every_page() -> None:
    pointed_to = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}

    assert set(PAGES) - {ROOT / "README.md"} <= pointed_to


# --- generated pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", [gen_config_docs, gen_event_docs], ids=["configuration", "events"])
def test_generated_pages_are_current(generator: object) -> None:
    page, path = generator.page(), generator.PAGE  # type: ignore[attr-defined]

    assert words(path) == page, f"{path.name} is out of date: run python -m {generator.__name__}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", EVENTS, ids=[kind.__name__ for kind in EVENTS])
def test_every_event_has_its_place_and_its_fields_a_meaning(kind: type) -> None:
    page = words(ROOT / "docs" / "events.md")

    assert f"### {kind.__name__}\n" in page


def test_every_event_that_the_documents_name_exists() -> None:
    known = {kind.__name__ for kind in EVENTS}
    like_an_event = (
        r"`((?:Job|Chain|Task|Lease|Attempt|Cancellation|Shard)(?:Created|Enqueued|Imported|Reimported|Requested|Failed|"
        r"Cancelled|Restarted|Expedited|Deleted|Forgotten|Started|Due|Leased|Renewed|Expired|Succeeded))`"
    )
    for page in PAGES:
        assert set(re.findall(like_an_event, words(page))) <= known, page.name


# --- commands ------------------------------------------------------------------------------------------------------------


def commands(page: Path, program: str) -> set[str]:
    """How the page calls a program, in its code: the words behind its name."""
    code = [*re.findall(r"^```.*?^```$", words(page), re.MULTILINE | re.DOTALL)]
    code += re.findall(r"`[^`\n]+`", without_code(words(page)))
    pattern = rf"(?:^|[`/])\s*{program} ([^#`\n]+)"
    return {found.strip() for text in code for found in re.findall(pattern, text, re.MULTILINE)}


def all_commands(program: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for command in commands(page, program):
            yield page.name, command


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", words(ROOT / "Makefile"), re.MULTILINE))
    named = {command.split()[0] for _, command in all_commands("make")}

    assert {"demo", "test", "serve"} <= named <= targets


@pytest.mark.parametrize(
    ("program", "group"), [("silo", silo), ("siloctl", siloctl)], ids=["silo", "siloctl"]
)
def test_every_command_exists(program: str, group: click.Group) -> None:
    found = list(all_commands(program))

    assert found
    for page, command in found:
        # What is not given a value here is a flag, an argument, or the names of further commands after a comma.
        names = [name for name in command.replace(",", " ").split() if re.fullmatch(r"[a-z][a-z-]*", name)]
        at: click.Command = group
        for name in names:
            assert isinstance(at, click.Group), f"{page}: {program} {command}"
            at = resolved(at, name, f"{page}: {program} {command}")
            if not isinstance(at, click.Group):
                break


def resolved(group: click.Group, name: str, told: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None, told
    return found


def test_every_setting_that_the_documents_name_exists() -> None:
    sections = dict(gen_config_docs.sections_of(Settings))
    for page in PAGES:
        if page == gen_config_docs.PAGE:
            continue
        for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]+)?`", words(page)):
            if section in sections:
                assert key in gen_config_docs.fields_of(sections[section]), f"{page.name}: {section}.{key}"
