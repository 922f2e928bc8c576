"""Rules that a reader relies on, checked by a machine; import layers are import-linter's, in `make check`."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "replyline"
_VAGUE = {"utils", "helpers", "manager", "managers", "base", "common", "core", "misc"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _tests() -> list[Path]:
    return sorted(file for file in (ROOT / "tests").rglob("*.py") if "node_modules" not in file.parts)


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in _modules() + _tests()}
    assert {file: lines for file, lines in lengths.items() if lines > 400} == {}


def test_no_module_is_named_after_nothing() -> None:
    assert [file for file in _modules() if file.stem in _VAGUE or file.parent.name in _VAGUE] == []


def test_every_module_opens_with_a_sentence() -> None:
    silent = [str(file.relative_to(ROOT)) for file in _modules() if not file.read_text().startswith('"""')]
    assert silent == []


def test_the_environment_is_read_only_where_it_should_be() -> None:
    allowed = {"settings.py", "children.py", "spawn.py", "supervise.py"}  # the last three hand it on to children
    allowed.add("environment.py")  # and says what of it
    allowed.add("completion.py")  # the shell asks there
    readers = {file.name for file in _modules() if re.search(r"os\.(environ|getenv)", file.read_text())}
    assert readers <= allowed


def test_sql_stands_only_in_the_store() -> None:
    statement = re.compile(r'"""?\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s', re.IGNORECASE)
    outside = [
        str(file.relative_to(ROOT))
        for file in _modules()
        if file.parts[len(PACKAGE.parts)] != "store" and statement.search(file.read_text())
    ]
    assert outside == []


def test_nothing_of_this_machine_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    named = [
        name
        for name in listed
        if (ROOT / name).is_file()
        and re.search(r"/(work|root|opt/pypi)/|registry\.npmjs|pypi\.org/simple", _text(ROOT / name))
    ]
    assert named in ([], ["tests/test_architecture.py"])


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError:
        return ""


def test_whatever_ends_a_jobs_wait_keeps_its_reason() -> None:
    updates = [
        statement
        for file in _modules()
        for statement in re.findall(r'"""\s*(UPDATE jobs.*?)"""', file.read_text(), re.DOTALL)
        if re.search(r"\bwait_reason = ", statement)
    ]
    ends = [
        statement
        for file in _modules()
        for statement in re.findall(
            r'"""(?:[^"]*)INSERT INTO (?:finished_jobs|dead_jobs) \(\{(?:[^"]*)"""', file.read_text()
        )
    ]
    assert len(ends) >= 2
    assert [statement for statement in ends if "waits_of(" not in statement] == []
    assert len(updates) >= 6
    assert [statement for statement in updates if not re.search(r"\bwaits = ", statement)] == []


def test_prose_of_the_documentation_wraps_at_120_characters() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    long = {
        f"{name}:{number}": len(line)
        for name in listed.split()
        if (ROOT / name).is_file()
        for number, line in _prose((ROOT / name).read_text())
        if len(line) > 120
    }
    assert long == {}


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that people read from left to right: no tables, no code, no single word (an address) that is longer itself."""
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.startswith(("|", "    ")) and " " in line.strip(" *-"):
            yield number, line
