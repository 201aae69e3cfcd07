"""params.yaml as typed, validated settings. Unknown keys are refused by name: a typo must not run for a night.

Sections follow the stages. `run` says how the work is done (device, workers, engine) and never what comes out, so no
DVC stage depends on it. Options of a selection method live in `methods.<name>` and are checked against the method's own
`Options`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tasks.errors import ParamsError


class Section(BaseModel):
    """A block of params.yaml: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())


class DatasetSettings(Section):
    """Which rows come in."""

    path: str = Field(description="file, folder, pattern of shards, their URL, or a hub dataset id")
    format: Literal["auto", "llava", "messages", "llamafactory", "parquet", "webdataset"] = "auto"
    image_root: str | None = Field(
        default=None, description="folder or URL that images may only lie under; default: the dataset's folder"
    )
    source_field: str | None = Field(
        default=None, description="field that names a row's source; default: see docs/formats.md"
    )
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict, description="LLaMA-Factory columns mapping")
    tags: dict[str, str] = Field(default_factory=dict, description="LLaMA-Factory tags mapping")
    text_only: Literal["exclude", "keep", "drop"] = "exclude"


class Gates(Section):
    """Limits on the table as a whole; one that fails stops the run before any GPU time."""

    minimum_rows: int = Field(default=1, ge=0)
    maximum_reject_share: float = Field(default=0.2, ge=0, le=1)
    maximum_text_only_share: float = Field(default=1.0, ge=0, le=1)
    maximum_duplicate_share: float = Field(default=1.0, ge=0, le=1)


class ValidateSettings(Section):
    """What a row must be like."""

    duplicates: Literal["keep", "reject"] = "keep"
    maximum_pixels: int = Field(default=178_956_970, gt=0, description="Pillow's own decompression-bomb limit")
    gates: Gates = Gates()


class ModelSettings(Section):
    """The target VLM, as Hugging Face files. Rows are read through it: both validate and extract depend on it."""

    path: str = Field(description="local folder or hub id")
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False
    allow_pickle: bool = Field(default=False, description="load .bin checkpoints, which can run code")
    max_length: int = Field(default=4096, gt=0, description="tokens of the rendered conversation, images included")
    over_length: Literal["reject", "truncate"] = "reject"


class ImageSize(Section):
    """Size the image processor resizes to: edges, or for Qwen-style processors pixel counts."""

    shortest_edge: int | None = Field(default=None, gt=0)
    longest_edge: int | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, gt=0)
    width: int | None = Field(default=None, gt=0)


class PooledSettings(Section):
    """Mean visual and language states at chosen layers (COINCIDE, PRISM)."""

    model: ModelSettings | None = Field(default=None, description="default: the target model")
    layers: tuple[int, ...] = Field(default=(0,), description="decoder layers, counted from 0")
    tap: Literal["residual", "attention"] = "residual"
    parts: tuple[Literal["visual", "language"], ...] = ("visual", "language")
    tanh: Literal["none", "before", "after"] = "none"
    normalise: bool = Field(default=False, description="L2-normalise each half, divide by sqrt(halves): unit rows")


class AnswersSettings(Section):
    """Statistics of the response tokens (EL2N, perplexity, margin)."""

    model: ModelSettings | None = None
    without_image: bool = Field(default=True, description="also the loss with the images taken out")


class ClipSettings(Section):
    """Image and text embeddings of a CLIP or SigLIP model."""

    model: ModelSettings | None = Field(default=None, description="must be named to use the signal")
    text: Literal["question", "answer", "both"] = "question"
    images: Literal["mean", "max"] = "mean"


class AnchorsSettings(Section):
    """Rows outside the pool whose gradients say which way is good."""

    path: str = Field(description="dataset of any format")
    format: Literal["auto", "llava", "messages", "llamafactory", "parquet", "webdataset"] = "auto"
    image_root: str | None = None
    rows: int | None = Field(
        default=None, gt=0, description="drawn by content, each source in proportion; default: all"
    )
    seed: int = Field(default=0, ge=0)


