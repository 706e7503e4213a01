"""STARFlow checkpoints: from weights and published YAML to a configuration."""

from __future__ import annotations

import math
import re

from mlx_starflow.config import BlockConfig, FlowConfig, SampleDefaults
from mlx_starflow.errors import ConfigError

from ..read.published_yaml import Settings
from ..read.tensor_file import SourceTensor
from .architecture import Architecture, contradiction
from .block_shapes import BlockShapes
from .starflow_clips import clip_rules, split_vae, usual_factor
from .starflow_text import text_config, text_repository

# Language models that a deep block may have the shape of: (heads, kv heads, head size, qk norm).
_LANGUAGE_MODELS = {
    "gemma3_4b": (8, 4, 256, True),
    "gemma3_1b": (4, 1, 256, True),
    "gemma2_2b": (8, 4, 256, False),
}
CLIP_GUIDANCE = 3.5  # published for clips
_DENOISER = "learnable_self_denoiser."
_ATTENTION = "attn_blocks.0.attention."
# Buffers that are not needed: masks, rotary tables (all zeros in the file), and var.
_DROPPED = re.compile(r"(.+\.)?attn_mask|feat_rope\w*\.freqs_\w+|var")


def starflow_architecture(
    tensors: dict[str, SourceTensor],
    settings: Settings,
    where: str,
    vae_factor: int | None = None,
    labels: tuple[str, ...] = (),
) -> Architecture:
    """The architecture of a STARFlow checkpoint.

    where: the checkpoint, for messages. vae_factor: pixels per latent cell along one side, of a
    given VAE. labels: class names for a class-conditional model. Errors: ConfigError if the YAML
    and the weights contradict each other, WeightsError if tensors are missing or do not fit.
    """
    return _Starflow(tensors, settings, where).architecture(vae_factor, labels)


