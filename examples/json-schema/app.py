"""Checks payloads against a JSON schema for each event type. The schemas are the plugin's configuration; a refusal names
the path that does not fit.

The package fastjsonschema compiles each schema to a function once, in init."""

import json
import re
from typing import Any, Callable

import fastjsonschema
import signalbox
from signalbox import Message, guarded
from wit_world import exports
from componentize_py_types import Err

checks: dict[str, Callable[[Any], Any]] = {}


class Lifecycle(exports.Lifecycle):
    @guarded
    def init(self, config: str) -> None:
        """Reads {"schemas": {"order.create": {...}}}. An invalid schema keeps the version from going live."""
        schemas = json.loads(config).get("schemas")
        if not isinstance(schemas, dict) or not schemas:
            raise Err("config: schemas is missing: give a JSON schema for each event type")
        for event_type, schema in schemas.items():
            try:
                # Remote schemas cannot be fetched. Defaults are off because they would modify the payload.
                checks[event_type] = fastjsonschema.compile(schema, use_default=False)
            except Exception as error:
                raise Err(f"config: schemas.{event_type}: {error}") from error

    @guarded
    def self_test(self) -> None:
        pass


class Validation(exports.Validation):
    @guarded
    def validate(self, message: Message) -> None:
        check = checks.get(message.event_type)
        if check is None:
            return
        payload = signalbox.payload(message)
        try:
            check(payload)
        except fastjsonschema.JsonSchemaValueException as error:
            path = "payload" + error.name.removeprefix("data")
            signalbox.reject("schema", f"{path} {error.message.removeprefix(error.name).strip()}")
        except (ArithmeticError, RecursionError, re.error):
            # Refuse payloads that cannot be checked.
            signalbox.reject("schema", "payload cannot be checked")
