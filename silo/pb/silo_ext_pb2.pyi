from silo.pb import silo_pb2 as _silo_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Standing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STANDING_ENDED: _ClassVar[Standing]
    STANDING_WAITS_FOR_TIME: _ClassVar[Standing]
    STANDING_WAITS_FOR_SLOT: _ClassVar[Standing]
    STANDING_WAITS_FOR_RATE_LIMIT: _ClassVar[Standing]
    STANDING_READY: _ClassVar[Standing]
    STANDING_RUNNING: _ClassVar[Standing]
STANDING_ENDED: Standing
STANDING_WAITS_FOR_TIME: Standing
STANDING_WAITS_FOR_SLOT: Standing
STANDING_WAITS_FOR_RATE_LIMIT: Standing
STANDING_READY: Standing
STANDING_RUNNING: Standing

class ExplainJobRequest(_message.Message):
    __slots__ = ("shard", "id", "tenant")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    shard: str
    id: str
    tenant: str
    def __init__(self, shard: _Optional[str] = ..., id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class ExplainJobResponse(_message.Message):
    __slots__ = ("id", "standing", "since_ms", "summary", "next", "next_ms", "attempt", "gates", "line", "holders")
    ID_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    NEXT_MS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    id: str
    standing: Standing
    since_ms: int
    summary: str
    next: str
    next_ms: int
    attempt: int
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    line: Line
    holders: _containers.RepeatedCompositeFieldContainer[Holder]
    def __init__(self, id: _Optional[str] = ..., standing: _Optional[_Union[Standing, str]] = ..., since_ms: _Optional[int] = ..., summary: _Optional[str] = ..., next: _Optional[str] = ..., next_ms: _Optional[int] = ..., attempt: _Optional[int] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ..., line: _Optional[_Union[Line, _Mapping]] = ..., holders: _Optional[_Iterable[_Union[Holder, _Mapping]]] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("limit", "state", "maximum", "holders", "waiters", "remaining", "reset_ms")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_AHEAD: _ClassVar[Gate.State]
        STATE_HERE: _ClassVar[Gate.State]
        STATE_PASSED: _ClassVar[Gate.State]
    STATE_AHEAD: Gate.State
    STATE_HERE: Gate.State
    STATE_PASSED: Gate.State
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    WAITERS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    RESET_MS_FIELD_NUMBER: _ClassVar[int]
    limit: _silo_pb2.Limit
    state: Gate.State
    maximum: int
    holders: int
    waiters: int
    remaining: int
    reset_ms: int
    def __init__(self, limit: _Optional[_Union[_silo_pb2.Limit, _Mapping]] = ..., state: _Optional[_Union[Gate.State, str]] = ..., maximum: _Optional[int] = ..., holders: _Optional[int] = ..., waiters: _Optional[int] = ..., remaining: _Optional[int] = ..., reset_ms: _Optional[int] = ...) -> None: ...

class Line(_message.Message):
    __slots__ = ("name", "ahead", "more_ahead", "first")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    MORE_AHEAD_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    name: str
    ahead: int
    more_ahead: bool
    first: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., ahead: _Optional[int] = ..., more_ahead: _Optional[bool] = ..., first: _Optional[_Iterable[str]] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("job_id", "since_ms", "worker_id")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    since_ms: int
    worker_id: str
    def __init__(self, job_id: _Optional[str] = ..., since_ms: _Optional[int] = ..., worker_id: _Optional[str] = ...) -> None: ...

class CheckShardRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: str
    def __init__(self, shard: _Optional[str] = ...) -> None: ...

class CheckShardReport(_message.Message):
    __slots__ = ("jobs", "jobs_total", "done", "violations")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    JOBS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    jobs: int
    jobs_total: int
    done: bool
    violations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, jobs: _Optional[int] = ..., jobs_total: _Optional[int] = ..., done: _Optional[bool] = ..., violations: _Optional[_Iterable[str]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class EnqueueBatchRequest(_message.Message):
    __slots__ = ("shard", "jobs")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    jobs: _containers.RepeatedCompositeFieldContainer[_silo_pb2.EnqueueRequest]
    def __init__(self, shard: _Optional[str] = ..., jobs: _Optional[_Iterable[_Union[_silo_pb2.EnqueueRequest, _Mapping]]] = ...) -> None: ...

class EnqueueBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[EnqueueResult]
    def __init__(self, results: _Optional[_Iterable[_Union[EnqueueResult, _Mapping]]] = ...) -> None: ...

class EnqueueResult(_message.Message):
    __slots__ = ("id", "refusal")
    ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    refusal: Refusal
    def __init__(self, id: _Optional[str] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class ReportOutcomesRequest(_message.Message):
    __slots__ = ("shard", "reports")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    reports: _containers.RepeatedCompositeFieldContainer[_silo_pb2.ReportOutcomeRequest]
    def __init__(self, shard: _Optional[str] = ..., reports: _Optional[_Iterable[_Union[_silo_pb2.ReportOutcomeRequest, _Mapping]]] = ...) -> None: ...

class ReportOutcomesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ReportResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ReportResult, _Mapping]]] = ...) -> None: ...

