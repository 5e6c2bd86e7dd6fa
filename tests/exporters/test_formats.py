"""What holds for every registered format: it exports, its files are found and run, and it is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.cases import export_to, model_of, save
from helpers.families import CONFIGS
from helpers.pairs import in_turn
from helpers.plans import draw
from pocketbert.errors import EXTRAS, CheckpointError, ConfigError
from pocketbert.exporters.formats import FORMATS
from pocketbert.exporters.load import find_export, load_export, model_folder
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.verify import LIMITS, compare
from pocketbert.runtime.engine import Engine

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "head"), in_turn([(list(FORMATS), ["ForTokenClassification", "ForQuestionAnswering", "Model"])])
)
def test_exports_and_runs(name: str, head: str, tmp_path: Path) -> None:
    """The file that an export writes is found in its folder, and computes what the engine computes."""
    format_ = FORMATS[name]
    for extra in format_.extras:
        for package in EXTRAS[extra]:
            pytest.importorskip(package, reason=f"the extra '{extra}' is not installed")
    config = CONFIGS["squeezebert"].replace(max_position_embeddings=512)
    model = save(model_of(config, head), tmp_path / "model")
    precision = next(iter(format_.files))
    [file] = export_to(format_.name, model, tmp_path / "out", precisions=(precision,))
    assert file.path == tmp_path / "out" / format_.files[precision]
    assert find_export(tmp_path / "out") == find_export(file.path) == file.path
    assert model_folder(file.path) == tmp_path / "out"
    predictor, inputs = load_export(file.path), draw([9, 3, 30])
    assert predictor.precision == "fp32"
    assert predictor.engine
    assert predictor.needs
    differences = compare(Engine.from_pretrained(model, head)(inputs), predictor(inputs))
    assert differences
    assert all(difference.relative < LIMITS[precision] for difference in differences.values())


@pytest.mark.parametrize("name", FORMATS)
def test_is_documented(name: str) -> None:
    """In the guide; every precision has a limit, and every option a field."""
    assert f"--format {name}" in (ROOT / "docs/guides/export.md").read_text(encoding="utf-8")
    assert FORMATS[name].name == name
    assert FORMATS[name].files.keys() <= LIMITS.keys()
    assert {field for field in FORMATS[name].options} <= set(ExportOptions.__dataclass_fields__)


def test_names_of_files_are_unambiguous() -> None:
    """Each file is recognized as one format's."""
    names = [(one.suffix, one.marker) for one in FORMATS.values()]
    assert len(set(names)) == len(names)
    assert all(bool(suffix) != bool(marker) for suffix, marker in names)


def test_options_of_another_format_are_refused() -> None:
    with pytest.raises(ConfigError, match="--format caffe must be"):
        ExportOptions(model="a", output="b", format="caffe")
    with pytest.raises(ConfigError, match="--precision int8 does not fit --format savedmodel: choose from fp32"):
        ExportOptions(model="a", output="b", format="savedmodel", precisions=("int8",))
    with pytest.raises(ConfigError, match="--opset 17 is not for --format litert"):
        ExportOptions(model="a", output="b", format="litert", opset=17)
    with pytest.raises(ConfigError, match="--max-length 64 is not for --format onnx"):
        ExportOptions(model="a", output="b", max_length=64)
    with pytest.raises(ConfigError, match="--glue needs --eval"):
        ExportOptions(model="a", output="b", glue="sst-2")


def test_a_file_of_no_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("text")
    with pytest.raises(CheckpointError, match="not an exported file of a known format"):
        load_export(tmp_path / "model.txt")
