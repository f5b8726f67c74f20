"""Hyperparameter tuning jobs: real training jobs as trials, chosen by Optuna."""

import contextlib
import math
import secrets
from collections.abc import Iterator

from localsagemaker.host import Host, listed, paged
from localsagemaker.jobs import ENDED, JobFailed, Jobs, JobStopped, Stop, only, refuse_unsupported
from localsagemaker.search import Search, all_ranges, check_scaling, worse_than_median
from localsagemaker.training import TrainingJobs
from localsagemaker.training import check as check_trial
from localsagemaker.wire import Json, ServiceError, invalid

POLL_SECONDS = 0.5
ATTEMPTS = 5  # the job gives up when so many trials have ended without a success, as on AWS

SUPPORTED = {
    **only("HyperParameterTuningJobName WarmStartConfig Tags"),
    "HyperParameterTuningJobConfig": {
        **only("Strategy HyperParameterTuningJobObjective TrainingJobEarlyStoppingType RandomSeed"),
        "ResourceLimits": only("MaxNumberOfTrainingJobs MaxParallelTrainingJobs"),
        "ParameterRanges": only("IntegerParameterRanges ContinuousParameterRanges CategoricalParameterRanges"),
    },
    "TrainingJobDefinition": {
        **only("StaticHyperParameters AlgorithmSpecification RoleArn InputDataConfig OutputDataConfig ResourceConfig"),
        **only("StoppingCondition EnableNetworkIsolation EnableInterContainerTrafficEncryption RetryStrategy"),
        **only("EnableManagedSpotTraining CheckpointConfig Environment"),
    },
}


