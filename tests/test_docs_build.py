"""scripts/docs on a small documentation in two languages: what it builds, and that faults are named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.scripts import load

pytest.importorskip("zensical")

docs = load("scripts/docs")
CONFIG = """
[project]
site_name = "Small"
site_description = "A small site."
nav = ["index.md", { "Guides" = ["guides/serve.md", "guides/ask.md"] }]
[project.theme]
custom_dir = "theme"
[project.markdown_extensions.attr_list]
"""
ARABIC = """
name = "العربية"
untranslated = "لم تُترجم هذه الصفحة بعد."
full_run = "آخر تنفيذ كامل: {date}."
notebook = "دفتر"
[titles]
"Guides" = "أدلة"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "zensical.toml": CONFIG,
        "SKILL.md": "How to use it.\n",
        "docs/index.md": "# First\n\nThe first page. See [serving](guides/serve.md#limits).\n",
        "docs/guides/serve.md": "# Serving\n\nOver HTTP.\n\n## Limits\n\n![A drawing](../images/x.svg)\n",
        "docs/guides/ask.md": "# Asking\n\n[Home](../index.md).\n",
        "docs/images/x.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
        "docs/full_runs.json": '{"guides/ask.md": "2026-11-30"}',
        "translations/ar.toml": ARABIC,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "theme").symlink_to(docs.ROOT / "scripts" / "docs_theme")
    translate(tmp_path, "index.md", "# الأولى\n\nالصفحة الأولى: [الخدمة](guides/serve.md#limits).\n")
    return tmp_path


def translate(root: Path, name: str, text: str) -> None:
    page = root / "translations" / "ar" / name
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"---\noriginal: {docs.digest(root / 'docs' / name)}\n---\n{text}", encoding="utf-8")


def build(root: Path, version: str = "") -> Any:
    return docs.build(root, docs.read_languages(root), version)


def test_every_language_has_every_page(root: Path) -> None:
    assert build(root) == []
    site = root / "site"
    first, serving, asking = (
        (site / "ar" / page / "index.html").read_text(encoding="utf-8") for page in ("", "guides/serve", "guides/ask")
    )
    assert 'dir="rtl"' in first
    assert "الصفحة الأولى" in first
    assert "لم تُترجم" not in first
    for page in (serving, asking):  # in English, as such, and with a notice
        assert "لم تُترجم هذه الصفحة بعد." in page
        assert '<div lang="en" dir="ltr">' in page
    assert "أدلة" in serving
    assert re.search(r'<a href="../../../guides/serve/" hreflang="en"', serving), "the same page in English"
    assert "2026-11-30" in asking
    assert "2026-11-30" not in serving
    english = (site / "guides/ask/index.html").read_text(encoding="utf-8")
    assert "last ran at full size on 2026-11-30" in english
    assert 'dir="ltr"' in english


def test_pictures_of_results_are_copied(root: Path) -> None:
    """Benchmarks lie beside the documentation, not in it."""
    picture = root / "benchmarks" / "results" / "x.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")
    page = root / "docs" / "guides" / "ask.md"
    page.write_text("# Asking\n\n![Bars](../../benchmarks/results/x.png)\n", encoding="utf-8")
    assert build(root) == []
    for home in (root / "site", root / "site" / "ar"):
        shown = re.search(
            r'<img alt="Bars" src="([^"]+)"', (home / "guides/ask/index.html").read_text(encoding="utf-8")
        )
        assert shown
        assert (home / "guides" / "ask" / shown[1]).read_bytes() == b"a picture"


def test_list_for_programs(root: Path) -> None:
    assert build(root) == []
    listed = (root / "site" / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert listed == [
        "# Small", "", "> A small site.", "",
        "- [First](index.md): The first page.",
        "", "## Guides", "",
        "- [Serving](guides/serve/index.md): Over HTTP.",
        "- [Asking](guides/ask/index.md): Home.",
    ]  # fmt: skip
    assert "## Limits" in (root / "site" / "guides" / "serve" / "index.md").read_text(encoding="utf-8")
    assert (root / "site" / "SKILL.md").exists()


@pytest.mark.parametrize(
    ("page", "text", "place"),
    [
        ("docs/guides/ask.md", "# Asking\n\n[Gone](gone.md)\n", "guides/ask.md:3:8"),
        ("docs/guides/ask.md", "# Asking\n\n[Gone](serve.md#gone)\n", "guides/ask.md:3:17"),
        (
            "docs/guides/ask.md",
            "# Asking\n\n![Gone](gone.png)\n",
            "docs/guides/ask.md:3: the picture gone.png",
        ),
        ("docs/guides/new.md", "# New\n", "docs/guides/new.md: is not in the navigation of zensical.toml"),
        ("translations/ar/index.md", "# الأولى\n", "translations/ar/index.md: its first lines lack the digest"),
        ("translations/ar/old.md", "original: 0123456789ab\n", "translates docs/old.md, which does not exist"),
        ("docs/index.md", "# Changed\n", "translations/ar/index.md: translates an older docs/index.md"),
        ("README.ar.md", "<!-- original: 0123456789ab -->\n", "README.ar.md: translates an older README.md"),
    ],
)
def test_a_fault_is_named_with_its_place(root: Path, page: str, text: str, place: str) -> None:
    (root / "README.md").write_text("# Small\n", encoding="utf-8")
    (root / page).write_text(text, encoding="utf-8")
    faults = build(root)
    assert place in "\n".join(faults)
    assert not (root / "site").exists()


def test_the_digest_that_a_fault_names_mends_it(root: Path) -> None:
    (root / "docs" / "index.md").write_text("# Changed\n", encoding="utf-8")
    [fault] = docs.translation_faults(root, docs.read_languages(root))
    new, old = re.findall(r"\b[0-9a-f]{12}\b", fault)
    page = root / "translations" / "ar" / "index.md"
    page.write_text(page.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert list(docs.translation_faults(root, docs.read_languages(root))) == []


def test_versions_lie_side_by_side(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    for reference in ("refs/heads/main", "refs/tags/v0.9.0", "refs/tags/v0.10.0", "refs/heads/main"):
        version = docs.version_of(reference)
        assert build(root, version) == []
        docs.publish(root, ["en", "ar"], version, folder)
    for home in (folder, folder / "ar"):
        versions = json.loads((home / "versions.json").read_text(encoding="utf-8"))
        assert [(entry["version"], entry["aliases"]) for entry in versions] == [
            ("0.10.0", ["latest"]), ("0.9.0", []), ("dev", []),
        ]  # fmt: skip
        assert "url=0.10.0/" in (home / "index.html").read_text(encoding="utf-8")
        for entry in versions:
            assert (home / entry["version"] / "guides" / "ask" / "index.html").exists()
    page = (folder / "0.9.0" / "guides" / "ask" / "index.html").read_text(encoding="utf-8")
    assert '<a href="../../../ar/0.9.0/guides/ask/" hreflang="ar"' in page
