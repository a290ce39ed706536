"""What .ci/contents.py finds wrong with a wheel and an sdist."""

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "contents.py"
if not SCRIPT.is_file():
    pytest.skip("the sdist has no .ci", allow_module_level=True)
spec = importlib.util.spec_from_file_location("contents", SCRIPT)
contents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contents)

FILES = {
    "fastbp/__init__.py": b"one",
    "fastbp/dataset/digits.npz": b"digits",
    "tests/test_one.py": b"test",
    "LICENSE": b"license",
    "README.md": b"readme",
    "notes/private.md": b"not for others",
}


@pytest.fixture
def root(tmp_path):
    """A folder that is no repository, with the files of one."""
    for name, content in FILES.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "root"


def wheel(folder, change=None):
    """Write a wheel that is right, but for the change: name to content, or None for left out."""
    files = {n: c for n, c in FILES.items() if n.startswith("fastbp/")}
    files |= {f"fastbp-1.0.dist-info/{name}": b"text" for name in contents.DESCRIPTION}
    path = folder / "fastbp-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | (change or {})).items():
            if content is not None:
                archive.writestr(name, content)
    return path


def sdist(folder, change=None, link=None):
    """Write an sdist that is right, but for the change and a symbolic link."""
    files = {n: c for n, c in FILES.items() if not n.startswith("notes/")} | {"PKG-INFO": b"text"}
    path = folder / "fastbp-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (files | (change or {})).items():
            if content is not None:
                member = tarfile.TarInfo(f"fastbp-1.0/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(f"fastbp-1.0/{link}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return path


def test_what_is_right_gives_no_complaint(tmp_path, root):
    assert contents.check_wheel(wheel(tmp_path), root) == []
    assert contents.check_sdist(sdist(tmp_path), root) == []


CHANGES = [
    ({"fastbp/__init__.py": None}, "missing: fastbp/__init__.py"),
    ({"fastbp/__init__.py": b"two"}, "not as in the repository: fastbp/__init__.py"),
    ({"fastbp/extra.py": b""}, "not expected: fastbp/extra.py"),
    ({"notes/private.md": b"not for others"}, "not expected: notes/private.md"),
    ({"fastbp/weights.bin": b""}, "a kind of file that is not on the list: fastbp/weights.bin"),
    ({"fastbp/other.npz": b""}, "a kind of file that is not on the list: fastbp/other.npz"),
    (
        {"fastbp/__init__.py": bytes(200_001)},
        "200,001 bytes, more than 200,000: fastbp/__init__.py",
    ),
]


@pytest.mark.parametrize(("change", "complaint"), CHANGES, ids=[text for _, text in CHANGES])
def test_what_is_wrong_is_said(change, complaint, tmp_path, root):
    assert complaint in contents.check_wheel(wheel(tmp_path, change), root)
    assert complaint in contents.check_sdist(sdist(tmp_path, change), root)


def test_a_wheel_has_its_licenses(tmp_path, root):
    name = "fastbp-1.0.dist-info/licenses/fastbp/dataset/DIGITS-LICENSE.txt"
    assert f"missing: {name}" in contents.check_wheel(wheel(tmp_path, {name: None}), root)


def test_links_are_refused(tmp_path, root):
    with pytest.raises(ValueError, match="neither files nor folders"):
        contents.check_sdist(sdist(tmp_path, link="fastbp/link.py"), root)


def test_the_command_fails_and_says_why(tmp_path, root, monkeypatch, capsys):
    monkeypatch.setattr(contents, "check_wheel", lambda path: ["not expected: x"])
    monkeypatch.setattr(contents, "check_sdist", lambda path: [])
    wheel(tmp_path)
    sdist(tmp_path)
    assert contents.main(str(tmp_path)) == 1
    assert "fastbp-1.0-py3-none-any.whl: not expected: x" in capsys.readouterr().out
