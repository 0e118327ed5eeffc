"""A unit's label: a QR code that leads to its birth record, and the same in plain text. SVG or PDF, by segno.

The code holds `WATTSEAL:<serial>:<AK fingerprint, 16 digits>:<SHA-256 of the birth record, 32 digits>`: who scans it
compares with the factory's log; it is no secret, and proves nothing by itself.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import segno

from gateway.errors import ConfigError

FORMATS = ("svg", "pdf")
_SCALE = 4
_LINE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a label says. ak_fingerprint, birth_sha256: in hex; short forms of them stand on it."""

    serial: str
    model: str
    ak_fingerprint: str
    birth_sha256: str

    @property
    def text(self) -> str:
        """What the QR code holds."""
        return f"WATTSEAL:{self.serial}:{self.ak_fingerprint[:16]}:{self.birth_sha256[:32]}"

    def svg(self) -> bytes:
        """Return the label as SVG: the code, and under it what it says, for people."""
        code = segno.make(self.text, error="m", micro=False)
        width, height = code.symbol_size(scale=_SCALE)
        lines = (
            f"{self.model}  {self.serial}",
            f"AK {self.ak_fingerprint[:16]}",
            f"birth {self.birth_sha256[:16]}",
            f"      {self.birth_sha256[16:32]}",
        )
        wide, tall = max(width, 9 * max(map(len, lines)) + _LINE), height + _LINE * (len(lines) + 1)
        texts = "".join(
            f'<text x="{_LINE}" y="{height + _LINE * place}" xml:space="preserve">{escape(line)}</text>'
            for place, line in enumerate(lines, 1)
        )
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">'
        drawn = code.svg_inline(scale=_SCALE)
        font = '<g font-family="monospace" font-size="13">'
        return f'{head}<rect width="100%" height="100%" fill="#fff"/>{drawn}{font}{texts}</g></svg>\n'.encode()

    def pdf(self) -> bytes:
        """Return the code alone as a small PDF, for label printers."""
        made = io.BytesIO()
        segno.make(self.text, error="m", micro=False).save(made, kind="pdf", scale=_SCALE)
        return made.getvalue()


def write_label(label: Label, folder: Path, *, kind: str) -> Path:
    """Write a label into a folder, named by its serial; return where. kind: of FORMATS. Raises ConfigError."""
    if kind not in FORMATS:
        raise ConfigError(f"label: got format {kind!r}, want one of {', '.join(FORMATS)}")
    path = folder / f"{label.serial}.{kind}"
    new = path.with_name(f".{path.name}.new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new.write_bytes(label.svg() if kind == "svg" else label.pdf())
        new.replace(path)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}, want a folder for labels that may be written") from e
    return path