class TuningJobs(Jobs):
    """CreateHyperParameterTuningJob and its kind.

    A job stores its trials in order, as `Trials`: [{"TrainingJobName", "TunedHyperParameters", and after its end
    "Objective", None if it logged none}].
    """

    phase, kind = "HyperParameterTuning", "hyper-parameter-tuning-job"
    event = "SageMaker HyperParameter Tuning Job State Change"
    operations = (
        *("CreateHyperParameterTuningJob", "DescribeHyperParameterTuningJob", "ListHyperParameterTuningJobs"),
        *("StopHyperParameterTuningJob", "ListTrainingJobsForHyperParameterTuningJob"),
    )

    def __init__(self, host: Host, training: TrainingJobs) -> None:
        super().__init__(host)
        self.training = training

    def create_hyper_parameter_tuning_job(self, request: Json) -> Json:
        refuse_unsupported(request, SUPPORTED)
        name = request["HyperParameterTuningJobName"]
        for needed in ("HyperParameterTuningJobObjective", "ParameterRanges"):
            if needed not in request["HyperParameterTuningJobConfig"]:
                raise invalid(f"HyperParameterTuningJobConfig.{needed} is needed on one machine")
        if "TrainingJobDefinition" not in request:
            raise invalid("TrainingJobDefinition is needed on one machine")
        config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
        check_config(config, definition)
        check_trial(trial_request(request, name, {}))
        with self.changed:
            self.refuse_taken(name)
            for parent in self.parents(request):
                check_parent(parent, request)
        limits = {**config["ResourceLimits"], "MaxNumberOfTrainingJobs": number_of_trials(config)}
        members = {
            **request,
            "HyperParameterTuningJobConfig": {
                "TrainingJobEarlyStoppingType": "Off",
                **config,
                "ResourceLimits": limits,
            },
            "Strategy": config["Strategy"],
            "ResourceLimits": limits,
            "Trials": [],
        }
        return self.begin(name, {**members, **self.progress(members)})

    def describe_hyper_parameter_tuning_job(self, request: Json) -> Json:
        return self.describe(request["HyperParameterTuningJobName"])

    def list_hyper_parameter_tuning_jobs(self, request: Json) -> Json:
        return self.list(request)

    def stop_hyper_parameter_tuning_job(self, request: Json) -> Json:
        self.stop(request["HyperParameterTuningJobName"])
        return {}

    def list_training_jobs_for_hyper_parameter_tuning_job(self, request: Json) -> Json:
        with self.changed:
            job = self.find(request["HyperParameterTuningJobName"])
            trials = [self.summary(job, trial) for trial in job["Trials"]]
        operation = "ListTrainingJobsForHyperParameterTuningJob"
        request = {"SortBy": "Name", "SortOrder": "Ascending", **request}
        if request["SortBy"] != "FinalObjectiveMetricValue":
            return listed(operation, request, trials, "TrainingJob")
        wanted = request.get("StatusEquals")
        kept = [one for one in trials if one["ObjectiveStatus"] == "Succeeded"]
        kept = [one for one in kept if wanted in (None, one["TrainingJobStatus"])]
        kept.sort(key=value_of, reverse=request["SortOrder"] == "Descending")
        return paged(operation, request, kept)

    def not_found(self, name: str) -> ServiceError:
        return ServiceError("ResourceNotFound", f"Amazon SageMaker can't find a tuning job with the name {name}.")

    # One job

    def run(self, job: Json, stop: Stop) -> None:
        """Starts trials, reports ended ones to the search, and stops trials early that are worse than the others.

        Raises JobFailed when no trial gives an objective, JobStopped, or ServiceError when a trial does not start.
        """
        search = Search(job["HyperParameterTuningJobConfig"], job["HyperParameterTuningJobName"])
        for hyperparameters, value in self.observations(job):
            search.remember(hyperparameters, value)
        limits = job["ResourceLimits"]
        running: dict[str, tuple[int, Json]] = {}  # the trial's number in the search, and the trial
        try:
            while True:
                if stop.is_set():
                    raise JobStopped
                for name in [name for name in running if self.training.ended(name)]:
                    number, trial = running.pop(name)
                    self.conclude(job, trial)
                    search.tell(number, trial["Objective"])
                give_up_if_none_succeeds(job, self.training)
                left = limits["MaxNumberOfTrainingJobs"] - len(job["Trials"])
                for _ in range(min(left, limits["MaxParallelTrainingJobs"] - len(running))):
                    number, tuned = search.ask()
                    trial = self.start(job, tuned)
                    running[trial["TrainingJobName"]] = number, trial
                if not running:
                    return
                if job["HyperParameterTuningJobConfig"]["TrainingJobEarlyStoppingType"] == "Auto":
                    self.stop_early(job, list(running))
                with self.training.changed:
                    self.training.changed.wait(POLL_SECONDS)
        finally:
            for name in running:
                with contextlib.suppress(ServiceError):  # it has just ended
                    self.training.stop(name)
            if not stop.closing:
                for name, (_, trial) in running.items():
                    with contextlib.suppress(ServiceError):  # a reset has removed it
                        self.training.wait(name)
                        self.conclude(job, trial)

    def start(self, job: Json, tuned: dict[str, str]) -> Json:
        name = f"{job['HyperParameterTuningJobName']}-{len(job['Trials']) + 1:03}-{secrets.token_hex(4)}"
        self.training.create_training_job(
            trial_request(job, name, tuned), tuning_job_arn=job["HyperParameterTuningJobArn"]
        )
        trial = {"TrainingJobName": name, "TunedHyperParameters": tuned}
        with self.changed:
            job["Trials"].append(trial)
            self.update(job)
        return trial

    def conclude(self, job: Json, trial: Json) -> None:
        """Stores the objective of an ended trial: the last value that it logged."""
        training, metric = self.training.describe(trial["TrainingJobName"]), objective(job)["MetricName"]
        told = {one["MetricName"]: one["Value"] for one in training.get("FinalMetricDataList", [])}
        value = told.get(metric, math.nan) if training["TrainingJobStatus"] != "Failed" else math.nan
        with self.changed:
            trial["Objective"] = value if math.isfinite(value) else None
            self.update(job)

    def stop_early(self, job: Json, running: list[str]) -> None:
        """Stops the running trials whose objective is worse than that of others at the same point."""
        previous = [
            self.series(job, trial["TrainingJobName"]) for trial in ended(job) if trial["Objective"] is not None
        ]
        for name in running:
            if worse_than_median(self.series(job, name), previous, objective(job)["Type"] == "Minimize"):
                with contextlib.suppress(ServiceError):  # it has just ended
                    self.training.stop(name)

    def series(self, job: Json, name: str) -> list[float]:
        """All logged values of the trial's objective, in order."""
        metric = objective(job)["MetricName"]
        return [one["Value"] for one in self.training.metrics(name) if one["MetricName"] == metric]

    # A job's description of its trials

    def update(self, job: Json) -> None:
        """Counters and best trial, without an event: the job's own status is the same."""
        with self.changed:
            job.update(self.progress(job))
            self.changed.notify_all()

    def progress(self, job: Json) -> Json:
        """The job's counters, and its best trial where there is one."""
        trials = [self.summary(job, trial) for trial in job["Trials"]]
        statuses = [one["TrainingJobStatus"] for one in trials]
        objectives = [one["ObjectiveStatus"] for one in trials]
        members: Json = {
            "TrainingJobStatusCounters": {
                "Completed": statuses.count("Completed"),
                "InProgress": statuses.count("InProgress") + statuses.count("Stopping"),
                "RetryableError": 0,
                "NonRetryableError": statuses.count("Failed"),
                "Stopped": statuses.count("Stopped"),
            },
            "ObjectiveStatusCounters": {
                status: objectives.count(status) for status in ("Succeeded", "Pending", "Failed")
            },
        }
        if found := best(job, [one for one in trials if one["ObjectiveStatus"] == "Succeeded"]):
            members["BestTrainingJob"] = found
        if job.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
            known = [
                parent.get("OverallBestTrainingJob", parent.get("BestTrainingJob")) for parent in self.parents(job)
            ]
            if overall := best(job, [one for one in (found, *known) if one]):
                members["OverallBestTrainingJob"] = overall
        return members

    def summary(self, job: Json, trial: Json) -> Json:
        """The trial as ListTrainingJobsForHyperParameterTuningJob shows it."""
        training = self.training.describe(trial["TrainingJobName"])
        shown = ("TrainingJobArn", "CreationTime", "TrainingStartTime", "TrainingEndTime", "FailureReason")
        members: Json = {
            "TrainingJobName": trial["TrainingJobName"],
            "TrainingJobStatus": training["TrainingJobStatus"],
            "TunedHyperParameters": trial["TunedHyperParameters"],
            **{name: training[name] for name in shown if name in training},
        }
        if "Objective" not in trial:
            return {**members, "ObjectiveStatus": "Pending"}
        if trial["Objective"] is None:
            return {**members, "ObjectiveStatus": "Failed"}
        told = {**objective(job), "Value": trial["Objective"]}
        return {**members, "ObjectiveStatus": "Succeeded", "FinalHyperParameterTuningJobObjectiveMetric": told}

    def ending(self, job: Json, status: str, reason: str | None) -> Json:
        with contextlib.suppress(ServiceError):  # a reset has removed the trials
            for trial in job["Trials"]:
                if "Objective" not in trial:
                    self.conclude(job, trial)
        return super().ending(job, status, reason)

    # Warm start

    def parents(self, request: Json) -> list[Json]:
        """Raises ServiceError for a parent that does not exist."""
        named = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
        return [self.find(parent["HyperParameterTuningJobName"]) for parent in named]

    def observations(self, job: Json) -> Iterator[tuple[dict[str, str], float]]:
        """Static and tuned hyperparameters of the parents' trials, each with its objective."""
        for parent in self.parents(job):
            static = parent["TrainingJobDefinition"].get("StaticHyperParameters", {})
            for trial in parent["Trials"]:
                if trial["Objective"] is not None:
                    yield static | trial["TunedHyperParameters"], trial["Objective"]