class _Starflow:
    """Derives the architecture, comparing the YAML with the weights on the way."""

    def __init__(self, tensors: dict[str, SourceTensor], settings: Settings, where: str) -> None:
        self.tensors, self.settings, self.where = tensors, settings, where
        self.last = settings.blocks - 1
        self.clips = clip_rules(settings)
        self.check_blocks()
        self.shapes = [
            BlockShapes.of(f"blocks.{i}.", tensors, where) for i in range(settings.blocks)
        ]
        self.head_dim = self.find_head_dim()

    def compare(self, key: str, found: object, tensor: str, said: object = None) -> None:
        """Raise a ConfigError if the YAML has ``key`` with another value than ``found`` in the
        weights. ``tensor``: for the message. ``said``: the YAML's value; None: look it up."""
        said = getattr(self.settings, key) if said is None else said
        if key in self.settings.given and said != found:
            said, found = (int(v) if isinstance(v, bool) else v for v in (said, found))
            raise contradiction(self.settings.where, key, said, found, tensor)

    def check_blocks(self) -> None:
        numbers = {int(m[1]) for n in self.tensors if (m := re.match(r"blocks\.(\d{1,4})\.", n))}
        if not numbers:
            raise ConfigError(
                f"{self.where} is not a STARFlow or TarFlow checkpoint: no tensor's name begins "
                "with 'blocks.0.'."
            )
        if max(numbers) > self.last:
            listed = len(self.settings.layers_per_block) > 1
            raise contradiction(
                self.settings.where,
                "the length of layers_per_block" if listed else "blocks",
                self.settings.blocks,
                max(numbers) + 1,
                f"blocks.{max(numbers)}.*",
            )

    def find_head_dim(self) -> int:
        """The head size: from the width of the rotary table if there is one, else from the YAML."""
        for name, tensor in self.tensors.items():
            found = re.fullmatch(r"feat_rope\.freqs_\w+", name) and len(tensor.shape) == 2
            if found and tensor.shape[1]:
                self.compare("head_dim", tensor.shape[1], name)
                return tensor.shape[1]
        return self.settings.head_dim

    # Sizes of the whole model

    def tokens(self) -> int | None:
        """T of the training grid, if a tensor determines it; with pt_seq_len, P squared of the
        rotary positions, which is a different number."""
        if self.settings.pt_seq_len is not None and self.settings.rope:
            self.check_rotary_size(self.settings.pt_seq_len**2)
            return self.settings.pt_seq_len**2
        for name in ("var", "blocks.0.pos_embed"):
            shape = self.tensors[name].shape if name in self.tensors else ()
            if len(shape) == 2 and shape[0]:
                return shape[0]
        return None

    def check_rotary_size(self, tokens: int) -> None:
        shape = self.tensors["var"].shape if "var" in self.tensors else ()
        if shape and shape[0] != tokens:
            found = math.isqrt(shape[0])
            raise contradiction(
                self.settings.where, "pt_seq_len", self.settings.pt_seq_len, found, "var"
            )

    def text_length(self, tokens: int | None) -> int:
        masks = [n for n, t in self.tensors.items() if n.endswith(".attn_mask") and t.shape]
        if not masks or tokens is None or self.tensors[masks[0]].shape[0] < tokens:
            return self.settings.txt_size
        name = masks[0]
        found = self.tensors[name].shape[0] - tokens
        self.compare("txt_size", found, name)
        return found

    def vae_factor(self, given: int | None, tokens: int | None) -> int:
        """Pixels per latent cell along one side: of the given VAE, else from the number of tokens,
        else the usual value of 8 (1 without a VAE)."""
        s = self.settings
        if s.pt_seq_len is not None and s.rope:
            tokens = None  # of the rotary positions: it tells nothing of the grid
        side = None if tokens is None else math.isqrt(tokens)
        if given is None and side is not None and side * side == tokens:
            given, rest = divmod(s.img_size, s.patch_size * side)
            if rest or given & (given - 1):
                raise contradiction(s.where, "img_size", s.img_size, f"{tokens} tokens", "var")
        if given is None:
            given = usual_factor(split_vae(s)[0])
        if s.img_size % (given * s.patch_size):
            raise ConfigError(
                f"{s.where}: img_size is {s.img_size}; expected a multiple of "
                f"{given * s.patch_size} ({given} pixels per latent, patches of {s.patch_size})."
            )
        grid = s.img_size // given // s.patch_size
        if tokens is not None and grid * grid != tokens:
            raise ConfigError(
                f"{s.where}: img_size {s.img_size} with {given} pixels per latent and patches of "
                f"{s.patch_size} gives {grid * grid} tokens, but the weights have {tokens} (var). "
                "Does the VAE belong to this checkpoint?"
            )
        return given

    # Blocks

    def conditioned(self, i: int, text_length: int) -> bool:
        s, deep = self.settings, i == self.last
        has = "proj_txt.weight" in self.shapes[i]
        if not deep and text_length and self.shapes[i].layers:
            self.compare("cond_top_only", not has, f"blocks.{i}.proj_txt.weight")
        if has and not text_length:
            raise contradiction(s.where, "txt_size", 0, "not 0", f"blocks.{i}.proj_txt.weight")
        return has or (deep and text_length > 0)

    def flip(self, i: int) -> bool:
        return (i % 2 == 1) == (self.settings.seq_order == "R2L")

    def position(self, shapes: BlockShapes) -> str:
        table = "pos_embed" in shapes
        self.compare("rope", not table, f"{shapes.prefix}pos_embed")
        return "table" if table else "spatial"

    def block(self, i: int, text_length: int) -> BlockConfig:
        s, shapes = self.settings, self.shapes[i]
        lm = s.use_pretrained_lm if i == self.last else ""
        layers = shapes.layers
        if not lm:
            per_block = s.layers_per_block
            if len(per_block) == 1:
                per_block *= s.blocks
            self.compare("layers_per_block", layers, f"blocks.{i}.attn_blocks.*", per_block[i])
        if not layers:
            return BlockConfig(0, 0, 0, 0, 0, 0, flip=self.flip(i))
        if lm:
            return self.language_model_block(shapes, lm, i, text_length)
        conditioned = self.conditioned(i, text_length)
        block = shapes.block(
            lambda inner, rows: self.head_dim,
            position=self.position(shapes),
            conditioned=conditioned,
            flip=self.flip(i),
            local=self.clips.local and i != self.last,
        )
        own_width = i == self.last and s.top_block_channels is not None
        self.check_block(block, shapes.prefix, "top_block_channels" if own_width else "channels")
        self.compare("sos", "sos_embed" in shapes, f"{shapes.prefix}sos_embed")
        return block

    def check_block(self, block: BlockConfig, prefix: str, width: str) -> None:
        """Compare the block from the shapes with the YAML. ``width``: the YAML's key for it."""
        s, layer = self.settings, f"{prefix}{_ATTENTION}"
        self.compare(width, block.channels, f"{prefix}proj_in.weight")
        self.compare("head_dim", block.head_dim, f"{layer}query_norm.weight")
        self.compare("norm_type", block.norm, f"{layer}norm.bias")
        self.compare("use_swiglu", block.gated_mlp, f"{prefix}attn_blocks.0.mlp.gate_proj.weight")
        self.compare("use_bias", block.bias, f"{layer}qkv.bias")
        self.compare("use_qk_norm", block.qk_norm, f"{layer}query_norm.weight")
        self.compare("use_post_norm", block.post_norm, f"{layer}post_norm.weight")
        self.compare("use_final_norm", block.final_norm, f"{prefix}final_norm.weight")
        if width != "channels":
            return
        heads = s.num_heads or block.channels // block.head_dim
        kv_heads = s.num_kv_heads or heads
        for key, said, found, tensor in (
            ("num_heads", heads, block.heads, "proj.weight"),
            ("num_kv_heads", kv_heads, block.kv_heads, "qkv.weight"),
        ):
            if said != found:
                raise contradiction(s.where, key, said, found, layer + tensor)

    def language_model_block(
        self, shapes: BlockShapes, lm: str, i: int, text_length: int
    ) -> BlockConfig:
        """A deep block with the shape of a Gemma model: sizes from the weights, the rest from
        ``lm``."""
        heads, kv_heads, head_dim, qk_norm = _LANGUAGE_MODELS[lm]

        def guess(inner: int, rows: int) -> int:
            # Without a query norm the shapes determine only heads * head_dim and the ratio of
            # heads to kv heads. If the published number of heads fits, it is used, so that smaller
            # models of the same kind work too.
            fits = inner % (2 * heads) == 0 and (rows - inner) * heads == 2 * kv_heads * inner
            return inner // heads if fits else head_dim

        for name, expected in (
            ("attn_blocks.0.mlp.gate_proj.weight", True),
            (_ATTENTION + "norm.bias", False),
            (_ATTENTION + "qkv.bias", False),
            (_ATTENTION + "post_norm.weight", True),
            (_ATTENTION + "query_norm.weight", qk_norm),
            ("final_norm.weight", True),
            ("proj_txt.weight", False),
        ):
            if (name in shapes) != expected:
                raise ConfigError(
                    f"{self.settings.where}: use_pretrained_lm is {lm}, but the weights "
                    f"{'lack' if expected else 'have'} {shapes.prefix + name!r}. "
                    "Does this configuration belong to the checkpoint?"
                )
        self.compare("sos", "sos_embed" in shapes, f"{shapes.prefix}sos_embed")
        return shapes.block(
            guess, position="sequence", conditioned=text_length > 0, flip=self.flip(i)
        )

    def denoiser(self, text_length: int) -> BlockConfig | None:
        shapes = BlockShapes.of(_DENOISER, self.tensors, self.where)
        self.compare("learnable_self_denoiser", bool(shapes.tensors), _DENOISER + "*")
        if not shapes.tensors:
            return None
        conditioned = "proj_txt.weight" in shapes
        self.compare("conditional_denoiser", conditioned, _DENOISER + "proj_txt.weight")
        block = shapes.block(
            lambda inner, rows: self.head_dim, position="spatial", conditioned=conditioned
        )
        self.compare("channels", block.channels, _DENOISER + "proj_in.weight")
        return block

    # The result

    def architecture(self, given_factor: int | None, labels: tuple[str, ...]) -> Architecture:
        s, tokens = self.settings, self.tokens()
        text_length = self.text_length(tokens)
        factor = self.vae_factor(given_factor, tokens)
        blocks = tuple(self.block(i, text_length) for i in range(s.blocks))
        first = next((b for b in self.shapes if b.layers), self.shapes[0])
        d = first.shape("proj_in.weight")[1]
        if d != s.patch_size**2 * s.channel_size:
            raise contradiction(
                s.where,
                "patch_size^2 * channel_size",
                s.patch_size**2 * s.channel_size,
                d,
                first.prefix + "proj_in.weight",
            )
        text_channels = self.text_channels(blocks) if text_length else 0
        grid_size = s.img_size // factor // s.patch_size
        denoiser = self.denoiser(text_length)
        flow = FlowConfig(
            model_type="starflow",
            in_channels=s.channel_size,
            patch_size=s.patch_size,
            grid_size=grid_size,
            blocks=blocks,
            noise_std=s.noise_std,
            text_channels=text_channels,
            text_length=text_length if text_channels else 0,
            sos=any("sos_embed" in b for b in self.shapes),
            scale="softplus" if s.use_softplus else "exp",
            soft_clip=s.soft_clip,
            mix_aspect=s.mix_aspect,
            denoiser=denoiser,
            rotary_size=None if s.pt_seq_len == grid_size else s.pt_seq_len,
            frames=self.clips.frames,
            temporal_causal=s.temporal_causal,
            denoiser_window=s.denoiser_window if denoiser is not None else None,
        )
        vae, _ = split_vae(s)
        defaults = SampleDefaults(guidance=CLIP_GUIDANCE) if self.clips.clips else SampleDefaults()
        return Architecture(
            flow,
            text_config(s, flow, labels) if text_channels else None,
            s.img_size,
            defaults if text_channels else SampleDefaults(guidance=0.0),
            frozenset(n for n in self.tensors if _DROPPED.fullmatch(n)),
            vae if re.fullmatch(r"[\w.-]+/[\w.-]+", vae) else "",
            text_repository(s) if text_channels else "",
            self.clips.clips,
        )

    def text_channels(self, blocks: tuple[BlockConfig, ...]) -> int:
        for shapes in self.shapes:
            if "proj_txt.weight" in shapes:
                return shapes.shape("proj_txt.weight")[1]
        return blocks[-1].channels  # a Gemma-shaped block has no text projection
