"""Every limit of the runtime, named in one place. Sizes in bytes, times in seconds."""

from typing import Final

# What users give

MAX_VALUE_BYTES: Final = 64 * 1024 * 1024  # a command or a message of facts, blobs included
MAX_RESOURCE_ID: Final = 1024  # characters: it travels in headers
MAX_SCHEDULE_ID: Final = 64  # characters: a tick's run id is the schedule's and a time
MAX_SUBJECT: Final = 3000  # characters: the server cuts a connection that sends a longer line than 4096 bytes
MAX_ATTEMPTS: Final = 10_000  # retries of one call
MAX_PAUSE_SECONDS: Final = 365 * 86400  # between two tries
MAX_LABELS: Final = 64  # per suspension
CAUSE_DEPTH: Final = 10  # exception causes kept

# A run, and how it is stored

MAX_NESTING: Final = 32  # actors from the root down
MAX_CHILDREN: Final = 100_000  # items of one foreach
MAX_LOG_MESSAGES: Final = 1_000_000  # of one run: a loop beyond that wants a new run
MAX_INLINE_BYTES: Final = 128 * 1024  # larger values live in the blobs; less where the server's max_payload is less
PAYLOAD_MARGIN_BYTES: Final = 8 * 1024  # of the server's max_payload, for headers
CHUNK_BYTES: Final = 512 * 1024  # of a blob; less where the server's max_payload is less
CHUNKS_AT_ONCE: Final = 32  # read or written; all of a very large value at once would time out together
LOG_TTL_SECONDS: Final = 7 * 86400  # facts
LIVE_WINDOW: Final = 500  # live events of steps between two whose storing is awaited: JetStream drops what it cannot take in
LIVE_WINDOW_BYTES: Final = 1024 * 1024  # the same in bytes
LIVE_TTL_SECONDS: Final = 3600  # live events
MAX_AGE_SECONDS: Final = 90 * 86400  # commands
TOMBSTONE_SECONDS: Final = 86400  # a deleted run id stays taken
SWEEP_SECONDS: Final = 600.0  # between two sweeps of what vanished records leave behind
RETENTION_GRACE_SECONDS: Final = 10.0  # an expired record is hidden, and stays so long for callers that wait for its result
MAX_RESULT_NEWS_BYTES: Final = 512 * 1024  # larger results are read, not told
MAX_REASON: Final = 2000  # characters of a dead letter's reason

# A worker and the runs that it hosts

THREADS: Final = 32  # sync steps running at once per worker
LINGER_SECONDS: Final = 2.0  # sleeps and back-offs up to this are awaited in place
STEP_BACK_SECONDS: Final = 30.0  # at most, before a run is looked at again that this worker cannot host
MAX_IN_HAND: Final = 1_000  # deliveries of one actor that a worker keeps; further ones come again
CALLED_KEPT: Final = 10_000  # runs hosted elsewhere or not yet, of which a host remembers that something came for them
POISON_TAKEOVERS: Final = 5  # take-overs without progress before a run is given up
SUSPECT_TAKEOVERS: Final = 2  # from so many on, the next one included, a worker hosts one such run at a time
HAND_OVER_SECONDS: Final = 2.0  # how long a host that leaves waits to say so
HOLD_SECONDS: Final = 1.0  # before a host tries again to record what nobody could store
FIRST_RECORD_SECONDS: Final = 0.25  # a run that ends sooner needs no record of its beginning
RECORD_EVERY_FACTS: Final = 1000  # facts between two records of an active run
RECORD_EVERY_SECONDS: Final = 3600.0  # seconds between them: facts age out, also of a run that is active for long
YOUNG_SECONDS: Final = 5.0  # an older run without a record is pending: whoever hosted it would have written one
CANCEL_LOOK_SECONDS: Final = 3.0  # after which cancel() looks whether somebody sent the run back meanwhile
PARKED_CANCEL_SECONDS: Final = 1.0  # how long cancel() waits for the last fact of a run that is canceled already

# Children that live elsewhere

CHILD_WINDOW: Final = 64  # children running in place per activation before "auto" spreads
SHARED_BYTES: Final = 4 * 1024  # of state and request context that go along with each command to a spread child; more is referred to
SHARED_PART: Final = 16  # of what is referred to a sixteenth may have changed before it is stored anew
SHARED_KEPT: Final = 32  # of what is referred to, so many a host keeps
RECORDS_KEPT: Final = 8  # of runs whose spread children a host looks at
RESULTS_KEPT: Final = 64  # blocks of spread children whose parent's results a host keeps

