"""Puts background.py into the wheel once more, as the stub-only package that makes it typed for mypy and pyright.

PEP 561 lets a single module carry no `py.typed`. hatchling's own `force-include` moves a file and cannot double it, so
the second one is a copy that lives as long as the build.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubFromModule(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.scratch = TemporaryDirectory()
        copy = shutil.copy(Path(self.root, "background.py"), self.scratch.name)
        build_data["force_include"][copy] = "background-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.scratch.cleanup()
