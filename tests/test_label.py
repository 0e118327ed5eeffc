"""provisioning/label: a code that a phone reads, and the same for people."""

import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from provisioning.label import FORMATS, Label, write_label

LABEL = Label(serial="WS-0001", model="WS-100", ak_fingerprint="ab" * 32, birth_sha256="cd" * 32)


def test_the_code_holds_serial_key_and_birth_record() -> None:
    assert LABEL.text == f"WATTSEAL:WS-0001:{'ab' * 8}:{'cd' * 16}"


def test_the_svg_is_well_formed_and_says_the_same_in_text() -> None:
    root = ET.fromstring(LABEL.svg())
    said = " ".join(text for text in root.itertext() if text.strip())
    assert "WS-100  WS-0001" in said
    assert "ab" * 8 in said
    assert f"birth {'cd' * 8}" in said
    assert root.get("width")
    assert root.iter("{http://www.w3.org/2000/svg}path")


def test_the_pdf_is_small_and_whole() -> None:
    made = LABEL.pdf()
    assert made.startswith(b"%PDF-")
    assert made.rstrip().endswith(b"%%EOF")
    assert len(made) < 10_000
    body = made.split(b"stream\r\n", 1)[1].split(b"\r\nendstream", 1)[0]
    assert zlib.decompress(body)


@given(st.text(alphabet=st.characters(codec="ascii", min_codepoint=32), min_size=1, max_size=60))
@settings(max_examples=25)
def test_any_model_gives_a_well_formed_svg(model: str) -> None:
    made = Label(serial="W", model=model, ak_fingerprint="ab" * 32, birth_sha256="cd" * 32)
    assert ET.fromstring(made.svg()).tag.endswith("svg")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_label_is_written_whole_under_its_serial(tmp_path: Path, kind: str) -> None:
    path = write_label(LABEL, tmp_path / "labels", kind=kind)
    assert path == tmp_path / "labels" / f"WS-0001.{kind}"
    assert [path] == list(path.parent.iterdir())


def test_another_format_and_a_folder_that_cannot_be_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="want one of svg, pdf"):
        write_label(LABEL, tmp_path, kind="png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="want a folder for labels"):
        write_label(LABEL, tmp_path / "file", kind="svg")
