"""Every limit of the runtime, named in one place. Sizes in bytes, times in seconds."""

from typing import Final

MAX_INLINE_BYTES: Final = 128 * 1024  # larger values live in the blobs; less where the server's max_payload is less
MAX_VALUE_BYTES: Final = 64 * 1024 * 1024  # a command or a message of facts, blobs included
PAYLOAD_MARGIN_BYTES: Final = 8 * 1024  # of the server's max_payload, for headers
CHUNK_BYTES: Final = 512 * 1024  # of a blob; less where the server's max_payload is less
MAX_RESOURCE_ID: Final = 1024  # characters: it travels in headers
MAX_NESTING: Final = 32  # actors from the root down
MAX_LOG_MESSAGES: Final = 1_000_000  # of one run: a loop beyond that wants a new run
MAX_ATTEMPTS: Final = 10_000  # retries of one call
MAX_PAUSE_SECONDS: Final = 365 * 86400  # between two of them
MAX_IN_FLIGHT: Final = 10_000  # appends of one connection without an answer; further ones wait their turn
MAX_IN_HAND: Final = 1_000  # deliveries of one actor that a worker keeps; further ones come again
MAX_LABELS: Final = 64  # per suspension
MAX_CHILDREN: Final = 100_000  # items of one foreach
CHILD_WINDOW: Final = 64  # children running in place per activation before "auto" spreads
LINGER_SECONDS: Final = 2.0  # sleeps and back-offs up to this are awaited in place
STEP_BACK_SECONDS: Final = 30.0  # at most, before a run is looked at again that this worker cannot host
POISON_TAKEOVERS: Final = 5  # take-overs without progress before a run is given up
SUSPECT_TAKEOVERS: Final = 2  # from so many on a worker hosts one such run at a time
RECORD_EVERY_FACTS: Final = 1000  # facts between two records of an active run
FIRST_RECORD_SECONDS: Final = 0.25  # a run that ends sooner needs no record of its beginning
THREADS: Final = 32  # sync steps running at once per worker
ANSWER_SECONDS: Final = 3.0  # how long one request to the broker may take before it is sent again
PATIENCE_SECONDS: Final = 20.0  # how long an append is tried again; a leader election takes 5-6 s
LOG_TTL_SECONDS: Final = 7 * 86400  # facts
LIVE_TTL_SECONDS: Final = 3600  # live events
MAX_AGE_SECONDS: Final = 90 * 86400  # commands
TOMBSTONE_SECONDS: Final = 86400  # a deleted run id stays taken
MAX_RESULT_NEWS_BYTES: Final = 512 * 1024  # larger results are read, not told
MAX_REASON: Final = 2000  # characters of a dead letter's reason
SENT_AT_ONCE: Final = 500  # commands of one call that concerns many runs
CAUSE_DEPTH: Final = 10  # exception causes kept
FOLLOW_WINDOW_BYTES: Final = 8 * 1024 * 1024  # what a slow reader of a stream holds before it is fetched again
TRIGGERS_AT_ONCE: Final = 64  # handled by one worker, per source of triggers
TICK_TTL_SECONDS: Final = 60  # how long a tick waits for a worker, at most until the next one
TICK_TRIES: Final = 3  # deliveries of a tick before a worker of another definition counts it as missed
MISSES_UNHOSTED: Final = 3  # ticks in a row that found nobody to host the workflow: then the schedule is removed
MISSES_STALE: Final = 5  # ticks in a row that found only workers of another definition: then a dead letter says so
BINDING_IDLE_SECONDS: Final = 7 * 86400  # a binding's consumer that no worker reads is removed
API_HEARTBEAT_SECONDS: Final = 2.0  # between two signs of life of a stream of events
API_SILENCE_SECONDS: Final = 7.0  # without one its reader asks again
API_WAIT_SECONDS: Final = 20.0  # how long one request waits for a run; the client asks again
