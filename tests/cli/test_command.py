"""The command line."""

from __future__ import annotations

import sys

import pytest

from pyresilience import Pipeline, __version__
from pyresilience_middleware.cli import main, require
from pyresilience_middleware.cli._app import Rates, guard, load_guard


def refusal(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"pyresilience {__version__}\n"


def test_without_a_command_it_says_which_there_are(capsys):
    assert "demo" in refusal(capsys)


def test_help_explains_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--help"])
    assert stop.value.code == 0
    assert "exit codes" in capsys.readouterr().out


@pytest.mark.parametrize("duration", ["1", "60", "nan", "soon"])
def test_a_duration_out_of_bounds_is_refused_by_name(capsys, duration):
    error = refusal(capsys, "demo", "--duration", duration)
    assert "--duration" in error
    assert "from 2 to 16" in error
    assert repr(duration) in error


def test_a_missing_package_is_named_with_the_command_that_installs_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    error = refusal(capsys, "demo")
    assert "rich is not installed" in error
    assert "pip install httpx2 rich starlette uvicorn" in error


def test_require_raises_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    require("rich")
    with pytest.raises(ImportError, match="uvicorn is not installed; pip install rich uvicorn"):
        require("rich", "uvicorn")


def test_a_pipeline_is_found_by_module_and_function():
    assert load_guard("pyresilience_middleware.cli._app:guard") is guard


@pytest.mark.parametrize("reference", ["guard", "module:", ":guard"])
def test_a_pipeline_must_be_written_module_and_function(reference):
    with pytest.raises(ValueError, match=f"MODULE:FUNCTION, not {reference!r}"):
        load_guard(reference)


def test_a_function_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="has no function 'nobody'"):
        load_guard("pyresilience_middleware.cli._app:nobody")


def test_what_a_pipeline_function_returns_must_be_a_pipeline():
    def shield(last_known):
        return last_known

    with pytest.raises(TypeError, match=r"shield\(\) must return a Pipeline"):
        Rates("http://127.0.0.1:1", shield)


def test_the_fallback_has_nothing_to_say_before_the_first_answer():
    """Until then the error surfaces: an invented rate would be worse than none."""
    rates = Rates("http://127.0.0.1:1", lambda last_known: Pipeline())
    error = LookupError("down")
    with pytest.raises(LookupError) as raised:
        rates.last_known(error)
    assert raised.value is error