def objective(job: Json) -> Json:
    found: Json = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    return found


def ended(job: Json) -> list[Json]:
    return [trial for trial in job["Trials"] if "Objective" in trial]


def value_of(summary: Json) -> float:
    value: float = summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return value


def best(job: Json, trials: list[Json]) -> Json | None:
    """The trial whose objective is the best; of equal ones the first."""
    if not trials:
        return None
    return (min if objective(job)["Type"] == "Minimize" else max)(trials, key=value_of)


def number_of_trials(config: Json) -> int:
    """A grid has at most as many trials as points."""
    most: int = config["ResourceLimits"].get("MaxNumberOfTrainingJobs", math.inf)
    if config["Strategy"] != "Grid":
        return most
    return min(most, math.prod(len(one["Values"]) for one in all_ranges(config)))


def trial_request(job: Json, name: str, tuned: dict[str, str]) -> Json:
    """The request for a trial's training job."""
    definition = dict(job["TrainingJobDefinition"])
    hyperparameters = {**definition.pop("StaticHyperParameters", {}), **tuned}
    if "CheckpointConfig" in definition:  # a trial does not resume another one
        config = definition["CheckpointConfig"]
        definition["CheckpointConfig"] = {**config, "S3Uri": f"{config['S3Uri'].rstrip('/')}/{name}"}
    return {
        **definition,
        "TrainingJobName": name,
        "HyperParameters": {**hyperparameters, "_tuning_objective_metric": objective(job)["MetricName"]},
        **({"Tags": job["Tags"]} if "Tags" in job else {}),
    }


