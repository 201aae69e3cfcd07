"""Who may import whom: docs/design.md's table, enforced on every import statement of the product."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

STAGES = ("validation", "extraction", "scoring", "selection", "export")

# Package or module under tasks/ -> what it must not import (prefixes), wherever in the file the import stands.
FORBIDDEN = {
    "tasks": ("flows", "prefect", "dvc"),
    "tasks.methods": (
        "torch", "transformers", "polars", "pyarrow", "pandas", "datasets", "tasks.vlm", "tasks.engines",
        "tasks.formats", "tasks.layout", "tasks.tables", *(f"tasks.{stage}" for stage in STAGES),
    ),
    "tasks.linalg": ("transformers", "tasks.methods", "tasks.vlm", "tasks.formats", "tasks.layout", "tasks.tables"),
    "tasks.vlm": ("tasks.methods", "tasks.layout", "tasks.store", *(f"tasks.{stage}" for stage in STAGES)),
    "tasks.formats": ("torch", "tasks.vlm", "tasks.methods", *(f"tasks.{stage}" for stage in STAGES)),
    "tasks.store": ("torch", "tasks.methods", "tasks.vlm", *(f"tasks.{stage}" for stage in STAGES)),
    **{f"tasks.{stage}": tuple(f"tasks.{one}" for one in STAGES if one != stage) for stage in STAGES},
}  # fmt: skip


def modules() -> dict[str, Path]:
    files = [*ROOT.glob("tasks/**/*.py"), *ROOT.glob("flows/**/*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, `from a import b` as both a and a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_stay_within_their_layer(package):
    wrong = [
        f"{module} imports {name}"
        for module, file in modules().items()
        if lies_in(module, package)
        for name in imports(file)
        if any(lies_in(name, ban) for ban in FORBIDDEN[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_every_rule_speaks_of_something_that_exists():
    known = modules()
    assert [one for one in FORBIDDEN if one not in known] == []


def test_only_one_module_starts_dvc():
    callers = [
        module
        for module, file in modules().items()
        if module.startswith("flows") and '"dvc"' in file.read_text(encoding="utf-8") and "subprocess" in imports(file)
    ]
    assert callers == ["flows.dvc"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tasks.methods", ("torch", "transformers", "prefect", "dvc", "polars", "great_expectations", "matplotlib")),
        ("tasks.params", ("torch", "transformers", "prefect", "dvc", "polars", "numpy", "pyarrow")),
        ("tasks.__main__", ("torch", "transformers", "prefect", "dvc", "polars", "numpy", "pyarrow")),
        ("flows.cli", ("torch", "transformers", "prefect", "dvc", "polars", "numpy", "pyarrow", "great_expectations")),
    ],
)
def test_light_modules_stay_light(module, absent):
    code = f"import sys, {module}; print([one for one in {absent!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["torch", "prefect", "dvc", "transformers"])
def test_methods_import_where_heavy_packages_are_absent(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import tasks.methods; tasks.methods.METHODS"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
