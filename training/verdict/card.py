"""The model card: every figure comes from a report of `training.verdict.shipped`."""

from __future__ import annotations

from typing import Any

PLAIN = "as they are"
"""The condition of photographs that nobody changed."""
RULES = {
    "bayes": "**by the probability that the record is wrong**",
    "1 - p": "by 1 - p, p the probability of the record's class",
    "random": "in random order",
}
NAMES = {
    "rps": "ranked probability score (lower is better)",
    "log_loss": "log loss (lower is better)",
    "accuracy": "accuracy",
    "within_one": "within one",
    "within_one_of_0_to_5": "within one, bins recorded at 0 to 5",
    "rmse": "root mean squared error",
    "rmse_of_posterior_mean": "root mean squared error of the posterior mean",
}


def card(description: dict[str, Any], report: dict[str, Any], trained_on: int) -> str:
    """The card, in Markdown, of the package with this package.json, for this report on its predictions."""
    test = report["test"]
    calibration = test["calibration"]
    perfect = calibration["of_a_perfectly_calibrated_model"]
    change = description["quantisation"]
    parent = description.get("parent")
    origin = "trained from random weights" + (f", lastly from those of version {parent}" if parent else "")
    origin += f", {description['how']}" if "how" in description else ""
    size = description["preprocessing"]["size"]
    validation = report["validation"]["as_shipped"]["photographs"]
    return f"""# Model card: bin counter {description["model_version"]}

Answers how many items a photograph of a warehouse bin shows: a probability for each of 0 to 5 and for
"6 or more", and their median as the count. ResNet50, input {size} x {size} pixels, int8 in OpenVINO's form;
{origin}. `tools/ship.py`
made the package of its weights, and wrote this page from `predictions.csv`; code version
`{description["code_version"]}`.

**Licence of this package: CC BY-NC-SA 3.0 US**, as that of the photographs it learned from (`LICENSE` beside this
file). The code of Bintally has another licence, and none of the photographs is in this repository.

## Data

{trained_on:,} photographs of the Amazon Bin Image Dataset, with the quantities that the inventory system recorded
(some are wrong). {validation:,} others chose the calibration (temperature {report["temperature"]}), and
{test["as_shipped"]["photographs"]:,} others, of other bins, gave the figures below. Splits are by bin and by run of
neighbouring photographs. Digest of the training data `{description["training_data_digest"][:16]}…`, of the test set
`{description["test_set_digest"][:16]}…`.

`training.csv` lists the photographs that it learned from, `predictions.csv` the others; `bintally fetch-abid --ids`
downloads those of such a file. To measure it, take photographs that neither lists, of other groups, or the rows of
`predictions.csv` whose split is `test`.

## How good

*As shipped*: seven answers, every record, the shipped decision rule.

{_table(test, "as_shipped")}

*As published*: six-way, renormalised over 0 to 5, only bins recorded at 5 or fewer. This needs the truth, and is
not available in operation; it is here to compare with published results.

{_table(test, "as_published")}

Intervals are 95 %, by bootstrap over bin groups. A constant always says the same; for each figure, the best one's
stands here.

| recorded | photographs | recall | precision |
|---|---|---|---|
{_rows(test["per_class"])}

The photographs come in two populations of JPEG, with different shares of full bins:

| population | photographs | ranked probability score | accuracy | six-way accuracy |
|---|---|---|---|---|
{_populations(test["by_population"])}

{_by_age(report["by_age"])}**Balanced.** Every recorded count alike, however many bins have it: ranked probability score
{test["balanced"]["rps"]:.3f}, accuracy {test["balanced"]["accuracy"]:.1%}.

**Empty bins.** Of the bins recorded as empty it finds {_of(report["empty"]["recall"])}; of those that it counts as
empty, {_of(report["empty"]["precision"])} are recorded so. The intervals take photographs as independent.

**Calibration.** Expected calibration error {calibration["error"]:.1%}; that of a perfectly
calibrated model with as many photographs is {perfect["mean"]:.1%} on average, 95th percentile
{perfect["percentile_95"]:.1%}. How often the most probable answer was right, by its probability, with 95 % intervals:

![Reliability diagram: share that was right against the probability of the most probable answer](calibration.svg)

**int8.** Against the network before quantisation, on photographs of validation and test: the same answer for
{change["same_answer"]:.1%}, mean absolute change of a probability {change["mean_probability_change"]:.4f}, log loss
{change["log_loss_increase"]:+.4f}, accuracy {100 * change["accuracy_increase"]:+.2f} points.

## Which records are wrong

The {test["as_shipped"]["photographs"]:,} records of the test split count as right, except for 5 % that are
falsified at random: in equal parts by 1, by 2, by 1 to 3 upwards and by 1 to 3 downwards. Bintally orders them by the
probability that they are wrong. In percent: the falsified records found in the first 5, 10 and 20 % of the list, the
part of the list that contains 80 % of them, and the area under the ROC curve.

| order | first 5 % | first 10 % | first 20 % | list for 80 % | area |
|---|---|---|---|---|---|
{_ranking(report["ranking"])}

Means of {report["ranking"]["draws"]} draws of falsified records, the same ones for every order. Intervals are
95 % and are about these means, by bootstrap over bin groups ({report["ranking"]["resamples"]} resamples): the result
of a single list varies more. Gains are in points; a shorter list is better. As 5 % of the records are wrong, the first
figure is also the share of the first 5 % that is wrong. `bintally bench review ranking` measures each kind of error and
more orders.

## Other light and colour

The same {report["conditions"][PLAIN]["as_shipped"]["photographs"]} photographs of the test split under each
condition, counted by the served int8 network:

| condition | accuracy as shipped | 95 % interval | ranked probability score | 95 % interval | same count |
|---|---|---|---|---|---|
{_conditions(report["conditions"])}

Bintally flags photographs without colour, with hardly any light or hardly any detail, and asks for others: hardly
any of the photographs that the network learned from are such as they were taken.

## What it cannot do

It is wrong about most bins that hold two items or more, and it cannot tell six from twenty. No stock figure
should be overwritten with its count: use its probabilities to choose which bins a person recounts first. It has seen
bins of one kind (yellow cloth, elastic bands, one operator's warehouses); elsewhere it must be retrained.
"""


