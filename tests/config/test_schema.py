"""The schemas hold what draft-07 editors understand, and describe every key."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rlhf_cli.config.schema import json_schema
from rlhf_cli.config.stages import STAGES


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for item in node:
            yield from nodes(item)


@pytest.mark.parametrize("stage", STAGES)
def test_dialect(stage):
    schema = json_schema(stage)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert json.loads(json.dumps(schema)) == schema
    for node in nodes(schema):
        assert not {"$defs", "prefixItems", "discriminator"} & set(node)
        if "$ref" in node:
            assert len(node) == 1
            assert node["$ref"].removeprefix("#/definitions/") in schema["definitions"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_is_described_in_a_sentence(stage):
    schema = json_schema(stage)
    for section in [schema, *schema["definitions"].values()]:
        assert section["additionalProperties"] is False
        assert section["description"]
        for key, field in section["properties"].items():
            assert field["description"].endswith("."), key


def test_tuples_are_arrays_of_items():
    betas = json_schema("sft")["definitions"]["Optim"]["properties"]["betas"]
    number = {"exclusiveMaximum": 1, "minimum": 0, "type": "number"}
    assert betas["items"] == [number, number]
    assert (betas["minItems"], betas["maxItems"], betas["additionalItems"]) == (2, 2, False)


def test_variants_are_told_apart_by_a_required_constant():
    schema = json_schema("ppo")
    kinds = []
    for choice in schema["properties"]["reward"]["items"]["oneOf"]:
        variant = schema["definitions"][choice["$ref"].removeprefix("#/definitions/")]
        assert "kind" in variant["required"]
        kinds.append(variant["properties"]["kind"]["const"])
    assert kinds == ["model", "ensemble", "length", "regex", "answer", "function", "http"]


def test_required_keys_may_be_in_a_base_file():
    schema = json_schema("sft")
    assert schema["if"] == {"required": ["extends"]}
    assert schema["else"] == {"required": ["run_dir", "model", "data"]}
    assert "required" not in schema
    assert "required" not in schema["definitions"]["Data"]
    assert schema["definitions"]["Source"]["required"] == ["path"]
