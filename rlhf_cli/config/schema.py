"""JSON schemas of the stages' YAML files, in the draft-07 dialect that editors understand."""

from typing import Any

from rlhf_cli.config.stages import STAGES

DRAFT = "http://json-schema.org/draft-07/schema#"

_EXTENDS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ],
    "description": "Files this one builds on, relative to it; maps are merged, later files win.",
}


def json_schema(stage: str) -> dict[str, Any]:
    """Return the schema of a stage's file.

    Required keys are not demanded of a file that `extends` another. Raises KeyError for an unknown stage.
    """
    schema = _draft07(STAGES[stage].model_json_schema())
    definitions = schema["definitions"]
    for name in _mergeable(schema):
        definitions[name].pop("required", None)
    required = schema.pop("required")
    return {
        "$schema": DRAFT,
        "title": f"rlhf {stage}",
        **schema,
        "properties": {"extends": _EXTENDS, **schema["properties"]},
        "if": {"required": ["extends"]},
        "else": {"required": required},
    }


def _draft07(node: Any, *, names: bool = False) -> Any:
    """Rewrite pydantic's 2020-12 dialect; in a map of `names`, keys are the user's and stay."""
    if isinstance(node, list):
        return [_draft07(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {key: _draft07(value) for key, value in node.items()}
    result = {}
    for key, value in node.items():
        if key in ("title", "discriminator"):
            continue
        if key == "$ref":
            result[key] = value.replace("#/$defs/", "#/definitions/")
        elif key == "prefixItems":
            result |= {"items": _draft07(value), "additionalItems": False}
        elif key in ("$defs", "properties"):
            result["definitions" if key == "$defs" else key] = _draft07(value, names=True)
        elif key in ("default", "const", "enum"):
            result[key] = value
        else:
            result[key] = _draft07(value)
    if "$ref" in result and len(result) > 1:
        return {"allOf": [{"$ref": result.pop("$ref")}], **result}
    return result


def _mergeable(schema: dict[str, Any]) -> set[str]:
    """Name the sections that merging can complete: those that are maps below maps, outside any list."""
    found: set[str] = set()
    todo = [schema]
    while todo:
        for field in todo.pop()["properties"].values():
            for choice in [field, *field.get("allOf", []), *field.get("anyOf", [])]:
                name = choice.get("$ref", "").removeprefix("#/definitions/")
                if name and name not in found:
                    found.add(name)
                    todo.append(schema["definitions"][name])
    return found
