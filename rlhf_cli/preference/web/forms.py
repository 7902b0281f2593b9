"""The fields of a posted form, from a body of bounded size."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_BODY_BYTES = 256 * 1024
_MAX_FIELDS = 64


@dataclass(frozen=True, slots=True)
class Form:
    """Fields with their values, in the order sent."""

    fields: Mapping[str, list[str]]

    def all(self, name: str) -> list[str]:
        return self.fields.get(name, [])

    def text(self, name: str) -> str:
        """Return the first value without white space around it; "" if there is none."""
        return self.verbatim(name).strip()

    def verbatim(self, name: str) -> str:
        """Return the first value with plain line breaks, white space and all; "" if there is none."""
        values = self.all(name)
        return values[0].replace("\r\n", "\n").replace("\0", "") if values else ""

    def number(self, name: str) -> int:
        """Return a value of digits as a number. Raises HTTPException 422 for any other."""
        value = self.text(name)
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise HTTPException(422, f"the field {name} is not a number")
        return int(value)


async def read_form(request: Request) -> Form:
    """Read the body. Raises HTTPException: 415 if it is no form, 413 if it is too long, 400 if it is garbled."""
    if (
        request.headers.get("content-type", "").partition(";")[0].strip()
        != "application/x-www-form-urlencoded"
    ):
        raise HTTPException(415, "only forms are understood here")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"more than {MAX_BODY_BYTES // 1024} KiB cannot be sent at once")
    try:
        fields = parse_qs(
            body.decode("ascii"), keep_blank_values=True, errors="replace", max_num_fields=_MAX_FIELDS
        )
    except ValueError:  # also UnicodeDecodeError
        raise HTTPException(400, "the form is garbled") from None
    return Form(fields)
