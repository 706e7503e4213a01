"""``load`` and ``Pipeline``: from prompt to picture, for applications."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import mlx.core as mx
import numpy as np
from PIL import Image

from .config import FlowConfig, ModelConfig
from .device.worker import Turn, Worker
from .errors import Cancelled, UsageError
from .flow import Flow
from .flow.split import Split
from .generation.capabilities import capabilities
from .generation.components import Asked, Components
from .generation.context import PromptRows, prompt_rows, tokenizer_notes, unknown_words
from .generation.draw import decode, generation, measured
from .generation.events import BlockProgress, Event, Finished
from .generation.given import Given
from .generation.memory import largest_batch
from .generation.preview import RoughDecoder
from .generation.progress import in_notebook, shown
from .generation.request import request
from .generation.result import Result
from .generation.settings import Settings
from .hub.acquire import acquire
from .hub.download import Tell
from .pictures.arrays import to_pictures
from .text import TextEncoder
from .vae import Autoencoder

T = TypeVar("T")
EVENTS_PER_SECOND = 30  # most BlockProgress events; all other events are always yielded


class Flag(Protocol):
    """Anything like ``threading.Event``: set from any thread to cancel."""

    def is_set(self) -> bool: ...


def load(
    model: str | Path | None = None,
    dtype: str | mx.Dtype | None = None,
    quantize: int | str | None = None,
    low_ram: bool = False,
    tell: Tell | None = None,
    adapters: Sequence[Asked] = (),
    split: Split | None = None,
) -> Pipeline:
    """A pipeline for a model.

    model: a bundle directory, a hub repository ("owner/name") or a known name; None is the model
    embedded in the package.
    dtype: "float32", "float16" or "bfloat16" for the flow's large matrices; None: as stored, or
    what suits the device.
    quantize: 4, 8 or "mixed" bits for these matrices; None: as stored.
    low_ram: drop the text encoder and the flow as soon as they are not needed, and read them again
    for the next call.
    tell: a function that receives the events of a download and a conversion, if there is one
    (``mlx_starflow.hub.download``).
    adapters: directories of adapters (``mlx-starflow train``), each alone or as (directory, scale).
    split: how the arithmetic is divided among ranks (docs/many-macs.md).

    Components are read when they are first used. A model that is complete on disk is not
    downloaded again.
    Errors: ModelNotFoundError, HubError, ConfigError, WeightsError, UsageError.
    """
    name = str(model) if model is not None else "default"
    if isinstance(dtype, mx.Dtype):
        dtype = str(dtype).removeprefix("mlx.core.")
    return Pipeline(
        Components(acquire(model, quantize, tell), name, dtype, quantize, tell, adapters, split),
        low_ram,
    )


class Pipeline:
    """A model and everything it needs; made by ``load``.

    Any method may be called from any thread. The pipeline has one worker thread, which does all
    work, one call after another. To free the memory at a known moment, call ``close`` or use the
    pipeline as a context manager.
    """

    def __init__(self, components: Components, low_ram: bool = False) -> None:
        self._components = components
        self._low_ram = low_ram
        self._worker = Worker("mlx-starflow")
        self._turn = Turn()  # one generate() at a time, so that their memory does not add up
        self._rough: RoughDecoder | None = None

    @property
    def config(self) -> ModelConfig:
        """The model's config.json."""
        return self._components.config

    @property
    def name(self) -> str:
        """The model's name as given to ``load``: "default", a known name, a repository or a
        directory."""
        return self._components.name

    @property
    def directory(self) -> Path:
        """The model's bundle on disk."""
        return self._components.directory

    @property
    def fingerprint(self) -> str:
        """A hash of the flow's weights (16 hex digits), and of adapters on them; stored in every
        picture's settings."""
        return self._components.fingerprint

    @property
    def adapters(self) -> list[dict[str, Any]]:
        """The adapters on the flow: path, scale and fingerprint of each."""
        return self._components.adapter_records()

    def set_adapters(self, adapters: Sequence[Asked]) -> None:
        """Put these adapters (directories, or (directory, scale)) in the place of those that are on
        the flow, between two pictures; the model is not loaded again. Errors: ModelNotFoundError,
        ConfigError for one of another model, WeightsError; the flow then keeps what it has."""
        with self._turn.held():
            self._worker.call(lambda: self._components.set_adapters(adapters))

    def fingerprint_of(self, component: str) -> str:
        """A hash of the stored weights of "flow", "vae" or "text_encoder" (16 hex digits), or ""
        if the model has no such component."""
        return self._components.fingerprint_of(component)

    @property
    def flow_config(self) -> FlowConfig:
        """The flow's configuration; reads no weights."""
        return self._components.flow_config

    @property
    def flow(self) -> Flow:
        """The flow: ``flow(x, context) -> (z, logdet)``. Loaded when first used."""
        return self._worker.call(lambda: self._components.flow)

    @property
    def vae(self) -> Autoencoder | None:
        """The image autoencoder, loaded when first used; None if the flow makes pixels."""
        return self._worker.call(lambda: self._components.vae)

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The text encoder, loaded when first used; None for a model without text."""
        return self._worker.call(lambda: self._components.text_encoder)

    def encode_prompts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> mx.array:
        """Text features (N, L, D) float32 of N prompts, put into the model's prompt template; "" is
        the null caption. ``fps``: frames per second of clips, 0 for pictures. Errors: UsageError
        for a model without text, TextError for an unknown class."""
        if not self._components.flow_config.text_channels:
            raise UsageError("This model takes no text; its context is labels or nothing.")
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        features = self.prompt_rows(prompts, aspect_ratio, fps=fps).own(prompts)
        if features is None:
            raise UsageError("This model takes no text; its context is labels or nothing.")
        mx.eval(features)
        return features

    def prompt_rows(
        self,
        prompts: Sequence[str],
        aspect_ratio: str = "1:1",
        negative: str = "",
        fps: int = 0,
    ) -> PromptRows:
        """The flow's context (text features, labels or None) for these prompts and for the null
        caption, which ``negative`` replaces. Errors: UsageError, TextError."""
        return self._worker.call(
            lambda: prompt_rows(self._components, prompts, aspect_ratio, negative, fps)
        )

    def decoding_bytes(self, height: int, width: int) -> int:
        """Estimated peak memory in bytes of decoding one latent of height × width; 0 without a
        VAE."""
        return self._components.decoding_bytes(height, width)

    def prompt_notes(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", cuts: bool = True
    ) -> tuple[str, ...]:
        """Warnings about these prompts, one sentence each: words that the model was not trained
        with, characters that the tokenizer does not know, and prompts that are cut because they are
        too long. Finding the last two loads the text encoder; ``cuts=False`` leaves them out
        (``generate`` reports them itself)."""
        notes = unknown_words(self._components, prompts)
        if cuts:
            notes += self._worker.call(
                lambda: tokenizer_notes(self._components, prompts, aspect_ratio)
            )
        return notes

    def label(self, prompt: str) -> int:
        """The number of the class that a prompt names, -1 for "", in a class-conditional model.
        Errors: UsageError."""
        return self._components.label(prompt)

    def generate(
        self,
        prompt: str | int | Sequence[str | int] | None = None,
        seed: int | Sequence[int] | None = None,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        num_images: int = 1,
        noise: mx.array | np.ndarray | None = None,
        denoise: bool | None = None,
        frames: int | None = None,
        fps: int | None = None,
        image: Given | None = None,
        video: Given | None = None,
        cancel: Flag | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Result:
        """Draw pictures or clips for a prompt, as one batch.

        prompt: a text, a class (name or number) for a class-conditional model, a list of them, or
        None for an unconditional model.
        seed: of the first picture; the others of a prompt get seed + 1, seed + 2, ... A list gives
        one seed per picture. None draws a random seed, which is in the result. The same seed gives
        the same noise alone, in a batch and in any thread.
        guidance: weight of classifier-free guidance, 0 for none.
        sampler: how the flow is inverted, a name such as "auto" or "sequential".
        steps: most sweeps that a parallel sampler may make over one window of tokens.
        noise: (B, h, w, c) standard normal numbers to use instead of the seeded ones; for
        clips (B, N, h, w, c).
        frames, fps: of a clip, for a model of clips; without frames it makes a picture.
        image, video: what the clip begins with: a path, PIL images, or uint8 (H, W, 3),
        (M, H, W, 3).
        denoise: False keeps the noise that was added to the data in training in the picture.
        cancel: set it from any thread to stop; the call then raises ``Cancelled``.
        progress: whether to show a progress bar; None shows one in notebooks only.
        options: negative_prompt (guidance leads away from it; it replaces the null caption),
        noise_std, denoiser ("score", "learned"), aspect_ratio ("3:2", or "random"), width, height
        (pixels), vae_tiling, extend (clips: the caption says that it continues another), and the
        other fields of ``SampleOptions`` (tolerance, block_size, windows, attention_temperature,
        guidance_blocks; clips: window, context_frames; TarFlow: guide, annealed).

        None selects the model's default for every argument. Returns a ``Result``: pictures,
        latents and settings. Errors: UsageError for what the model cannot do, NumericsError if a
        picture has NaN, OutOfMemoryError, Cancelled, and those of ``load``.
        """
        settings, noise, given = request(
            self._components, prompt, seed, noise, guidance=guidance, steps=steps, sampler=sampler,
            num_images=num_images, denoise=denoise, frames=frames, fps=fps, image=image,
            video=video, **options,
        )  # fmt: skip
        self._worker.check_process()
        with self._turn.held(lambda: _check(cancel)):
            events = self._events(settings, noise, False, cancel, given)
            visible = in_notebook() if progress is None else progress
            *_, finished = shown(events) if visible else events
        return cast(Finished, finished).result

    def stream(
        self,
        prompt: str | int | Sequence[str | int] | None = None,
        seed: int | Sequence[int] | None = None,
        *,
        noise: mx.array | np.ndarray | None = None,
        previews: bool = False,
        cancel: Flag | None = None,
        **options: Any,
    ) -> Generator[Event, None, None]:
        """``generate`` as an iterator of typed events (``mlx_starflow.events``), the last of which
        is ``Finished`` and holds the result.

        The arguments are those of ``generate``. previews=True adds a ``Preview`` after every
        block. The work is done while the iterator is advanced, which any thread may do; closing
        the iterator stops the work and frees its memory. Arguments are checked in this call, not
        at the first event. Errors: as ``generate``.
        """
        settings, noise, given = request(self._components, prompt, seed, noise, **options)
        return self._events(settings, noise, previews, cancel, given)

    def settings(
        self,
        prompt: str | int | Sequence[str | int] | None = None,
        seed: int | Sequence[int] | None = None,
        **options: Any,
    ) -> Settings:
        """The settings that ``generate`` would use for the same arguments, checked and with all
        defaults filled in. Loads no weights. Errors: UsageError, TextError for an unknown class."""
        settings, *_ = request(self._components, prompt, seed, None, **options)
        return settings

    def measured(self, *prompt_and_seed: Any, **options: Any) -> dict[str, Any]:
        """The windows and the tolerance that ``generate`` would measure for the same arguments."""
        settings = self.settings(*prompt_and_seed, **options)
        return self._worker.call(lambda: measured(self._components, settings))

    def largest_batch(self, settings: Settings, most: int) -> int:
        """How many pictures with these settings fit the device's recommended memory as one batch:
        from 1 to ``most``."""
        return largest_batch(self._components, settings, most, self._low_ram)

    def capabilities(self) -> dict[str, Any]:
        """What the model and this installation can do, as values that JSON can hold."""
        return capabilities(self._components)

    def run(self, function: Callable[[], T]) -> T:
        """Call function() in the pipeline's worker thread; return its result or raise its error.

        Use it in a program with threads for work on ``flow`` and ``vae``: MLX ties compiled
        functions and unevaluated arrays to the thread that made them.
        """
        return self._worker.call(function)

    def decode(self, latents: mx.array) -> list[Image.Image]:
        """Latents (B, h, w, c) to B pictures, through the VAE if the model has one; for clips
        (B, N, h, w, c) their first frames (``pipe.vae.decode`` returns all frames)."""
        latents = latents[:, 0] if latents.ndim == 5 else latents
        mx.eval(latents)
        return to_pictures(self._worker.call(lambda: decode(self._components, latents)))

    def preview(self, latents: mx.array) -> list[Image.Image]:
        """Latents (B, h, w, c) to B rough pictures in milliseconds: colours without detail; for
        clips (B, N, h, w, c) their middle frames.

        Uses a linear map from latents to colours, fitted once to the VAE's decoder.
        """
        if latents.ndim == 5:
            latents = latents[:, latents.shape[1] // 2]
        mx.eval(latents)

        def rough() -> mx.array:
            if self._rough is None:
                self._rough = RoughDecoder.fit(self._components)
            return _evaluated(self._rough(latents))

        return to_pictures(self._worker.call(rough))

    def close(self) -> None:
        """Free all components and end the worker thread. Later calls raise a UsageError."""
        if not self._worker.closed:
            self._worker.call(self._components.drop_all)
            self._worker.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # Do not wait for the current step, which may take seconds.
            self._worker.post(self._components.drop_all)
            self._worker.close(wait=False)
        else:
            self.close()

    def _events(
        self,
        settings: Settings,
        noise: mx.array | None,
        previews: bool,
        cancel: Flag | None,
        given: Sequence[Image.Image] = (),
    ) -> Generator[Event, None, None]:
        work = generation(self._components, settings, noise, previews, self._low_ram, given)
        try:
            while event := self._worker.call(lambda: _next_worth_telling(work, cancel)):
                yield event
        finally:
            # In the worker thread, which may still be busy with a step of this work.
            self._worker.post(work.close)


def _next_worth_telling(work: Iterator[Event], cancel: Flag | None) -> Event | None:
    """The next event; progress within 1/EVENTS_PER_SECOND s of this call is left out."""
    until = time.perf_counter() + 1 / EVENTS_PER_SECOND
    for event in work:
        _check(cancel)
        if not isinstance(event, BlockProgress) or time.perf_counter() > until:
            return event
    return None


def _check(cancel: Flag | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("The work was cancelled.")


def _evaluated(x: mx.array) -> mx.array:
    mx.eval(x)
    return x
