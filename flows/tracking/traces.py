"""A handful of an iteration's rollouts as MLflow traces: question, template, answer, and the verdict as feedback.

A trace's ids are digests of what it shows, so one that is sent twice is the same trace: a kill anywhere doubles none.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from mlflow.entities import (
    Assessment,
    AssessmentSource,
    Expectation,
    Feedback,
    Span,
    SpanType,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey
from mlflow.tracing.utils import generate_mlflow_trace_id_from_otel_trace_id
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from flows.tracking.prompts import Prompts, linked_prompts
from flows.tracking.samples import Rollout, draw

if TYPE_CHECKING:
    from flows.tracking.records import Finished

VERIFIER = AssessmentSource(source_type="CODE", source_id="math-verify")
PREVIEW = 1000
SCHEMA = {"mlflow.trace_schema.version": "3"}


def log_traces(client: TracingClient, prompts: Prompts | None, done: Finished) -> None:
    """Send a seeded sample of the iteration's rollouts, linked to its run and to the prompt versions they were under.

    Linked twice over, since MLflow reads both: its pages show a trace's prompts from the tag (``_info``), and the
    search ``prompt = "name/1"``, which a prompt's own page asks, looks in the table of associations alone.

    Raises what the store does.
    """
    drawn = draw(done.layout, done.iteration, done.experiment.tracking.traces, done.experiment.seed)
    experiment_id = done.parent.info.experiment_id
    spans = []
    for rollout in drawn:
        number = int(hashlib.sha256(_identity(rollout, done).encode()).hexdigest()[:32], 16)
        client.start_trace(_info(rollout, done, number, experiment_id, prompts))
        spans.append(_span(rollout, done, number))
        version = prompts.versions.get(rollout.template) if prompts else None
        if version is not None:
            client.store.link_prompts_to_trace(spans[-1].trace_id, [version])
    try:
        client.log_spans(experiment_id, spans)
    except NotImplementedError as error:  # a server older than 3.4
        raise MlflowException(f"{error} (tracking.traces: 0 does without)", INVALID_PARAMETER_VALUE) from error


def _identity(rollout: Rollout, done: Finished) -> str:
    return json.dumps([done.key, done.mark, done.iteration, rollout.kind, rollout.problem.id, rollout.sample])


def _info(rollout: Rollout, done: Finished, number: int, experiment_id: str, prompts: Prompts | None) -> TraceInfo:
    usage = {"input_tokens": rollout.prompt_tokens, "output_tokens": rollout.tokens}
    tags = {
        TraceTagKey.TRACE_NAME: rollout.kind,
        "p2o.kind": rollout.kind,
        "p2o.arm": done.experiment.arm,
        "p2o.seed": str(done.experiment.seed),
        "p2o.iteration": str(done.iteration),
        "p2o.problem": rollout.problem.id,
        "p2o.difficulty": rollout.problem.difficulty,
    }
    version = prompts.versions.get(rollout.template) if prompts else None
    if version is not None:
        tags[TraceTagKey.LINKED_PROMPTS] = linked_prompts([version])
    trace_id = generate_mlflow_trace_id_from_otel_trace_id(number)
    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=done.at,
        execution_duration=0,
        state=TraceState.OK,
        request_preview=rollout.problem.question[:PREVIEW],
        response_preview=rollout.text[:PREVIEW],
        trace_metadata={
            **SCHEMA,
            TraceMetadataKey.SOURCE_RUN: done.child.info.run_id,
            TraceMetadataKey.TRACE_SESSION: f"{done.experiment.experiment}/{rollout.problem.id}",
            TraceMetadataKey.TOKEN_USAGE: json.dumps(usage | {"total_tokens": sum(usage.values())}),
        },
        tags=tags,
        assessments=_assessments(rollout, done, trace_id),
    )


def _assessments(rollout: Rollout, done: Finished, trace_id: str) -> list[Assessment]:
    """The verdict, and the gold answer it is about."""
    read = f"read {rollout.extracted!r}" if rollout.extracted else "read no answer"
    cut = "; cut off at max_new_tokens" if rollout.truncated else ""
    common: dict[str, Any] = {"trace_id": trace_id, "create_time_ms": done.at, "last_update_time_ms": done.at}
    assessments: list[Assessment] = [
        Feedback(
            name="correct",
            value=rollout.status == "correct",
            source=VERIFIER,
            rationale=f"{rollout.status}: {read}, right is {' or '.join(map(repr, rollout.problem.spellings))}{cut}",
            **common,
        ),
        Expectation(
            name="answer",
            value=rollout.problem.answer,
            source=AssessmentSource(source_type="CODE", source_id="problems"),
            **common,
        ),
    ]
    for assessment in assessments:  # ids of their own: sent again they are the same rows
        assessment.assessment_id = f"a-{hashlib.sha256(f'{trace_id}:{assessment.name}'.encode()).hexdigest()[:32]}"
    return assessments


def _span(rollout: Rollout, done: Finished, number: int) -> Span:
    attributes = {
        SpanAttributeKey.REQUEST_ID: generate_mlflow_trace_id_from_otel_trace_id(number),
        SpanAttributeKey.SPAN_TYPE: SpanType.LLM,
        SpanAttributeKey.INPUTS: {"template": rollout.template, "question": rollout.problem.question},
        SpanAttributeKey.OUTPUTS: rollout.text,
        "mean_logp": rollout.mean_logp,
        "sample": rollout.sample,
        "truncated": rollout.truncated,
    }
    if rollout.masked is not None:
        attributes["masked_share"] = rollout.masked
    at = done.at * 1_000_000
    return Span(
        ReadableSpan(
            name=rollout.kind,
            context=SpanContext(
                number, number & 0xFFFF_FFFF_FFFF_FFFF or 1, is_remote=False, trace_flags=TraceFlags(1)
            ),
            resource=Resource.get_empty(),
            attributes={name: json.dumps(value) for name, value in attributes.items()},
            start_time=at,
            end_time=at,
            status=Status(StatusCode.OK),
        )
    )