class ReportResult(_message.Message):
    __slots__ = ("refusal",)
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class HeartbeatsRequest(_message.Message):
    __slots__ = ("shard", "heartbeats")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    HEARTBEATS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    heartbeats: _containers.RepeatedCompositeFieldContainer[_silo_pb2.HeartbeatRequest]
    def __init__(self, shard: _Optional[str] = ..., heartbeats: _Optional[_Iterable[_Union[_silo_pb2.HeartbeatRequest, _Mapping]]] = ...) -> None: ...

class HeartbeatsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[HeartbeatResult]
    def __init__(self, results: _Optional[_Iterable[_Union[HeartbeatResult, _Mapping]]] = ...) -> None: ...

class HeartbeatResult(_message.Message):
    __slots__ = ("heartbeat", "refusal")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    heartbeat: _silo_pb2.HeartbeatResponse
    refusal: Refusal
    def __init__(self, heartbeat: _Optional[_Union[_silo_pb2.HeartbeatResponse, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class FromWorker(_message.Message):
    __slots__ = ("worker_id", "task_group", "shard", "credits", "reports", "refresh_reports", "heartbeats")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_GROUP_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    REFRESH_REPORTS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEATS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    task_group: str
    shard: str
    credits: int
    reports: _containers.RepeatedCompositeFieldContainer[_silo_pb2.ReportOutcomeRequest]
    refresh_reports: _containers.RepeatedCompositeFieldContainer[_silo_pb2.ReportRefreshOutcomeRequest]
    heartbeats: _containers.RepeatedCompositeFieldContainer[_silo_pb2.HeartbeatRequest]
    def __init__(self, worker_id: _Optional[str] = ..., task_group: _Optional[str] = ..., shard: _Optional[str] = ..., credits: _Optional[int] = ..., reports: _Optional[_Iterable[_Union[_silo_pb2.ReportOutcomeRequest, _Mapping]]] = ..., refresh_reports: _Optional[_Iterable[_Union[_silo_pb2.ReportRefreshOutcomeRequest, _Mapping]]] = ..., heartbeats: _Optional[_Iterable[_Union[_silo_pb2.HeartbeatRequest, _Mapping]]] = ...) -> None: ...

class ToWorker(_message.Message):
    __slots__ = ("tasks", "refresh_tasks", "reports", "heartbeats")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TASKS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEATS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[_silo_pb2.Task]
    refresh_tasks: _containers.RepeatedCompositeFieldContainer[_silo_pb2.RefreshFloatingLimitTask]
    reports: _containers.RepeatedCompositeFieldContainer[ReportReply]
    heartbeats: _containers.RepeatedCompositeFieldContainer[HeartbeatReply]
    def __init__(self, tasks: _Optional[_Iterable[_Union[_silo_pb2.Task, _Mapping]]] = ..., refresh_tasks: _Optional[_Iterable[_Union[_silo_pb2.RefreshFloatingLimitTask, _Mapping]]] = ..., reports: _Optional[_Iterable[_Union[ReportReply, _Mapping]]] = ..., heartbeats: _Optional[_Iterable[_Union[HeartbeatReply, _Mapping]]] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("task_id", "refusal")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    refusal: Refusal
    def __init__(self, task_id: _Optional[str] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("task_id", "heartbeat", "refusal")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    heartbeat: _silo_pb2.HeartbeatResponse
    refusal: Refusal
    def __init__(self, task_id: _Optional[str] = ..., heartbeat: _Optional[_Union[_silo_pb2.HeartbeatResponse, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("seq", "time_ms", "type", "actor", "method", "tenant", "job_id", "task_id", "attempt", "queue", "worker_id", "data", "record")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time_ms: int
    type: str
    actor: str
    method: str
    tenant: str
    job_id: str
    task_id: str
    attempt: int
    queue: str
    worker_id: str
    data: str
    record: bytes
    def __init__(self, seq: _Optional[int] = ..., time_ms: _Optional[int] = ..., type: _Optional[str] = ..., actor: _Optional[str] = ..., method: _Optional[str] = ..., tenant: _Optional[str] = ..., job_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., queue: _Optional[str] = ..., worker_id: _Optional[str] = ..., data: _Optional[str] = ..., record: _Optional[bytes] = ...) -> None: ...

class EventFilter(_message.Message):
    __slots__ = ("tenant", "job_id", "types")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    job_id: str
    types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., job_id: _Optional[str] = ..., types: _Optional[_Iterable[str]] = ...) -> None: ...

class EventBatch(_message.Message):
    __slots__ = ("events", "seq")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    seq: int
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., seq: _Optional[int] = ...) -> None: ...

class ReadEventsRequest(_message.Message):
    __slots__ = ("shard", "from_seq", "to_seq", "filter", "as_records")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    TO_SEQ_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    AS_RECORDS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    from_seq: int
    to_seq: int
    filter: EventFilter
    as_records: bool
    def __init__(self, shard: _Optional[str] = ..., from_seq: _Optional[int] = ..., to_seq: _Optional[int] = ..., filter: _Optional[_Union[EventFilter, _Mapping]] = ..., as_records: _Optional[bool] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("shard", "from_seq", "filter", "cursor")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    shard: str
    from_seq: int
    filter: EventFilter
    cursor: str
    def __init__(self, shard: _Optional[str] = ..., from_seq: _Optional[int] = ..., filter: _Optional[_Union[EventFilter, _Mapping]] = ..., cursor: _Optional[str] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("name", "seq", "moved_ms", "behind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MOVED_MS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    seq: int
    moved_ms: int
    behind: int
    def __init__(self, name: _Optional[str] = ..., seq: _Optional[int] = ..., moved_ms: _Optional[int] = ..., behind: _Optional[int] = ...) -> None: ...

class MoveCursorRequest(_message.Message):
    __slots__ = ("shard", "name", "seq")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    shard: str
    name: str
    seq: int
    def __init__(self, shard: _Optional[str] = ..., name: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class MoveCursorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCursorsRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: str
    def __init__(self, shard: _Optional[str] = ...) -> None: ...

class ListCursorsResponse(_message.Message):
    __slots__ = ("cursors",)
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    cursors: _containers.RepeatedCompositeFieldContainer[Cursor]
    def __init__(self, cursors: _Optional[_Iterable[_Union[Cursor, _Mapping]]] = ...) -> None: ...

class DeleteCursorRequest(_message.Message):
    __slots__ = ("shard", "name")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    shard: str
    name: str
    def __init__(self, shard: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DeleteCursorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetJobHistoryRequest(_message.Message):
    __slots__ = ("shard", "id", "tenant", "most")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    shard: str
    id: str
    tenant: str
    most: int
    def __init__(self, shard: _Optional[str] = ..., id: _Optional[str] = ..., tenant: _Optional[str] = ..., most: _Optional[int] = ...) -> None: ...

class GetJobHistoryResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class VerifyProjectionsRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: str
    def __init__(self, shard: _Optional[str] = ...) -> None: ...

class VerifyReport(_message.Message):
    __slots__ = ("seq", "seq_total", "done", "difference", "events", "waiting")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SEQ_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    seq: int
    seq_total: int
    done: bool
    difference: str
    events: _containers.RepeatedCompositeFieldContainer[Event]
    waiting: bool
    def __init__(self, seq: _Optional[int] = ..., seq_total: _Optional[int] = ..., done: _Optional[bool] = ..., difference: _Optional[str] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., waiting: _Optional[bool] = ...) -> None: ...

class RebuildProjectionsRequest(_message.Message):
    __slots__ = ("shard", "projections")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PROJECTIONS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    projections: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, shard: _Optional[str] = ..., projections: _Optional[_Iterable[str]] = ...) -> None: ...

class RebuildReport(_message.Message):
    __slots__ = ("seq", "seq_total", "done", "rows_changed", "difference", "waiting")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SEQ_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ROWS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    seq: int
    seq_total: int
    done: bool
    rows_changed: int
    difference: str
    waiting: bool
    def __init__(self, seq: _Optional[int] = ..., seq_total: _Optional[int] = ..., done: _Optional[bool] = ..., rows_changed: _Optional[int] = ..., difference: _Optional[str] = ..., waiting: _Optional[bool] = ...) -> None: ...

class ArchiveShardRequest(_message.Message):
    __slots__ = ("shard", "only_events")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ONLY_EVENTS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    only_events: bool
    def __init__(self, shard: _Optional[str] = ..., only_events: _Optional[bool] = ...) -> None: ...

class ArchiveReport(_message.Message):
    __slots__ = ("seq", "seq_total", "done", "archived_seq", "image_seq", "log_begin_seq", "waiting")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SEQ_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_SEQ_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SEQ_FIELD_NUMBER: _ClassVar[int]
    LOG_BEGIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    seq: int
    seq_total: int
    done: bool
    archived_seq: int
    image_seq: int
    log_begin_seq: int
    waiting: bool
    def __init__(self, seq: _Optional[int] = ..., seq_total: _Optional[int] = ..., done: _Optional[bool] = ..., archived_seq: _Optional[int] = ..., image_seq: _Optional[int] = ..., log_begin_seq: _Optional[int] = ..., waiting: _Optional[bool] = ...) -> None: ...

class EraseRequest(_message.Message):
    __slots__ = ("shard", "tenant", "id", "all_jobs")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ALL_JOBS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    tenant: str
    id: str
    all_jobs: bool
    def __init__(self, shard: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., all_jobs: _Optional[bool] = ...) -> None: ...

class EraseResponse(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...
