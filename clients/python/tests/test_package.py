"""The packages that `python -m build` makes."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LICENCES = {"LICENSE-APACHE", "LICENSE-MIT"}


def test_the_packages_have_the_sources_the_types_and_the_licences_and_nothing_else(tmp_path: Path) -> None:
    # Without isolation, so that nothing is downloaded.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    [sdist] = tmp_path.glob("*.tar.gz")
    sources = {path.name for path in (ROOT / "src/signalbox_client").iterdir() if path.suffix in {".py", ".typed"}}
    assert "py.typed" in sources

    info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    expected = {f"signalbox_client/{name}" for name in sources}
    expected |= {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL")}
    expected |= {f"{info}/licenses/{name}" for name in LICENCES}
    with zipfile.ZipFile(wheel) as packed:
        assert set(packed.namelist()) == expected
        metadata = packed.read(f"{info}/METADATA").decode()
    assert "# Signalbox client for Python" in metadata, "the README is the description"

    tests = {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py")}
    expected = {f"src/signalbox_client/{name}" for name in sources} | tests | LICENCES
    expected |= {"PKG-INFO", "README.md", "pyproject.toml"}
    with tarfile.open(sdist) as packed_sources:
        names = {name.partition("/")[2] for name in packed_sources.getnames()}
    # In a clone, the rules of git come along.
    assert names - {".gitignore"} == expected
