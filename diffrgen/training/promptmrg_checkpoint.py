"""PromptMRG's published checkpoint as the start of a training: its tensors by the names that they have in our network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from diffrgen.errors import DataError, reason_of
from diffrgen.finite import first_not_finite
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.labels import AUXILIARY, FINDINGS, State
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.retrieval import Retriever
from diffrgen.staging import file_digest, staged
from diffrgen.text import PROMPT_TOKENS
from diffrgen.training.build import DataShape, build_model, frozen_where_asked, pretrained_encoder
from diffrgen.training.initial_record import RECORD, Initialisation, NewTensors, take_tensors, write_record
from diffrgen.training.options import CHECKPOINTS, TrainOptions

TENSORS = "promptmrg.safetensors"
WORDS, TYPES = "decoder.bert.embeddings.word_embeddings.weight", "decoder.bert.embeddings.token_type_embeddings.weight"
# One row a word; the output layer's weights are those of the embedding.
BY_WORD = (WORDS, *(f"decoder.cls.predictions.{name}" for name in ("decoder.weight", "decoder.bias", "bias")))
HEAD, IMAGE = "classifier.head.weight", "image_encoder."
# [DEC], which begins a report, and one prompt token a state follow BERT's vocabulary.
ADDED = 1 + len(PROMPT_TOKENS)

# torchvision's ResNet as `nn.Sequential` of its children: convolution, normalisation, ReLU, pooling, four stages.
NAMES: tuple[tuple[str, str], ...] = (
    (r"visual_encoder\.model\.0\.(\w+)", r"image_encoder.model.embedder.embedder.convolution.\1"),
    (r"visual_encoder\.model\.1\.(\w+)", r"image_encoder.model.embedder.embedder.normalization.\1"),
    (r"visual_encoder\.model\.([4-7])\.(\d+)\.(conv|bn)([123])\.(\w+)", "{stage}.layers.{layer}.layer.{place}.{kind}.{rest}"),
    (r"visual_encoder\.model\.([4-7])\.(\d+)\.downsample\.([01])\.(\w+)", "{stage}.layers.{layer}.shortcut.{kind}.{rest}"),
    (r"text_decoder\.(.+)", r"decoder.\1"),
    (r"cls_head\.(\w+)", r"classifier.head.\1"),
    (r"vision_proj\.(\w+)", r"memory.vision_proj.\1"),
    (r"memory\.(.+)", r"memory.\1"),
)


def is_checkpoint(init: str) -> bool:
    """Return whether `--init` names a file of PyTorch weights rather than a run."""
    return Path(init).suffix in CHECKPOINTS


def name_in_network(name: str) -> str | None:
    """Return the name in our network of PromptMRG's tensor `name`, None for one that no network of ours has.

    >>> name_in_network("visual_encoder.model.4.0.conv2.weight")
    'image_encoder.model.encoder.stages.0.layers.0.layer.1.convolution.weight'
    """
    for pattern, template in NAMES:
        found = re.fullmatch(pattern, name)
        if found is None:
            continue
        if not template.startswith("{stage}"):
            return found.expand(template)
        stage = f"image_encoder.model.encoder.stages.{int(found[1]) - 4}"
        convolution = found[3] in ("conv", "0")
        place = int(found[4]) - 1 if found[3] in ("conv", "bn") else None
        kind = "convolution" if convolution else "normalization"
        return template.format(stage=stage, layer=found[2], place=place, kind=kind, rest=found[found.lastindex or 0])
    return None


def read_promptmrg(path: Path) -> dict[str, Tensor]:
    """Return the tensors of PromptMRG's checkpoint by the names that they have in our network, the others by their own.

    Only tensors are loaded. Raises DataError if `path` holds anything else, is no checkpoint of PromptMRG, or holds NaN.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: needed PromptMRG's checkpoint, got: {reason_of(error)}") from error
    # For a file that is no checkpoint, the restricted unpickler's exception depends on the bytes.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: needed a PyTorch checkpoint of tensors alone, got: {reason}") from error
    if not isinstance(content, Mapping) or not all(isinstance(one, Tensor) for one in content.values()):
        raise DataError(f"{path}: needed a dictionary of tensors, as PromptMRG saves it, got {type(content).__name__}")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    needed = ("visual_encoder.model.0.weight", "text_decoder.bert.embeddings.word_embeddings.weight", "cls_head.weight")
    missing = [name for name in (*needed, "vision_proj.weight") if name not in tensors]
    if missing:
        raise DataError(f"{path}: needed PromptMRG's checkpoint, which has the tensor {missing[0]}; it is not there")
    broken = first_not_finite(tensors.items())
    if broken is not None:
        raise DataError(f"{path}: {broken}: needed numbers, got NaN or infinity")
    # A buffer of older transformers versions: 0, 1, 2, ...
    return {name_in_network(n) or n: t for n, t in tensors.items() if not n.endswith("embeddings.position_ids")}


