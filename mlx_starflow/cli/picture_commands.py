"""The commands that begin with a picture: what only a flow can do."""

from __future__ import annotations

from . import compress as compress_command
from . import decompress as decompress_command
from . import edit as edit_command
from . import encode as encode_command
from . import interpolate as interpolate_command
from . import score as score_command
from . import vary as vary_command

COMMANDS = {
    "score": (score_command.score, score_command.EPILOG),
    "encode": (encode_command.encode, encode_command.ENCODE_EPILOG),
    "decode": (encode_command.decode, encode_command.DECODE_EPILOG),
    "compress": (compress_command.compress, compress_command.EPILOG),
    "decompress": (decompress_command.decompress, decompress_command.EPILOG),
    "interpolate": (interpolate_command.interpolate, interpolate_command.EPILOG),
    "vary": (vary_command.vary, vary_command.EPILOG),
    "edit": (edit_command.edit, edit_command.EPILOG),
}
