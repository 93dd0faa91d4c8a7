"""The wheel, the sdist and the types, as a user meets them: built, installed in fresh environments, type-checked."""

import ast
import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import threading
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "background.py"
CONSUMER = ROOT / ".ci" / "typing_consumer.py"
FRAMEWORKS = ROOT / ".ci" / "typing_frameworks.py"
README = ROOT / "README.md"

USE = textwrap.dedent(
    """
    import asyncio
    import importlib.metadata
    from background import BackgroundTask, BackgroundTasks, drain
    ran = []
    asyncio.run(BackgroundTasks([BackgroundTask(ran.append, 1), BackgroundTask(ran.append, 2)])())
    print(ran, *sorted(dist.name for dist in importlib.metadata.distributions()))
    """
)


def run(*command: str | Path, cwd: Path, timeout: float = 120, ok: tuple[int, ...] = (0,)) -> str:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    env["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
    done = subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True, check=False)
    assert done.returncode in ok, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---- wheel and sdist


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the sdist, and the wheel made from it."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    return directory


@pytest.fixture(scope="session")
def version() -> str:
    for node in ast.parse(MODULE.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise AssertionError("background.py states no version")


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


def metadata_of(path: Path, version: str) -> Message:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return message_from_bytes(archive.read(f"background_task-{version}.dist-info/METADATA"))
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"background_task-{version}/PKG-INFO")
        assert member is not None
        return message_from_bytes(member.read())


def test_the_files_are_named_for_the_distribution_and_its_version(dist: Path, version: str) -> None:
    assert sorted(path.name for path in dist.iterdir()) == [
        f"background_task-{version}-py3-none-any.whl",
        f"background_task-{version}.tar.gz",
    ]


def test_the_wheel_holds_the_module_and_its_stub_package_and_nothing_else(wheel: Path, version: str) -> None:
    info = f"background_task-{version}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert sorted(archive.namelist()) == sorted(
            [
                "background.py",
                "background-stubs/__init__.pyi",
                f"{info}/METADATA",
                f"{info}/WHEEL",
                f"{info}/RECORD",
                f"{info}/licenses/LICENSE",
            ]
        )
        assert archive.read("background.py") == MODULE.read_bytes()
        assert archive.read("background-stubs/__init__.pyi") == MODULE.read_bytes()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_holds_the_module_its_tests_and_what_builds_it(sdist: Path, version: str) -> None:
    top = f"background_task-{version}"
    with tarfile.open(sdist) as archive:
        assert sorted(archive.getnames()) == sorted(
            f"{top}/{name}"
            for name in (
                ".ci/stub_from_module.py",
                ".gitignore",
                "LICENSE",
                "PKG-INFO",
                "README.md",
                "background.py",
                "pyproject.toml",
                "test_background.py",
            )
        )
        for name in ("background.py", "test_background.py", "README.md", "LICENSE", "pyproject.toml"):
            member = archive.extractfile(f"{top}/{name}")
            assert member is not None
            assert member.read() == (ROOT / name).read_bytes(), name


def test_the_wheel_is_the_same_from_the_tree_as_from_the_sdist(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (from_tree,) = tmp_path.glob("*.whl")
    assert from_tree.read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("artefact", ["wheel", "sdist"])
def test_the_metadata_state_name_version_licence_python_and_no_dependency(
    artefact: str, version: str, request: pytest.FixtureRequest
) -> None:
    metadata = metadata_of(request.getfixturevalue(artefact), version)
    assert metadata["Name"] == "background-task"
    assert metadata["Version"] == version
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_all("Requires-Dist") is None
    docstring = ast.get_docstring(ast.parse(MODULE.read_text()))
    assert docstring is not None
    assert metadata["Summary"] == docstring.splitlines()[0]


# ---- in fresh environments


def make_environment(directory: Path) -> Path:
    """An environment with nothing in it, not even pip; its interpreter."""
    venv.create(directory)
    return directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture(scope="session", params=["vendored", "wheel", "sdist"])
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A user's directory, and the interpreter of their environment, with the module in the one or in the other."""
    directory = tmp_path_factory.mktemp(request.param)
    project = directory / "project"
    project.mkdir()
    python = make_environment(directory / "environment")
    if request.param == "vendored":
        (project / MODULE.name).write_bytes(MODULE.read_bytes())
    else:
        artefact = request.getfixturevalue(request.param)
        run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", artefact, cwd=directory)
    return project, python


def test_what_was_installed_runs_in_an_environment_that_holds_nothing_else(user: tuple[Path, Path]) -> None:
    project, python = user
    script = project / "use.py"
    script.write_text(USE)
    names = [] if (project / MODULE.name).exists() else ["background-task"]
    assert run(python, script, cwd=project).split() == ["[1,", "2]", *names]


# ---- types


def expected_errors(source: Path, checker: str) -> set[int]:
    marks = ("# error", f"# error in {checker}")
    return {number for number, line in enumerate(source.read_text().splitlines(), 1) if line.endswith(marks)}


def mypy_errors(python: Path, project: Path, name: str, cache: Path) -> dict[tuple[str, int], str]:
    options = (
        "--strict",
        "--python-executable",
        python,
        "--cache-dir",
        cache,
        "--no-error-summary",
        "--config-file",
        "",
    )
    output = run(sys.executable, "-m", "mypy", *options, name, cwd=project, ok=(0, 1))
    found: dict[tuple[str, int], str] = {}
    for line in output.splitlines():
        match = re.match(r"(.+?):(\d+): (error|note): (.*)", line)
        assert match is not None, output
        if match[3] == "error":
            found[match[1], int(match[2])] = match[4]
    return found


def pyright_errors(python: Path, project: Path, name: str, cache: Path) -> dict[tuple[str, int], str]:
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    options = ("--pythonpath", python, "--outputjson")
    output = run(sys.executable, "-m", "pyright", *options, name, cwd=project, ok=(0, 1))
    report = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == 1, output
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
        for each in report["generalDiagnostics"]
    }