@dataclass(frozen=True)
class PromptMRGStart:
    """PromptMRG's tensors by our names, from which the training in the folder `run` starts."""

    run: RunFolder
    tensors: Mapping[str, Tensor]

    def encoder(self, options: TrainOptions) -> PatchEncoder:
        """Return the image encoder of the options with the tensors of the checkpoint that fit it, frozen where asked."""
        encoder = pretrained_encoder(options) or PatchEncoder(encoder_config(options.model.encoder))
        of_image = {n.removeprefix(IMAGE): t for n, t in self.tensors.items() if n.startswith(IMAGE)}
        take_tensors(encoder, of_image)
        return frozen_where_asked(encoder, options)

    def network(
        self,
        options: TrainOptions,
        tokenizer: PreTrainedTokenizerFast,
        retriever: Retriever,
        shape: DataShape,
        *,
        log: Callable[[str], None] = print,
    ) -> DiffRGenForReportGeneration:
        """Return the network of `build_model` with what fits of the checkpoint; `log` gets what was taken and what is new.

        Raises DataError if the tokenizer is not that of its BERT, and where nothing of its ResNet or BERT fits.
        """
        model = build_model(options, tokenizer, retriever, pretrained_encoder(options), shape)
        tensors, parts = fitted(self.tensors, model, tokenizer)
        taken, new, unused = take_tensors(model, tensors)
        for part, option in (("image_encoder", "encoder"), ("decoder", "decoder")):
            if not taken.get(part):
                raise DataError(
                    f"--init {options.init}: no tensor of its {part.replace('_', ' ')} fits --model.{option} "
                    f"{getattr(options.model, option)}; for the published checkpoint pass --model.{option} paper"
                )
        frozen_where_asked(model.image_encoder, options)
        write_record(self.run.path, taken, parts + new, unused, log=log)
        return model


def find_promptmrg(options: TrainOptions, run: RunFolder, kept: Path) -> PromptMRGStart:
    """Return the checkpoint `options.init` as a start; it is read once and kept as safetensors in the folder `kept`."""
    path = Path(options.init or "")
    if options.text.tokenizer is None:
        raise DataError(
            f"--init {path}: needed the tokenizer of its BERT, got none; pass --text.tokenizer with the folder of "
            "BERT-base-uncased's vocab.txt"
        )
    if not kept.is_dir():
        tensors = read_promptmrg(path)
        with staged(kept) as stage:
            # The output layer shares the embedding's weights, and safetensors rejects shared memory.
            save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, stage / TENSORS)
            save_json(Initialisation(path.name, {path.name: file_digest(path)}, {}, parts=()), stage / RECORD)
    return PromptMRGStart(run, load_file(kept / TENSORS))


def fitted(
    tensors: Mapping[str, Tensor], model: DiffRGenForReportGeneration, tokenizer: PreTrainedTokenizerFast
) -> tuple[dict[str, Tensor], tuple[NewTensors, ...]]:
    """Return PromptMRG's tensors in the shapes of `model`, rows of words and findings in its order, and what they lack.

    NOTE: PromptMRG's [DEC] stands where our [CLS] does: its BERT never sees [CLS]. Its BERT has no token types: ours are 0.
    """
    own, found = model.state_dict(), dict(tensors)
    for name in BY_WORD:
        if name in found:
            found[name] = _by_word(found[name], own[name], tokenizer)
    found[TYPES] = torch.zeros_like(own[TYPES])
    more = len(tokenizer) - len(tensors[WORDS])
    new = [NewTensors("decoder", (WORDS,), f"its last {more} rows, prompts of a prior study: absent")]
    width, findings = model.image_encoder.width, model.config.findings
    head, bias = (_by_finding(tensors[name], findings) for name in (HEAD, "classifier.head.bias"))
    if model.memory is None and tensors["memory.vision_proj.weight"].shape[1] == width:
        head = torch.cat([head[:, :width], own[HEAD][:, width:]], dim=1)
        new.append(NewTensors("classifier", (HEAD,), f"its columns from {width} on, for mean S: absent"))
    return {**found, HEAD: head, "classifier.head.bias": bias}, tuple(new)


def _by_word(theirs: Tensor, own: Tensor, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Return the rows `own` with those of PromptMRG's vocabulary: BERT's, [DEC], a prompt token for each state."""
    words = len(theirs) - ADDED
    prompts = cast("list[int]", tokenizer.convert_tokens_to_ids(list(PROMPT_TOKENS)))
    if prompts != list(range(words, words + len(PROMPT_TOKENS))):
        raise DataError(
            f"--text.tokenizer: needed the {words:,} tokens of the checkpoint's BERT (BERT-base-uncased), got "
            f"{prompts[0]:,} before the prompt tokens"
        )
    if theirs.shape[1:] != own.shape[1:]:
        return theirs
    rows = own.clone()
    rows[:words] = theirs[:words]
    rows[tokenizer.cls_token_id], rows[prompts] = theirs[words], theirs[words + 1 :]
    return rows


def _by_finding(theirs: Tensor, findings: int) -> Tensor:
    """Return the rows of the first `findings` of PromptMRG's 18 findings, (4 x 18, ...) -> (4 findings, ...)."""
    return theirs.unflatten(0, (len(State), len(FINDINGS + AUXILIARY)))[:, :findings].flatten(0, 1)
