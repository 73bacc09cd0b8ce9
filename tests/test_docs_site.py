"""The documentation site: builds without a warning, loads nothing from the network, and fails on what is broken."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort, PluginError

ROOT = Path(__file__).resolve().parents[1]


def make_site(folder: Path, **changes) -> Path:
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder / "site"), **changes)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder / "site"


def page(folder: Path, text: str) -> dict:
    (folder / "docs").mkdir()
    (folder / "docs" / "index.md").write_text(text, encoding="utf-8")
    return {"docs_dir": str(folder / "docs"), "nav": [{"Start": "index.md"}, {"Model card": "model-card.md"}]}


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_the_network(tmp_path):
    site = make_site(tmp_path)
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {"index.html", "guides/teach.html", "reference/commands.html", "model-card.html"} <= set(pages)
    for name, text in pages.items():
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="?(https?:)?//', text)
        assert not loaded, name
    assert "audiobert fill-mask" in pages["reference/commands.html"]
    assert "from_pretrained" in pages["reference/model.html"]


@pytest.mark.parametrize("link", ["[gone](gone.md)", "[no such place](index.md#nowhere)"])
def test_a_broken_link_fails_the_build(link, tmp_path):
    with pytest.raises(Abort):
        make_site(tmp_path, **page(tmp_path, f"# Start\n\n{link}\n"))


def test_a_public_name_without_docstring_fails_the_build(tmp_path, monkeypatch):
    package = tmp_path / "src" / "bare"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('class Named:\n    """A class."""\n\n    def left(self): ...\n')
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    assert hooks.undocumented("bare.Named") == ["bare.Named.left"]
    with pytest.raises(PluginError, match=r"no docstring: bare\.Named\.left"):
        hooks.on_page_markdown("::: bare.Named\n", page=SimpleNamespace(file=SimpleNamespace(src_uri="x.md")))