def _table(test: dict[str, Any], view: str) -> str:
    lines = ["| figure | model | 95 % interval | best constant answer |", "|---|---|---|---|"]
    for name, label in NAMES.items():
        if name in test[view]:
            low, high = test["intervals"][view][name]
            values = [test[view][name], low, high, test["constant"][view][name]]
            share = name.startswith(("accuracy", "within"))
            model, low_text, high_text, constant = (f"{v:.1%}" if share else f"{v:.3f}" for v in values)
            lines.append(f"| {label} | {model} | {low_text} to {high_text} | {constant} |")
    return "\n".join(lines)


def _rows(per_class: list[dict[str, Any]]) -> str:
    shown = [
        (
            row["class"],
            row["photographs"],
            *("-" if row[k] is None else f"{row[k]:.1%}" for k in ("recall", "precision")),
        )
        for row in per_class
    ]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in shown)


def _by_age(by_age: dict[str, Any]) -> str:
    """The test split's older and newer photographs apart, if it has both."""
    if len(by_age) < 2:
        return ""
    lines = [
        f"| {name} | {found['as_shipped']['photographs']} | {_with_interval(found, 'as_shipped', 'rps')} |"
        f" {_with_interval(found, 'as_shipped', 'accuracy')} | {_with_interval(found, 'as_published', 'accuracy')} |"
        for name, found in by_age.items()
    ]
    return "\n".join(
        [
            "Packages before were measured on some of them (`held_out_before.csv`); the others are new:",
            "",
            "| test split | photographs | ranked probability score | accuracy | six-way accuracy |",
            "|---|---|---|---|---|",
            *lines,
            "",
            "",
        ]
    )


def _with_interval(found: dict[str, Any], view: str, name: str) -> str:
    low, high = found["intervals"][view][name]
    form = ".3f" if name == "rps" else ".1%"
    return f"{found[view][name]:{form}} ({low:{form}} to {high:{form}})"


def _conditions(conditions: dict[str, Any]) -> str:
    lines = []
    for name, found in conditions.items():
        (low, high), (rps_low, rps_high) = (found["intervals"]["as_shipped"][key] for key in ("accuracy", "rps"))
        figures = found["as_shipped"]
        lines.append(
            f"| {name} | {figures['accuracy']:.1%} | {low:.1%} to {high:.1%} | {figures['rps']:.3f} |"
            f" {rps_low:.3f} to {rps_high:.3f} | {found['same_count']:.1%} |"
        )
    return "\n".join(lines)


def _ranking(found: dict[str, Any]) -> str:
    """A row for each order, and one for the gain of Bintally's over each other one."""
    rows = [(name, found["rules"][rule], "") for rule, name in RULES.items()]
    rows += [(f"gain over {rule}", told, "+") for rule, told in found["gains"].items()]
    return "\n".join(
        f"| {name} | {' | '.join(_points(one, sign) for one in told.values())} |" for name, told, sign in rows
    )


def _points(figure: dict[str, Any], sign: str) -> str:
    value, (low, high) = figure["value"], figure["interval"]
    return f"{100 * value:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def _of(share: dict[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['hits']} of {share['of']} ({low:.0%} to {high:.0%})"


def _populations(by_population: dict[str, Any]) -> str:
    return "\n".join(
        f"| {name} | {found['as_shipped']['photographs']} | {found['as_shipped']['rps']:.3f} |"
        f" {found['as_shipped']['accuracy']:.1%} | {found['as_published']['accuracy']:.1%} |"
        for name, found in by_population.items()
    )
