"""The commands that begin with a picture: what only a flow can do."""

from __future__ import annotations

from . import (
    edit_command,
    encode_command,
    interpolate_command,
    score_command,
    vary_command,
)

COMMANDS = {
    "score": (score_command.score, score_command.EPILOG),
    "encode": (encode_command.encode, encode_command.ENCODE_EPILOG),
    "decode": (encode_command.decode, encode_command.DECODE_EPILOG),
    "interpolate": (interpolate_command.interpolate, interpolate_command.EPILOG),
    "vary": (vary_command.vary, vary_command.EPILOG),
    "edit": (edit_command.edit, edit_command.EPILOG),
}