def give_up_if_none_succeeds(job: Json, training: TrainingJobs) -> None:
    """Raises JobFailed when the first trials, or all where there are fewer, have ended and none gave an objective."""
    tried = ended(job)
    enough = min(ATTEMPTS, job["ResourceLimits"]["MaxNumberOfTrainingJobs"])
    if len(tried) < enough or any(trial["Objective"] is not None for trial in tried):
        return
    if any(training.describe(trial["TrainingJobName"])["TrainingJobStatus"] == "Completed" for trial in tried):
        raise JobFailed(
            f"No objective metrics found after running {len(tried)} training jobs. Please ensure that the custom "
            "algorithm is emitting the objective metric as defined by the regular expression provided."
        )
    raise JobFailed(
        f"No training job succeeded after {len(tried)} attempts. For additional details, please take a look at the "
        "training job failures by listing training jobs for the hyperparameter tuning job."
    )


def check_config(config: Json, definition: Json) -> None:
    """Raises ServiceError for an invalid request, and for one that this service does not support."""
    limits, ranges = config["ResourceLimits"], all_ranges(config)
    if config["Strategy"] not in ("Bayesian", "Random", "Grid"):
        raise invalid(f"not supported on one machine: strategy {config['Strategy']}")
    if config["Strategy"] == "Grid" and any(one["Kind"] != "Categorical" for one in ranges):
        raise invalid("Grid search takes categorical ranges only.")
    if config["Strategy"] != "Grid" and "MaxNumberOfTrainingJobs" not in limits:
        raise invalid("ResourceLimits.MaxNumberOfTrainingJobs is needed unless the strategy is Grid")
    if min(limits.values()) < 1:
        raise invalid("ResourceLimits must be at least 1")
    names = [one["Name"] for one in ranges]
    if not names:
        raise invalid("ParameterRanges must have at least one range")
    static = definition.get("StaticHyperParameters", {})
    if len(names) > len(set(names)) or not static.keys().isdisjoint(names):
        raise invalid("a hyperparameter must have one range, or one static value, and not both")
    for one in ranges:
        if one["Kind"] != "Categorical":
            check_scaling(one)
    metric = config["HyperParameterTuningJobObjective"]["MetricName"]
    defined = [one["Name"] for one in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if metric not in defined:
        raise invalid(f"The objective metric {metric} must be one of the MetricDefinitions: {defined}.")


def check_parent(parent: Json, request: Json) -> None:
    """Raises ServiceError for a warm start that SageMaker would refuse."""
    name = parent["HyperParameterTuningJobName"]
    if parent["HyperParameterTuningJobStatus"] not in ENDED:
        raise invalid(f"Parent tuning job {name} must be Completed, Stopped or Failed.")
    if objective(parent) != objective(request):
        raise invalid(f"The objective metric must be the same as that of the parent tuning job {name}.")
    counts = [
        len(all_ranges(job["HyperParameterTuningJobConfig"]))
        + len(job["TrainingJobDefinition"].get("StaticHyperParameters", {}))
        for job in (parent, request)
    ]
    if counts[0] != counts[1]:
        raise invalid(
            f"The total number of static and tunable hyperparameters must be the same as that of the parent tuning "
            f"job {name}: {counts[0]}, not {counts[1]}."
        )
    if request["WarmStartConfig"]["WarmStartType"] != "IdenticalDataAndAlgorithm":
        return
    before, after = parent["TrainingJobDefinition"], request["TrainingJobDefinition"]
    images = [one["AlgorithmSpecification"].get("TrainingImage") for one in (before, after)]
    if images[0] != images[1] or before.get("InputDataConfig") != after.get("InputDataConfig"):
        raise invalid(f"Training image and input data must be those of the parent tuning job {name}.")