AnchorsName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class GradientsSettings(Section):
    """Per-sample gradients of chosen parameters, projected (OST, ICONS)."""

    model: ModelSettings | None = None
    parameters: Literal["last_layer", "projector", "lora"] = "projector"
    rank: int = Field(default=8, gt=0, description="of the adapters (lora)")
    layers: int | None = Field(default=None, gt=0, description="adapters on so many of the last layers (lora)")
    dimension: int = Field(default=1024, gt=0, description="numbers kept of each gradient")
    projection: Literal["rademacher", "gaussian"] = "rademacher"
    seed: int = Field(default=0, ge=0, description="of projection and adapters")
    anchors: dict[AnchorsName, AnchorsSettings] = Field(
        default_factory=dict, description="`anchor` for ost; every other name is a task of icons"
    )
    step: float | None = Field(
        default=None, gt=0, description="also take a step of this size on each row: column `drop`, for ost's exact form"
    )
    step_along: Literal["unit", "sgd", "adam"] = Field(
        default="unit", description="the gradient at length 1, the gradient, or the first step of a fresh Adam"
    )

    @model_validator(mode="after")
    def _step_needs_anchors(self) -> GradientsSettings:
        if self.step is not None and "anchor" not in self.anchors:
            raise ValueError("a step is judged by the rows of extract.gradients.anchors.anchor: name them")
        return self


class JudgeSettings(Section):
    """An OpenAI-compatible endpoint that rates the rows: signals judge and deita. Costs money: never on by default."""

    url: str = Field(description="base of the API: https://host/v1")
    model: str
    api_key_variable: str = Field(default="OPENAI_API_KEY", description="environment variable that holds the key")
    images: bool = Field(default=True, description="send the images, as data URLs")
    tokens_per_image: int = Field(default=1000, ge=0, description="for the estimate only")
    input_price: float = Field(default=0.0, ge=0, description="per million tokens, in your currency")
    output_price: float = Field(default=0.0, ge=0, description="per million tokens")
    maximum_cost: float = Field(default=10.0, ge=0, description="an estimate above this is refused")
    parallel: int = Field(default=8, gt=0)
    attempts: int = Field(default=6, gt=0, description="of one request, when the endpoint is busy or down")
    timeout: float = Field(default=120.0, gt=0, description="seconds for one request")


class ExtractSettings(Section):
    """What is measured on each sample. Everything here changes the features."""

    signals: tuple[Literal["attended", "pooled", "answers", "clip", "gradients", "judge", "deita"], ...] = ("attended",)
    preset: Literal["default", "official"] = "default"
    instruction_tokens: Literal["user", "non_answer"] = "user"
    visual_tokens: Literal["image", "with_markers"] = "image"
    attention_threshold: float = Field(default=0.9, gt=0, le=1)
    image_size: ImageSize | None = None
    pooled: PooledSettings = PooledSettings()
    answers: AnswersSettings = AnswersSettings()
    clip: ClipSettings = ClipSettings()
    gradients: GradientsSettings = GradientsSettings()
    judge: JudgeSettings | None = Field(default=None, description="for the signals judge and deita")

    def resolved(self) -> ExtractSettings:
        """The settings with `preset` spelled out (image sizes of a preset depend on the family: tasks.vlm)."""
        if self.preset == "default":
            return self
        return self.model_copy(update={"instruction_tokens": "non_answer", "visual_tokens": "with_markers"})


class RaySettings(Section):
    """How `run.engine: ray` spreads extraction over a cluster."""

    address: str | None = Field(default=None, description="default: start a local cluster")
    actors: int | None = Field(default=None, gt=0)
    cpus_per_actor: float = Field(default=1.0, gt=0)
    gpus_per_actor: float = Field(default=0.0, ge=0)
    stall_seconds: float = Field(default=600.0, gt=0, description="no shard finished for this long: stop and say so")


