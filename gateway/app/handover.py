from pathlib import Path


def export_to(folder: Path, *, config) -> None:
    folder.mkdir()
