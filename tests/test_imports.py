"""What an import costs: a program pays for the parts that it uses."""

import ast
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import pyresilience

SOURCE = Path(pyresilience.__file__)


def loaded_after(program: str) -> set[str]:
    """The modules that `program` loads in a fresh interpreter, which may measure coverage."""
    code = f"import sys; before = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_loads_nothing_of_it():
    loaded = loaded_after("import pyresilience")
    assert [name for name in loaded if name.startswith("pyresilience")] == ["pyresilience"]
    assert "anyio" not in loaded


@pytest.mark.parametrize(
    ("program", "policies"),
    [
        ("@resilient\ndef work(): return 1", {"retry"}),
        ("@resilient(timeout=TimeoutConfig())\ndef work(): return 1", {"timeout"}),
        ("@resilient(cache=CacheConfig())\ndef work(): return 1", {"cache"}),
    ],
)
def test_a_sync_program_loads_its_policies_and_no_event_loop(program, policies):
    loaded = loaded_after(
        f"from pyresilience import CacheConfig, TimeoutConfig, resilient\n{program}\nassert work() == 1"
    )
    named = {"retry", "retry_budget", "timeout", "cache", "circuit_breaker", "bulkhead", "rate_limiter", "fallback"}
    used = {name.rpartition(".")[2] for name in loaded if name.startswith("pyresilience.policies.")} & named
    assert used == policies | {"timeout", "cache"}, "those two are imported by name"
    assert not loaded & {"anyio", "trio", "fractions", "random"}


ASYNC_PROGRAM = """
import asyncio
from pyresilience import RetryConfig, TimeoutConfig, resilient

attempts = []

@resilient({policies})
async def work():
    attempts.append(1)
    if len(attempts) == 1:
        raise ConnectionError
    return 1

def run():
    assert asyncio.run(work()) == 1
    assert len(attempts) == 2
"""


def test_guarding_an_async_function_does_not_load_anyio():
    program = ASYNC_PROGRAM.format(policies="timeout=TimeoutConfig(5), retry=RetryConfig(delay=0)")
    assert "anyio" not in loaded_after(program)
    assert "anyio" in loaded_after(f"{program}\nrun()")


def test_a_retry_on_plain_asyncio_never_loads_anyio():
    assert "anyio" not in loaded_after(ASYNC_PROGRAM.format(policies="retry=RetryConfig(delay=0)") + "\nrun()")


def test_every_public_name_is_where_type_checkers_look_for_it():
    tree = ast.parse(SOURCE.read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "pyresilience" in str(node.module)
    ]
    checked = {alias.name: node.module for node in imports for alias in node.names}
    at_runtime = {name: f"pyresilience.{home}" for name, home in pyresilience._HOME.items()}
    assert checked == at_runtime
    assert {*checked, "__version__"} == set(pyresilience.__all__) <= set(dir(pyresilience))
    for name in pyresilience.__all__:
        assert getattr(pyresilience, name) is not None


@pytest.mark.parametrize("module", sorted(pyresilience._MODULES))
def test_a_module_is_an_attribute_before_anybody_imports_it(module):
    assert f"pyresilience.{module}" in loaded_after(f"import pyresilience; pyresilience.{module}")


def test_the_types_of_a_config_can_be_asked_for():
    hints = typing.get_type_hints(pyresilience.ResilienceConfig)
    assert hints["retry"] == pyresilience.RetryConfig | pyresilience.Retry | None
    assert typing.get_type_hints(pyresilience.ResilienceConfig.pipeline)["return"] is pyresilience.Pipeline


def test_the_types_of_the_decorator_can_be_asked_for():
    assert typing.get_type_hints(pyresilience.resilient)["name"] == str | None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyresilience' has no attribute 'Retri'"):
        pyresilience.Retri  # noqa: B018
    with pytest.raises(ImportError, match="Retri"):
        from pyresilience import Retri  # noqa: F401