class RunSettings(Section):
    """How the work is done. Nothing here may change a result beyond float32 rounding."""

    engine: Literal["local", "ray"] = "local"
    device: str = Field(default="auto", description="auto: every visible GPU, else the CPU")
    workers: int | None = Field(
        default=None, ge=0, description="decoding processes per device; default: cores - devices"
    )
    token_budget: int = Field(default=16_384, gt=0, description="tokens per batch, padding included")
    shard_rows: int = Field(default=1024, gt=0, description="rows per store shard: what a crash can lose per worker")
    store: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9+.-]*://.",
        description="URL, such as s3://bucket/store, that the feature store is shared through",
    )
    ray: RaySettings = RaySettings()


class ScoreSettings(Section):
    """Which method scores the rows; its options are in `methods.<method>`."""

    method: str = "scalselect"


class SelectSettings(Section):
    """How many rows to keep, and under which constraints."""

    budget: int | float = Field(default=0.16, description="a count (integer) or a share of the scored rows (fraction)")
    seed: int = 0
    deduplicate: bool = Field(default=False, description="of rows with equal content, at most one is selected")
    near_duplicates: float | None = Field(
        default=None, gt=0, le=1, description="refuse cosine above this to a row already kept"
    )
    per_image: int | None = Field(default=None, gt=0, description="at most this many selected rows per distinct image")
    quotas: dict[str, int | float] = Field(default_factory=dict, description="source -> exact count or share of N")
    floors: dict[str, int | float] = Field(default_factory=dict, description="source -> at least this many")
    keep: tuple[str, ...] = Field(default=(), description="digests or ids always selected, within the budget")
    drop: tuple[str, ...] = Field(default=(), description="digests or ids never selected")


class ExportSettings(Section):
    """Which files the subset is written as, besides its own format (always written)."""

    formats: tuple[Literal["llava", "messages", "llamafactory", "ms_swift", "parquet", "webdataset"], ...] = ()
    paths: Literal["relative", "absolute", "media_dir"] = "relative"
    media_dir: str | None = Field(
        default=None, description="with paths: media_dir, the folder trainers resolve images against"
    )
    name: str = "scalselect-subset"
    license: str = "other"


class RecordSettings(Section):
    """What a refresh leaves behind once every stage is done."""

    push: bool = Field(default=True, description="dvc push, when a remote is configured")
    git_commit: bool = False
    git_tag: str | None = Field(default=None, description="tag name; {date} and {digest} are filled in")


class CompareSettings(Section):
    """Which subsets to hold against each other, and against the whole."""

    methods: tuple[str, ...] | None = Field(default=None, description="default: all whose signals were extracted")
    budgets: tuple[int | float, ...] = Field(default=(0.05, 0.16, 0.3), description="as select.budget", min_length=1)
    seeds: int = Field(default=3, gt=0, description="subsets of each method that draws lots")
    features: str | None = Field(default=None, description="what distances are measured in; default: attended")
    curve: tuple[float, ...] = Field(
        default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7), description="further shares for the energy captured"
    )
    clusters: int | None = Field(default=None, gt=0, description="default: the root of the rows, at most 1000")
    sample: int = Field(default=5000, gt=0, description="rows at which distances are measured")
    near_duplicate: float = Field(default=0.95, gt=0, le=1, description="cosine above which rows are near duplicates")


class TaskSettings(Section):
    """A held-out task: questions in any format the pipeline reads, and how an answer is scored."""

    path: str
    image_root: str | None = None
    metric: Literal["exact_match", "vqa_accuracy", "token_f1", "anls", "choice_accuracy"] = "vqa_accuracy"


class VariantSettings(Section):
    """A selection method under a name of its own: other options, other constraints."""

    method: str
    options: dict[str, Any] = Field(default_factory=dict, description="over those of methods.<method>")
    select: dict[str, Any] = Field(default_factory=dict, description="over those of select, such as near_duplicates")


