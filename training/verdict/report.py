"""report.html: evaluation.json for people, in one self-contained file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from PIL import Image

from model.answer import CLASSES, posterior_median
from model.preprocess import BadImage, decode
from training.dataset.drift import ALL, WORDS
from training.verdict import comparison, metrics
from training.verdict.card import NAMES
from training.verdict.comparison import Answered

THUMBNAIL = 200  # pixels at most, either way
MISTAKES = 12  # of each kind
SITES = 40  # in the table of drift
COLOURS = {"champion": "#64748b", "challenger": "#0f766e"}

# Text stays text, in the page's own typeface; and the same figures make the same file.
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bintally",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#94a3b8",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#475569",
    "ytick.color": "#475569",
}


def render(
    evaluation: dict[str, Any],
    seen: Answered,
    pictures: dict[str, Path],
    drift: dict[str, Any],
    described: dict[str, Any],
) -> str:
    """The page. `pictures` has the test photographs by id, `described` is dataset.json."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    templates.filters |= {"signed": signed, "figure": figure, "share": share, "interval": interval}
    # All sites together first, then those that changed.
    sites = sorted(drift["sites"].items(), key=lambda site: (site[0] != ALL, not site[1]["flagged"], site[0]))
    with matplotlib.rc_context(STYLE):
        charts = {
            "differences": differences(evaluation),
            **{
                model: reliability(evaluation[model]["calibration"], f"Reliability diagram of the {model}", colour)
                for model, colour in COLOURS.items()
            },
        }
    return templates.get_template("report.html.jinja").render(
        e=evaluation,
        models=comparison.MODELS,
        classes=CLASSES,
        names=NAMES,
        charts=charts,
        confusions={model: shaded(evaluation[model]["confusion"]) for model in comparison.MODELS},
        mistakes=mistakes(seen, pictures),
        drift=drift,
        measures=WORDS,
        sites=sites[:SITES],
        more_sites=max(0, len(sites) - SITES),
        dataset=described,
    )


def signed(value: float | None) -> str:
    """A difference, with its sign and a true minus; a dash for none."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def figure(value: float | None, name: str) -> str:
    """A figure as people write it: shares in per cent."""
    if value is None:
        return "–"
    return f"{value:.1%}" if name.startswith(("accuracy", "within")) else f"{value:.3f}"


def interval(pair: list[float | None], name: str) -> str:
    """Both ends, as `figure` writes them."""
    low, high = (figure(value, name) for value in pair)
    return "–" if low == "–" else f"{low.removesuffix('%')} – {high}"


def differences(evaluation: dict[str, Any]) -> str:
    """The challenger's gain in ranked probability score, over all and by group of counts, with its bounds."""
    rps = evaluation["paired"]["rps"]
    rows = [("all", rps["difference"], rps["lower_bound"], None)]
    rows += [(g["name"], g["difference"], g["lower_bound"], g["upper_bound"]) for g in evaluation["groups"]]
    chart = Figure(figsize=(6, 2.5), layout="constrained")
    axes = chart.subplots()
    axes.axvline(0, color="#94a3b8", linewidth=1)
    for y, (name, difference, low, high) in enumerate(rows):
        if difference is None:
            continue
        colour = COLOURS["challenger"] if name == "all" else "#475569"
        if low is not None:
            axes.plot([low, difference if high is None else high], [y, y], color=colour, linewidth=2.5, alpha=0.55)
            axes.plot([low], [y], marker="|", markersize=11, color=colour)
        axes.plot([difference], [y], marker="o", markersize=6, color=colour)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("gain in ranked probability score (right of zero: challenger better)", color="#475569")
    return svg(chart, "The challenger's gain in ranked probability score, over all and by group of counts")


def reliability(calibration: dict[str, Any], title: str, colour: str) -> str:
    """How often the most probable answer was right, by its probability, with 95 % intervals."""
    points = calibration["reliability"]
    confidence = [point["confidence"] for point in points]
    accuracy = [point["accuracy"] for point in points]
    chart = Figure(figsize=(5, 3.6), layout="constrained")
    axes = chart.subplots()
    axes.plot([0, 1], [0, 1], color="#94a3b8", linewidth=1, linestyle=(0, (4, 3)))
    for point in points:
        low, high = point["interval"]
        if low is not None:
            axes.plot([point["confidence"]] * 2, [low, high], color=colour, linewidth=2, alpha=0.35)
    axes.plot(confidence, accuracy, color=colour, marker="o", markersize=4.5, linewidth=1.2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    axes.set_xlabel("probability of the most probable answer", color="#475569")
    axes.set_ylabel("share that was right", color="#475569")
    axes.grid(color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    return svg(chart, title)


def svg(chart: Figure, title: str) -> str:
    """The chart as markup for a page."""
    out = io.StringIO()
    chart.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    markup = out.getvalue()
    return markup[markup.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def shaded(confusion: list[list[int]]) -> list[list[tuple[int, float]]]:
    """Each cell with its share of the row, 0 to 1: rows of recorded, columns of answered counts."""
    return [[(cell, cell / max(1, sum(row))) for cell in row] for row in confusion]


def mistakes(seen: Answered, pictures: dict[str, Path]) -> list[dict[str, Any]]:
    """The photographs that the challenger answered worst, then those on which it lost most to the champion."""
    scores = {model: metrics.ranked_probability_score(getattr(seen, model), seen.labels) for model in comparison.MODELS}
    counts = {model: posterior_median(getattr(seen, model)) for model in comparison.MODELS}
    worst = np.argsort(-scores["challenger"], kind="stable")[:MISTAKES]
    lost = scores["challenger"] - scores["champion"]
    losing = [i for i in np.argsort(-lost, kind="stable") if i not in set(worst) and lost[i] > 0][:MISTAKES]

    def told(i: int) -> dict[str, Any]:
        return {
            "site": seen.sites[i],
            "bin": seen.bins[i],
            "recorded": int(seen.quantities[i]),
            "picture": thumbnail(pictures.get(str(seen.ids[i]))),
            "answers": [
                {
                    "model": model,
                    "count": CLASSES[counts[model][i]],
                    "confidence": float(getattr(seen, model)[i][counts[model][i]]),
                    "p_record": float(getattr(seen, model)[i][seen.labels[i]]),
                }
                for model in comparison.MODELS
            ],
        }

    return [
        {"title": "Where the challenger is furthest from the record", "photographs": [told(int(i)) for i in worst]},
        {"title": "Where it lost most to the champion", "photographs": [told(int(i)) for i in losing]},
    ]


def thumbnail(path: Path | None) -> str | None:
    """A small JPEG as a data URL; None without a picture."""
    if path is None:
        return None
    try:
        image = decode(path.read_bytes(), size=THUMBNAIL)
    except BadImage:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
