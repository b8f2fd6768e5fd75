"""Named configurations, and the state that all functions decorated with one name share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pyresilience.config import ResilienceConfig

if TYPE_CHECKING:
    from pyresilience.pipeline._pipeline import Pipeline

P = ParamSpec("P")
R = TypeVar("R")


class ResilienceRegistry:
    """Configs by name. Functions decorated with one name share one pipeline, sync and async alike. Thread-safe.

    ```python
    registry = ResilienceRegistry()
    registry.register("payment-api", ResilienceConfig(circuit_breaker=CircuitBreakerConfig()))


    @registry.decorator("payment-api")
    async def charge(amount: int) -> Receipt: ...
    ```
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._configs: dict[str, ResilienceConfig] = {}
        self._pipelines: dict[str, Pipeline] = {}
        self._default: ResilienceConfig | None = None

    def __repr__(self) -> str:
        return f"ResilienceRegistry({', '.join(map(repr, self.names))})"

    def register(self, name: str, config: ResilienceConfig) -> None:
        """Keep `config` under `name`.

        A name can be registered again: functions decorated from then on get the new config with fresh state, those
        decorated before keep what they have.

        Raises:
            TypeError: `name` is not a str or `config` not a `ResilienceConfig`.
        """
        _check(name, config)
        with self._lock:
            self._configs[name] = config
            self._pipelines.pop(name, None)

    def get(self, name: str) -> ResilienceConfig | None:
        """The config registered under `name`, or None."""
        return self._configs.get(name)

    def get_or_default(self, name: str) -> ResilienceConfig:
        """The config registered under `name`, or else the default one.

        Raises:
            KeyError: neither is there.
        """
        with self._lock:
            config = self._configs.get(name, self._default)
            if config is None:
                known = ", ".join(map(repr, self._configs)) or "none"
                raise KeyError(f"no config is registered under {name!r} and there is no default; registered: {known}")
            return config

    def set_default(self, config: ResilienceConfig) -> None:
        """Use `config` for names that are not registered; each such name still has state of its own.

        Raises:
            TypeError: `config` is not a `ResilienceConfig`.
        """
        _check("", config)
        with self._lock:
            self._default = config

    def decorator(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Guard a function, `async def` or `def`, with the config of `name`.

        Raises:
            KeyError: the name is not registered and there is no default.
        """
        return self.pipeline(name)

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline that all functions decorated with `name` share; made when it is first asked for.

        Raises:
            KeyError: the name is not registered and there is no default.
        """
        with self._lock:
            pipeline = self._pipelines.get(name)
            if pipeline is None:
                pipeline = self._pipelines[name] = self.get_or_default(name).pipeline(name)
            return pipeline

    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines of all `names`, by name."""
        with self._lock:
            return {name: self.pipeline(name) for name in self.names}

    def unregister(self, name: str) -> bool:
        """Forget a name; False when it was not known. Functions decorated with it stay guarded."""
        with self._lock:
            used = self._pipelines.pop(name, None) is not None
            return self._configs.pop(name, None) is not None or used

    @property
    def names(self) -> list[str]:
        """The names that are registered, or were used with the default config, in that order."""
        with self._lock:
            return list({**self._configs, **self._pipelines})

    def clear(self) -> None:
        """Forget all names and the default."""
        with self._lock:
            self._configs.clear()
            self._pipelines.clear()
            self._default = None


def _check(name: object, config: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    if not isinstance(config, ResilienceConfig):
        raise TypeError(f"config must be a ResilienceConfig, not {config!r}")