class TuneSettings(Section):
    """How the target VLM is fine-tuned on a subset, by transformers' Trainer."""

    epochs: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=16, gt=0, description="per device")
    accumulate: int = Field(default=1, gt=0, description="batches per optimiser step")
    learning_rate: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    lora_rank: int | None = Field(default=None, gt=0, description="adapters of this rank instead of all weights")
    freeze: tuple[str, ...] = Field(default=(), description="parameters whose name holds one of these stay as they are")
    save_steps: int = Field(default=500, gt=0, description="a crash loses at most this many")
    workers: int = Field(default=0, ge=0, description="data loading processes")
    processes: int = Field(default=1, gt=0, description="above 1: so many GPUs, by accelerate launch")


class EvaluateSettings(Section):
    """Which subsets to train on, and what to ask afterwards."""

    methods: tuple[str, ...] = Field(default=("scalselect", "random"), description="methods or variants")
    variants: dict[str, VariantSettings] = Field(default_factory=dict)
    budgets: tuple[int | float, ...] = Field(default=(0.16,), description="as select.budget")
    seeds: int = Field(default=3, gt=0, description="trainings of each method at each budget")
    full_seeds: int = Field(default=1, gt=0, description="trainings on all the data, the dearest ones")
    matching: tuple[Literal["epochs", "steps"], ...] = Field(
        default=("epochs",), description="epochs: cheaper on a subset | steps: as many updates as the full data gets"
    )
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)
    tune: TuneSettings = TuneSettings()
    new_tokens: int = Field(default=32, gt=0, description="longest answer")
    batch_size: int = Field(default=32, gt=0, description="questions at a time")
    jobs: int = Field(default=1, gt=0, description="runs at once on this machine, for models that leave it idle")
    keep_models: bool = Field(default=True, description="keep each trained model after its answers are known")


class Settings(Section):
    """All of params.yaml."""

    dataset: DatasetSettings
    validation: ValidateSettings = Field(default=ValidateSettings(), alias="validate")
    model: ModelSettings
    extract: ExtractSettings = ExtractSettings()
    run: RunSettings = RunSettings()
    score: ScoreSettings = ScoreSettings()
    select: SelectSettings = SelectSettings()
    export: ExportSettings = ExportSettings()
    record: RecordSettings = RecordSettings()
    compare: CompareSettings = CompareSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)


def load(path: Path = Path("params.yaml"), overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read params.yaml and apply dotted overrides such as {"select.budget": 50000}.

    Raises ParamsError naming the file, the key and the nearest known key.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run `scalselect init` to make a workspace") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: expected sections such as `dataset:` and `model:`, found {type(tree).__name__}")
    return parse(tree, overrides or {}, where=str(path))


def parse(tree: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, where: str = "settings") -> Settings:
    """Validate a params tree (the parsed YAML) with overrides applied. Raises ParamsError."""
    merged = apply_overrides(tree, overrides or {})
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise ParamsError("\n".join(f"{where}: {_explain(problem)}" for problem in error.errors())) from None


def apply_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `tree` with each dotted key set. Raises ParamsError where a key runs through a scalar."""
    result = _copy(tree)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ParamsError(f"--set {dotted}: `{parent}` is a value, not a section")
            node = child
        node[last] = value
    return result


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read one `section.key=value` of the command line; the value is YAML, so 0.1, null and [a, b] mean themselves."""
    key, sign, value = text.partition("=")
    if not sign or "." not in key:
        raise ParamsError(f"--set {text!r}: expected section.key=value, for example select.budget=5000")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ParamsError(f"--set {text!r}: the value is not valid YAML: {error}") from None


def _copy(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in node.items()}


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _known(problem["loc"][:-1]), n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"unknown key `{where}`{hint}"
    if problem["type"] == "missing":
        return f"`{where}` is required"
    return f"`{where}`: {problem['msg']} (got {problem['input']!r})"


def _known(path: tuple[Any, ...]) -> list[str]:
    """Keys that the section at `path` does accept, as the user writes them."""
    section: type[BaseModel] = Settings
    for part in path:
        for name, field in section.model_fields.items():
            if part in (name, field.alias):
                nested = _section_of(field.annotation)
                if nested is None:
                    return []
                section = nested
                break
        else:
            return []
    return [field.alias or name for name, field in section.model_fields.items()]


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
