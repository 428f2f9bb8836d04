"""The one training loop: a resumable run of one trial. It knows neither Ray nor any method by name.

    run = Run(config, data, metrics={"landscape": Landscape()})
    run.begin()
    while not run.finished:
        run.train_epoch()
    trial, epochs, measurements, maps = run.tables()

`run.state()` after any epoch, put into `restore` of a new `Run` of the same configuration, goes on to the same numbers,
bit for bit on the CPU: every random draw comes from generators that are seeded by the trial's seed and saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from analysis.command_line import InputError
from trainables.configuration import TrainingConfig, TrialConfig
from trainables.data import Images, StreamedImages
from trainables.lazily import F, nn, torch
from trainables.method import Step, evaluation_mode
from trainables.metrics.moment import (
    EVALUATION_BATCH,
    Measured,
    Metric,
    Moment,
    derived_seed,
    known,
    known_maps,
    map_row,
)
from trainables.models import build_model

if TYPE_CHECKING:
    from torch import Tensor


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with momentum or Adam; without `decay_normalisation`, normalisation layers' parameters are not decayed."""
    normalisation = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
    kept = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, normalisation) and not config.decay_normalisation
        for parameter in module.parameters(recurse=False)
    }
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in kept], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if id(p) in kept], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Top-1, Top-5 (fractions) and mean cross-entropy (nats, no label smoothing) of a model in evaluation mode."""
    top1 = top5 = images = 0
    loss = 0.0
    with torch.no_grad():
        for inputs, labels in batches:
            logits = model(inputs)
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
            top1 += int(ranked[:, 0].sum())
            top5 += int(ranked.sum())
            loss += float(F.cross_entropy(logits, labels, reduction="none").double().sum())
            images += len(labels)
    return {"top1": top1 / images, "top5": top5 / images, "loss": loss / images}


def exploded_loss(classes: int) -> float:
    """The cross-entropy in nats, of the last epoch's training or after it, above which a trial has diverged though its
    numbers are finite: 1000, or 100 times that of guessing."""
    return min(1e3, 100 * math.log(classes))


def check_device(device: torch.device, config: TrainingConfig) -> None:
    """Raise `InputError` if the device cannot do what the configuration asks for. A CPU computes in bf16, slowly; a GPU
    without it emulates it, which is slower than float32 and no saving of memory."""
    if config.precision != "bf16" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(f"precision: bf16, allowed is float32 on {torch.cuda.get_device_name(device)}")


def build_network(
    config: TrialConfig, data: Images | StreamedImages, classes: int, seed: int, *, fetch: bool = True
) -> nn.Module:
    """A trial's network for so many classes, changed by its method, all weights drawn from `seed` alone; with `fetch`
    it begins with weights that were trained on ImageNet, where its configuration says so."""
    network = build_model(
        config.model.model,
        channels=data.channels,
        size=data.size,
        classes=classes,
        width=config.model.width,
        pretrained=config.model.pretrained and fetch,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "method"))
        return config.method.build(network, data)


MEASURING = "measuring "
"""How the note of an exception begins that a metric raised."""


class Run:
    """One trial from its configuration to its four tables, an epoch at a time."""

    def __init__(
        self,
        config: TrialConfig,
        data: Images | StreamedImages,
        *,
        metrics: Mapping[str, Metric] | None = None,
        device: str | torch.device = "cpu",
        fresh: bool = True,
    ) -> None:
        """Not `fresh`: for `restore`, which gives it its weights, so that none are fetched."""
        self.config = config
        self.data = data
        self.metrics = dict(metrics or {})
        self.device = torch.device(device)
        check_device(self.device, config.training)
        config.method.check(data.size, data.size, config.training.steps(data.count("train")))
        self.model = build_network(config, data, data.classes, config.seed, fetch=fresh).to(self.device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(self.model, config.training)
        self.generators = {
            purpose: torch.Generator().manual_seed(derived_seed(config.seed, purpose))
            for purpose in ("data", "penalty")
        }
        self.epoch = 0
        self.steps = 0
        self.images = 0
        self.status: str | None = None
        self.error: str | None = None
        self.stopped_by: str | None = None
        self.final: dict[str, float | None] = {}
        self.epochs: list[dict[str, Any]] = []
        self.measurements: list[dict[str, Any]] = []
        self.maps: list[dict[str, Any]] = []
        self.train_seconds = 0.0
        self.measure_seconds = 0.0
        self._begun = datetime.now(UTC), time.monotonic()
        self.started_at = self._begun[0].isoformat()

    def _build(self, seed: int) -> nn.Module:
        return build_network(self.config, self.data, self.data.classes, seed)

    @property
    def finished(self) -> bool:
        return self.status is not None

    def begin(self) -> None:
        """Measure the network as it is initialised (epoch 0)."""
        start = time.perf_counter()
        with evaluation_mode(self.model):
            self._measure("validation")
        self.measure_seconds += time.perf_counter() - start

    def train_epoch(self) -> dict[str, Any]:
        """Train one epoch, measure on the validation split, and after the last one on the test split; the new row of
        the epochs table."""
        start = time.perf_counter()
        training = self.config.training
        self.epoch += 1
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # of dropout, which draws from torch's own generator: an epoch begins with the same draws when it is resumed
            torch.manual_seed(derived_seed(self.config.seed, "layers", self.epoch))
            row = {"epoch": self.epoch, "learning_rate": training.learning_rate_at(self.epoch), **self._train()}
        trained = time.perf_counter()
        self.train_seconds += trained - start

        last = self.epoch == training.epochs
        train_loss = row["train_loss"]
        finite = train_loss is not None
        if train_loss is not None:
            with evaluation_mode(self.model):
                validation = evaluate(self.model, self._batches("validation"))
                test = evaluate(self.model, self._batches("test")) if last else validation
                finite = math.isfinite(validation["loss"]) and math.isfinite(test["loss"])
                if finite:
                    row |= {**validation, **self._measure("validation", last=last)}
                if finite and last:
                    self.final = {**test, **self._measure("test", last=last)}
                    largest = max(train_loss, validation["loss"], test["loss"])
                    self.status = "diverged" if largest > exploded_loss(self.data.classes) else "completed"
        if not finite:
            self.status = "diverged"
            chance = {"top1": 1 / self.data.classes, "top5": min(5, self.data.classes) / self.data.classes}
            self.final = {**chance, "loss": None, "total_variation": None}
            row |= self.final
        self.measure_seconds += time.perf_counter() - trained
        row["seconds"] = time.perf_counter() - start
        self.epochs.append(row)
        return row

    def _train(self) -> dict[str, float | None]:
        training = self.config.training
        method = self.config.method
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate_at(self.epoch)
        self.model.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        penalty_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        images = penalties = 0
        for inputs, labels in self.data.training_batches(
            training.batch_size, generator=self.generators["data"], device=self.device
        ):
            self.steps += 1
            full = training.precision == "float32"
            inputs.requires_grad_(method.differentiates_images and full)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
                logits = self.model(inputs)
                cross_entropy = F.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
            # after the forward pass above, which changes the running statistics that the penalty's graph keeps
            penalty = method.penalty(
                Step(
                    self.model,
                    inputs,
                    labels,
                    self.steps,
                    self.generators["penalty"],
                    self.data,
                    training.label_smoothing,
                    cross_entropy if full else None,
                    training.batch_size,
                )
            )
            loss = cross_entropy
            if penalty is not None:
                loss = cross_entropy + penalty.weight * penalty.value
                penalty_sum += penalty.value.detach()
                penalties += 1
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=self.parameters)
            method.adjust_gradients(self.model, training.weight_decay)
            self.optimizer.step()
            loss_sum += cross_entropy.detach().double() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            images += len(labels)
        self.images += images
        train_loss, penalty_mean = float(loss_sum) / images, float(penalty_sum) / max(penalties, 1)
        finite = math.isfinite(train_loss) and math.isfinite(penalty_mean)
        return {
            "train_loss": train_loss if finite else None,
            "penalty": penalty_mean if penalties and finite else None,
            "train_top1": int(correct) / images,
        }

    def _batches(self, split: str) -> Iterable[tuple[Tensor, Tensor]]:
        return self.data.batches(split, EVALUATION_BATCH, device=self.device)

    def _measure(self, split: str, last: bool = False) -> dict[str, float | None]:
        """Ask every metric, keep its rows and maps, and return its columns."""
        columns: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            moment = Moment(self.model, self.data, split, self.epoch, last, self.config.seed, self.device, self._build)
            try:
                measured: Measured = metric.measure(moment)
            except Exception as error:
                error.add_note(f"{MEASURING}{name}")  # of memory that is lacking it is said what took it
                raise
            columns |= known(measured.columns)
            self.measurements += [{"epoch": self.epoch, **known(row)} for row in measured.measurements]
            self.maps += [
                {"epoch": self.epoch, "name": name, "values": values.detach().float().cpu()}
                for name, values in known_maps(measured).items()
            ]
        return columns

    def fail(self, error: str) -> None:
        """End the run as failed: what was measured until then stays in its tables."""
        self.status, self.error = "failed", error

    def stop(self, by: str) -> None:
        """End the run before its last epoch, by a rule of this name: its accuracy and loss on the test split are those
        of the network as it is, and what is measured at the end of a training is not."""
        start = time.perf_counter()
        with evaluation_mode(self.model):
            self.final = known(evaluate(self.model, self._batches("test")))
        self.measure_seconds += time.perf_counter() - start
        self.status, self.stopped_by = "stopped", by

    def state(self) -> dict[str, Any]:
        """All that a later `Run` of the same configuration needs to go on: tensors, numbers, strings, lists, dicts."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {purpose: generator.get_state() for purpose, generator in self.generators.items()},
            **{name: getattr(self, name) for name in _PROGRESS},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for purpose, generator in self.generators.items():
            generator.set_state(state["generators"][purpose])
        for name in _PROGRESS:
            setattr(self, name, state[name])

    def tables(self) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows for trials (one, without identity and provenance), epochs, measurements and maps."""
        started, (begun, then) = datetime.fromisoformat(self.started_at), self._begun
        # a clock that is set during a trial makes it neither longer nor shorter
        finished = max(started, begun + timedelta(seconds=time.monotonic() - then))
        data = self.data
        trial = {
            # complete only now that the images' shape is known
            **self.config.method.columns(self.config.training.batch_size, (data.channels, data.size, data.size)),
            "status": self.status,
            "error": self.error,
            "stopped_at_epoch": self.epoch if self.stopped_by else None,
            "stopped_by": self.stopped_by,
            **{name: self.final.get(name) for name in ("top1", "top5", "loss", "total_variation")},
            "train_seconds": self.train_seconds,
            "measure_seconds": self.measure_seconds,
            "images_per_second": self.images / self.train_seconds if self.train_seconds else None,
            "started_at": started,
            "finished_at": finished,
        }
        maps = [map_row(row["epoch"], row["name"], row["values"]) for row in self.maps]
        return trial, self.epochs, self.measurements, maps


_PROGRESS = (
    "epoch",
    "steps",
    "images",
    "status",
    "error",
    "final",
    "epochs",
    "measurements",
    "maps",
    "train_seconds",
    "measure_seconds",
    "started_at",
)