# Step handlers elsewhere

CALL_HEARTBEAT_SECONDS: Final = 2.0  # a step handler elsewhere gives a sign of life so often; three missing ones mean death
CALL_BACKLOG: Final = 10_000  # messages of a handler elsewhere that wait to be handed on
MAX_RESULTS_BYTES: Final = 16 * 1024 * 1024  # outputs of earlier steps that go along with a call to another worker
HANDLER_DEATHS: Final = 5  # handlers in a row that may die of one call
HANDLER_PATIENCE_SECONDS: Final = 10.0  # how long a missing handler is awaited in place
NO_HANDLER_PAUSES: Final = (5.0, 300.0)  # the shortest and longest rest of a run whose step nobody serves

# Hosts, and what dead ones held

PROBE_SECONDS: Final = 0.3  # between two signs of life of the next host
CONFIRM_SECONDS: Final = 0.1  # a host is gone when nobody answers twice, so far apart
GATHER_SECONDS: Final = 0.25  # how long hosts may take to say what they hold
PATIENT_GATHER_SECONDS: Final = 1.0  # how long they may take where one that is missed would be taken for gone
RESCUE_SPAN: Final = 100_000  # sequences of the stream in which young commands of the dead are looked for
RESCUE_COMMANDS: Final = 10_000  # looked at, from each end of what is not acknowledged; the lease brings back the rest
RESCUE_AT_ONCE: Final = 64  # actors looked at together

# The broker

MAX_IN_FLIGHT: Final = 10_000  # appends of one connection without an answer; further ones wait their turn
MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024  # kept of what is sent while NATS is not reached; what is dropped is asked again
ANSWER_SECONDS: Final = 3.0  # how long one request to the broker may take before it is sent again
PATIENCE_SECONDS: Final = 20.0  # how long an append is tried again; a leader election takes 5-6 s
CLOCK_SECONDS: Final = 2.0  # by which a host's clock may differ from the server's before its timers are set by the server's
LAG_SECONDS: Final = 0.05  # before a replica that lags behind is asked again
FOLLOW_WINDOW_BYTES: Final = 8 * 1024 * 1024  # what a slow reader of a stream holds before it is fetched again

# Triggers and schedules

TRIGGERS_AT_ONCE: Final = 64  # handled by one worker, per source of triggers
BINDING_IDLE_SECONDS: Final = 7 * 86400  # a binding's consumer that no worker reads is removed
TICK_TTL_SECONDS: Final = 60  # how long a tick waits for a worker, at most until the next one
TICK_TRIES: Final = 3  # deliveries of a tick before a worker of another definition counts it as missed
MISSES_UNHOSTED: Final = 3  # ticks in a row that found nobody to host the workflow: then the schedule is removed
MISSES_STALE: Final = 5  # ticks in a row that found only workers of another definition: then a dead letter says so
DECLARATIONS_KEPT: Final = 32  # definitions of a workflow, by the order in which they were first declared
SETTLE_SECONDS: Final = 2.0  # after a worker of another build came or went, before it is seen whose schedules are to be stored
DECLARE_EVERY_SECONDS: Final = 60.0  # the same without any such news, which may get lost

# Clients and the control API

QUIET_SECONDS: Final = 5.0  # a reader of a run to whom nothing comes looks so often whether the run is still there
CATALOGUE_SECONDS: Final = 5.0  # how long data passes by what was read of a workflow that is known by its id only
READ_AHEAD: Final = 256  # runs read at once for a list
SENT_AT_ONCE: Final = 500  # commands of one call that concerns many runs
BULK_AT_ONCE: Final = 32  # runs that one command of an operator works on at once
LIST_PAGE: Final = 1000  # runs that the command line asks for at once
API_PAGE_EVENTS: Final = 500  # events in one answer of the control API
API_PAGE_BYTES: Final = 256 * 1024  # and their size, beyond which no further one is added
API_QUIET_SECONDS: Final = 0.05  # how long an answer waits for more events than it has
API_WAIT_SECONDS: Final = 20.0  # how long one request waits for a run; the client asks again
