"""A chat endpoint of the OpenAI kind: one request with a JSON schema, retried while the endpoint is busy or down."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tasks.errors import EngineError, ParamsError
from tasks.params import JudgeSettings

Json = dict[str, Any]

_BUSY = {408, 409, 425, 429}
_LONGEST_WAIT = 60.0


class Endpoint:
    """A connection pool to one endpoint; safe to use from several threads. Use as a context manager."""

    def __init__(self, settings: JudgeSettings, first_wait: float = 1.0) -> None:
        key = os.environ.get(settings.api_key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._settings = settings
        self._first_wait = first_wait
        self._client = httpx.Client(headers=headers, timeout=settings.timeout)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, messages: Sequence[Mapping[str, Any]], name: str, schema: Json) -> str:
        """The text of the reply.

        Raises EngineError when the endpoint stays busy or down, ParamsError when it refuses the request itself.
        """
        body = {
            "model": self._settings.model,
            "messages": list(messages),
            "temperature": 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}},
        }
        reply = self._post(f"{self._settings.url.rstrip('/')}/chat/completions", body)
        try:
            return str(reply.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError):
            return ""

    def _post(self, url: str, body: Json) -> httpx.Response:
        problem = ""
        for attempt in range(self._settings.attempts):
            if attempt:
                time.sleep(self._wait(attempt))
            try:
                reply = self._client.post(url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if reply.is_success:
                return reply
            problem = f"HTTP {reply.status_code}: {reply.text[:200]}"
            if reply.status_code < 500 and reply.status_code not in _BUSY:
                raise ParamsError(f"extract.judge: {url} refuses the request, {problem}")
        raise EngineError(f"{url}: {self._settings.attempts} attempts failed, last {problem}; what was rated is kept")

    def _wait(self, attempt: int) -> float:
        """Seconds before another attempt: doubling, with jitter so that many clients do not return together."""
        return float(min(_LONGEST_WAIT, self._first_wait * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5))
