"""Prompt to picture: the class that applications hold."""

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
from .generation.capabilities import capabilities
from .generation.components import Components
from .generation.context import PromptRows, cut_prompts, prompt_rows, unknown_words
from .generation.draw import decode, generation, noise_shape
from .generation.events import BlockProgress, Event, Finished
from .generation.given import Given, given_pictures
from .generation.memory import largest_batch
from .generation.preview import RoughDecoder
from .generation.progress import in_notebook, shown
from .generation.result import Result
from .generation.settings import Settings, resolve
from .hub.acquire import acquire
from .hub.download import Tell
from .pictures.arrays import to_pictures
from .text import TextEncoder
from .vae import Autoencoder

T = TypeVar("T")
EVENTS_PER_SECOND = 30  # of progress; whatever else happens is always told


class Flag(Protocol):
    """Anything like ``threading.Event``: set from any thread to cancel."""

    def is_set(self) -> bool: ...


def load(
    model: str | Path | None = None,
    dtype: str | mx.Dtype | None = None,
    quantize: int | str | None = None,
    low_ram: bool = False,
    tell: Tell | None = None,
) -> Pipeline:
    """A pipeline for a model: a bundle directory, a hub repository or a known name.

    None is the model embedded in the package. ``dtype`` ("float32", "float16", "bfloat16") and
    ``quantize`` (4, 8 or "mixed" bits) change the precision of the flow's large matrices while
    loading; None keeps it. ``low_ram`` drops the text encoder and the flow as soon as they are not
    needed, and reads them again for the next call. ``tell`` receives the events of a download and
    a conversion, if there is one (``mlx_starflow.hub.download``). Components
    are read when first used; nothing is downloaded that is complete on disk.
    Errors: ModelNotFoundError, HubError, ConfigError, WeightsError.
    """
    name = str(model) if model is not None else "default"
    if isinstance(dtype, mx.Dtype):
        dtype = str(dtype).removeprefix("mlx.core.")
    return Pipeline(
        Components(acquire(model, quantize, tell), name, dtype, quantize, tell), low_ram
    )