CHECKERS = {"mypy": mypy_errors, "pyright": pyright_errors}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy_cache")


@pytest.fixture(params=list(CHECKERS))
def checker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_reports(checker: str, python: Path, project: Path, source: Path, cache: Path) -> None:
    """Whether the checker reports the marked lines of the file, and no other line of it."""
    if source.parent != project:
        (project / source.name).write_bytes(source.read_bytes())
    found = CHECKERS[checker](python, project, source.name, cache)
    reported = {number for name, number in found if name == source.name}
    expected = expected_errors(source, checker)
    lines = source.read_text().splitlines()
    missed = [f"line {number}: {lines[number - 1]}" for number in sorted(expected - reported)]
    unexpected = [f"line {number}: {found[source.name, number]}" for number in sorted(reported - expected)]
    assert not missed, f"{checker} says nothing about " + "\n".join(missed)
    assert not unexpected, f"{checker} refuses " + "\n".join(unexpected)


def test_the_module_itself_satisfies_the_strictest_mode(checker: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / MODULE.name).write_bytes(MODULE.read_bytes())
    found = CHECKERS[checker](Path(sys.executable), tmp_path, MODULE.name, cache)
    assert not found, "\n".join(f"line {number}: {message}" for (_, number), message in sorted(found.items()))


def test_type_checkers_accept_right_calls_and_report_wrong_ones(
    user: tuple[Path, Path], checker: str, cache: Path
) -> None:
    project, python = user
    assert expected_errors(CONSUMER, checker)
    assert_reports(checker, python, project, CONSUMER, cache)


def test_type_checkers_refuse_ours_as_background_of_a_framework_unless_wrapped(
    checker: str, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / MODULE.name).write_bytes(MODULE.read_bytes())
    assert len(expected_errors(FRAMEWORKS, checker)) == 11
    assert_reports(checker, Path(sys.executable), tmp_path, FRAMEWORKS, cache)


AROUND_IT = """
from starlette.responses import JSONResponse

from background import BackgroundTask, BackgroundTasks

async def send_email(to: str) -> None:
    print(f"to {to}")

"""


def documented_block() -> str:
    section = README.read_text().split("\n## Type checkers\n", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(block)


def test_the_documented_way_past_a_frameworks_annotation_satisfies_type_checkers(
    checker: str, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / MODULE.name).write_bytes(MODULE.read_bytes())
    source = tmp_path / "documented.py"
    source.write_text(AROUND_IT + documented_block())
    assert_reports(checker, Path(sys.executable), tmp_path, source, cache)


def test_the_documented_way_past_a_frameworks_annotation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {"__name__": "documented"}
    exec(AROUND_IT + documented_block(), namespace)
    response = namespace["register"]()  # type: ignore[operator]
    asyncio.run(asyncio.wait_for(response.background(), 10))
    assert capsys.readouterr().out == "to ada@example.org\n"


@pytest.mark.parametrize(
    "theirs",
    [
        "starlette.background.BackgroundTask",
        "lilya.background.Task",
        "ravyn.background.BackgroundTask",
        "litestar.background_tasks.BackgroundTask",
    ],
)
def test_a_frameworks_own_task_awaits_ours_on_the_event_loop(theirs: str) -> None:
    from background import BackgroundTask, BackgroundTasks

    module, _, name = theirs.rpartition(".")
    threads = []

    async def note_thread() -> None:
        threads.append(threading.current_thread())

    task = BackgroundTask(note_thread)
    for ours in (task, BackgroundTasks([task, task]), BackgroundTasks([task, task], as_group=True)):
        wrapped = getattr(importlib.import_module(module), name)(ours)
        asyncio.run(asyncio.wait_for(wrapped(), 10))
    assert threads == [threading.current_thread()] * 5