class Pipeline:
    """A model and everything it needs; made by ``load``.

    Any method may be called from any thread: the work is done in a thread of the pipeline's own,
    one piece after another. Use it as a context manager, or call ``close``, to give the memory
    back at a known moment.
    """

    def __init__(self, components: Components, low_ram: bool = False) -> None:
        self._components = components
        self._low_ram = low_ram
        self._worker = Worker("mlx-starflow")
        self._turn = Turn()  # one generate() after another: their memory does not add up
        self._rough: RoughDecoder | None = None

    @property
    def config(self) -> ModelConfig:
        """The model's config.json."""
        return self._components.config

    @property
    def name(self) -> str:
        """The model as it was asked for: "default", a known name, a repository or a directory."""
        return self._components.name

    @property
    def directory(self) -> Path:
        """The model's bundle on disk."""
        return self._components.directory

    @property
    def fingerprint(self) -> str:
        """A hash of the flow's weights, as it stands in the settings of every picture."""
        return self._components.fingerprint

    def fingerprint_of(self, component: str) -> str:
        """A hash of the stored weights of "flow", "vae" or "text_encoder", "" for one that the
        model does not have."""
        return self._components.fingerprint_of(component)

    @property
    def flow_config(self) -> FlowConfig:
        """The flow's settings; reads no weights."""
        return self._components.flow_config

    @property
    def flow(self) -> Flow:
        """The flow: ``flow(x, context) -> (z, logdet)``. Loaded when first asked for."""
        return self._worker.call(lambda: self._components.flow)

    @property
    def vae(self) -> Autoencoder | None:
        """The image autoencoder; None where the flow makes pixels."""
        return self._worker.call(lambda: self._components.vae)

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The text encoder; None for a model without text."""
        return self._worker.call(lambda: self._components.text_encoder)

    def encode_prompts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> mx.array:
        """Features (N, L, D) float32 of N prompts in the model's own template, of clips with
        ``fps`` frames per second or, for 0, of pictures; "" is the null caption. Errors:
        UsageError for a model without text, TextError for an unknown class."""
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
        """What the flow is conditioned on for these prompts and for none: text features, labels,
        or nothing. ``negative`` stands in for the null caption. Errors: UsageError, TextError."""
        return self._worker.call(
            lambda: prompt_rows(self._components, prompts, aspect_ratio, negative, fps)
        )

    def decoding_bytes(self, height: int, width: int) -> int:
        """Most bytes that decoding one latent of height × width takes, 0 without a VAE."""
        return self._components.decoding_bytes(height, width)

    def prompt_notes(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", cuts: bool = True
    ) -> tuple[str, ...]:
        """Sentences about what the model cannot read of these prompts: words that it was not
        trained with, and, unless ``cuts`` is False, prompts that are too long for it (which loads
        the text encoder; ``generate`` warns of those itself)."""
        notes = unknown_words(self._components, prompts)
        if cuts:
            notes += self._worker.call(lambda: cut_prompts(self._components, prompts, aspect_ratio))
        return notes

    def label(self, prompt: str) -> int:
        """The class of a model with classes that a prompt names, -1 for "". Errors: UsageError."""
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
        """Pictures or clips for a prompt, made together as one batch.

        prompt: a text, a class (name or number) for a model with classes, a list of them for
        several at once, or None for an unconditional model.
        seed: the first picture's; the others of a prompt get seed + 1, ...; a list gives every
        picture its own; None draws one at random (it is in the result). The same seed gives the
        same noise alone, in a batch and in any thread.
        guidance: weight of classifier-free guidance, 0 for none. sampler, steps: how the flow is
        inverted, and the most sweeps a parallel sampler may spend on a window of tokens.
        noise: (B, h, w, c) standard normal numbers instead of the seeded ones; for clips
        (B, N, h, w, c).
        frames, fps: of a clip, with a model of clips; without frames it makes a picture. image,
        video: what the clip begins with: a path, PIL images, or uint8 (H, W, 3), (M, H, W, 3).
        denoise: False leaves in the picture the noise that the flow was trained with.
        cancel: set it from anywhere, and the work ends at its next step with ``Cancelled``.
        progress: show a bar; None does so in a notebook, which also shows the result itself.
        options: negative_prompt (what guidance leads away from, in place of the null caption),
        noise_std, denoiser ("score", "learned"), aspect_ratio ("3:2", or "random"), width, height,
        vae_tiling, extend (clips: the caption says that it continues another), and the other
        fields of ``SampleOptions`` (tolerance, block_size, windows, attention_temperature,
        guidance_blocks; clips: window, context_frames; TarFlow: guide, annealed).

        None stands for the model's own default everywhere. Errors: UsageError for what the model
        cannot do, NumericsError instead of a picture with NaN, Cancelled, and those of ``load``.
        """
        settings, noise, given = self._request(
            prompt, seed, noise, guidance=guidance, steps=steps, sampler=sampler,
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
        """``generate`` as typed events (see ``mlx_starflow.events``), the last one ``Finished``.

        Takes what ``generate`` takes. previews=True adds a ``Preview`` after every block. The work
        is done while the iterator is advanced, in any thread; closing it stops the work, and
        nothing is left behind. A wrong request is refused here and not at the first event.
        """
        settings, noise, given = self._request(prompt, seed, noise, **options)
        return self._events(settings, noise, previews, cancel, given)

    def settings(
        self,
        prompt: str | int | Sequence[str | int] | None = None,
        seed: int | Sequence[int] | None = None,
        **options: Any,
    ) -> Settings:
        """What ``generate`` with the same arguments would draw, resolved and checked; nothing is
        loaded. Errors: UsageError, TextError for an unknown class."""
        settings, *_ = self._request(prompt, seed, None, **options)
        return settings

    def largest_batch(self, settings: Settings, most: int) -> int:
        """The most pictures like the first of ``settings``, up to ``most``, that the device's
        recommended memory holds as one batch; at least 1."""
        return largest_batch(self._components, settings, most, self._low_ram)

    def capabilities(self) -> dict[str, Any]:
        """What the model and this installation can do, JSON-able."""
        return capabilities(self._components)

    def run(self, function: Callable[[], T]) -> T:
        """The result of function(), run in the pipeline's own thread; its errors are raised here.

        For work of several steps on ``flow`` and ``vae`` in a program with threads: MLX ties
        compiled functions and unevaluated arrays to the thread that made them.
        """
        return self._worker.call(function)

    def decode(self, latents: mx.array) -> list[Image.Image]:
        """Latents (B, h, w, c) as pictures, through the VAE where the model has one. Of clips
        (B, N, h, w, c) the first frames: the others are ``pipe.vae.decode``'s."""
        latents = latents[:, 0] if latents.ndim == 5 else latents
        mx.eval(latents)
        return to_pictures(self._worker.call(lambda: decode(self._components, latents)))

    def preview(self, latents: mx.array) -> list[Image.Image]:
        """Latents (B, h, w, c) as rough pictures in milliseconds: colours without detail; of clips
        the frame in the middle.

        A linear map from latent to colour stands in for the VAE; it is fitted to it once.
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
        """Drop all components and end the pipeline's thread; using it again is a UsageError."""
        if not self._worker.closed:
            self._worker.call(self._components.drop_all)
            self._worker.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # Whoever pressed Ctrl-C does not wait for the end of a step that takes seconds.
            self._worker.post(self._components.drop_all)
            self._worker.close(wait=False)
        else:
            self.close()

    def _request(
        self,
        prompt: str | int | Sequence[str | int] | None,
        seed: int | Sequence[int] | None,
        noise: mx.array | np.ndarray | None,
        image: Given | None = None,
        video: Given | None = None,
        **options: Any,
    ) -> tuple[Settings, mx.array | None, list[Image.Image]]:
        components = self._components
        given, clips = given_pictures(image, video), components.config.clips
        if given and clips is None:
            raise UsageError("image and video begin a clip; this model makes pictures.")
        options["given_frames"] = clips.latent_frames(len(given)) if given and clips else 0
        settings = resolve(
            components.config, components.flow_config, components.factor, prompt, seed, **options
        )
        if noise is None:
            return settings, None, given
        noise = np.array(noise, dtype=np.float32)  # evaluates it in the thread it belongs to
        one = noise_shape(components, settings)
        noise = mx.array(noise[None] if noise.ndim == len(one) else noise)
        shape = (len(settings.prompts), *one)
        if noise.shape != shape:
            what = "pictures" if settings.frames is None else "clips, latent frames"
            raise UsageError(
                f"The noise has shape {tuple(noise.shape)}; this request needs {shape}: "
                f"{what}, height, width and channels of the flow."
            )
        return settings, noise, given

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
            # In the worker's thread: it may still be busy with a step nobody waits for any more.
            self._worker.post(work.close)


def _next_worth_telling(work: Iterator[Event], cancel: Flag | None) -> Event | None:
    """The next event, passing over progress that follows the last within a thirtieth second."""
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
