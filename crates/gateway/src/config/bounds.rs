//! Every bound on what a configuration may say. The published JSON Schema and
//! [`Config::problems`](super::Config::problems) both read them from here.

use std::ops::RangeInclusive;

/// Most upstreams one gateway federates.
pub const UPSTREAMS_MAX: usize = 64;
/// Most rules under `tools`.
pub const TOOL_RULES_MAX: usize = 2048;
/// Most authorization servers.
pub const ISSUERS_MAX: usize = 16;
/// Most entries of `allowedOrigins`.
pub const ALLOWED_ORIGINS_MAX: usize = 64;
/// Most roles, scopes, audiences or required claims in one place.
pub const NAMES_MAX: usize = 64;
/// Longest upstream name, in bytes: leaves room for a tool's name within 64.
pub const UPSTREAM_NAME_MAX: usize = 32;
/// Longest tool name after the separator, in bytes.
pub const TOOL_NAME_MAX: usize = 128;
/// Longest short text: names of gateways, teams, roles, scopes, claims, audiences.
pub const SHORT_TEXT_MAX: usize = 256;
/// Longest description shown to clients, in bytes.
pub const DESCRIPTION_MAX: usize = 8 * 1024;
/// Longest URL, in bytes.
pub const URL_MAX: usize = 2048;
/// Most rules of the policy.
pub const POLICY_RULES_MAX: usize = 512;
/// Longest name of a policy's rule, in bytes.
pub const RULE_NAME_MAX: usize = 64;
/// Longest condition of a rule, in bytes.
pub const CONDITION_MAX: usize = 4 * 1024;
/// Largest snapshot, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long one call may take, in milliseconds.
pub const TIMEOUT_MS: RangeInclusive<u64> = 100..=900_000;
/// Length of a rate window, in milliseconds: one second to one day.
pub const RATE_WINDOW_MS: RangeInclusive<u64> = 1_000..=86_400_000;
/// Most named limits.
pub const LIMIT_RULES_MAX: usize = 64;
/// As how many requests one call may count.
pub const COST: RangeInclusive<u64> = 1..=10_000;
/// Windows of Workers' own limiters, in milliseconds.
pub const NATIVE_WINDOWS_MS: [u64; 2] = [10_000, 60_000];
/// As how many requests a call may count in a limiter of the host's, which is asked that often.
pub const NATIVE_COST_MAX: u32 = 10;
/// Length of a binding's name, in bytes.
pub const BINDING_BYTES: RangeInclusive<usize> = 1..=64;
/// Length of the window of a limit that is counted exactly: one second to 31 days.
pub const EXACT_WINDOW_MS: RangeInclusive<u64> = 1_000..=2_678_400_000;
/// Requests a rate admits in one window.
pub const RATE_REQUESTS: RangeInclusive<u64> = 1..=1_000_000;
/// Most quotas.
pub const QUOTAS_MAX: usize = 32;
/// How much a quota may allow.
pub const QUOTA: RangeInclusive<u64> = 1..=1_000_000_000_000_000;
/// From how many per cent on a quota warns.
pub const WARN_AT: RangeInclusive<u64> = 1..=100;
/// What a call, or a thousand tokens, may cost, in millionths of the currency.
pub const PRICE: RangeInclusive<u64> = 0..=1_000_000_000_000;
/// Largest request body, in bytes: 1 KiB to 16 MiB.
pub const REQUEST_BODY_BYTES: RangeInclusive<u64> = 1024..=16 * 1024 * 1024;
/// How old a request-scope token may be, in seconds.
pub const REQUEST_TOKEN_AGE: RangeInclusive<u64> = 1..=3_600;
/// Most tenants.
pub const TENANTS_MAX: usize = 1024;
/// Longest path of a tenant, in bytes.
pub const TENANT_PATH_MAX: usize = 64;
/// Most entries of one list of addresses or countries.
pub const EDGE_ENTRIES_MAX: usize = 1024;
/// Header fields of a request: what a client of MCP sends, and what proxies add, is below 40.
pub const HEADER_FIELDS: RangeInclusive<u64> = 32..=1024;
/// Most header fields, unless the configuration says otherwise.
pub const HEADER_FIELDS_DEFAULT: u32 = 100;
/// Bytes of all header fields: room for the longest token, and a little.
pub const HEADER_BYTES: RangeInclusive<u64> = 20_480..=131_072;
/// Most bytes of all header fields, unless the configuration says otherwise.
pub const HEADER_BYTES_DEFAULT: u32 = 65_536;
/// How long a task can be read, in milliseconds: one minute to seven days.
pub const TASK_TTL_MS: RangeInclusive<u64> = 60_000..=604_800_000;
/// How often clients are asked to poll a task, in milliseconds.
pub const TASK_POLL_INTERVAL_MS: RangeInclusive<u64> = 100..=60_000;
/// How long a call may run before it becomes a task, in milliseconds.
pub const TASK_AFTER_MS: RangeInclusive<u64> = 100..=60_000;
/// How long one run of a task may take, in milliseconds: one second to a day.
pub const TASK_TIMEOUT_MS: RangeInclusive<u64> = 1_000..=86_400_000;
/// Most tasks of one principal that have not ended.
pub const TASKS_OPEN_PER_PRINCIPAL: RangeInclusive<u64> = 1..=1_000;
/// Most tasks of one tenant that have not ended.
pub const TASKS_OPEN_PER_TENANT: RangeInclusive<u64> = 1..=1_000_000;
/// How many of a hundred principals are on a canary, or of its calls may fail.
pub const CANARY_PERCENT: RangeInclusive<u64> = 0..=100;
/// How long 95 of a hundred of a canary's calls may take, in milliseconds.
pub const CANARY_P95_MS: RangeInclusive<u64> = 1..=900_000;
/// Length of the window a canary's calls are counted in, in milliseconds: one second to an hour.
pub const CANARY_WINDOW_MS: RangeInclusive<u64> = 1_000..=3_600_000;
/// Calls a canary is judged by at the least.
pub const CANARY_CALLS: RangeInclusive<u64> = 1..=10_000;
/// How long a canary stays given up, in milliseconds: one second to 30 days.
pub const CANARY_HOLD_MS: RangeInclusive<u64> = 1_000..=2_592_000_000;
/// How many of a hundred calls are copied to a mirror.
pub const MIRROR_PERCENT: RangeInclusive<u64> = 1..=100;
/// Consecutive failures that open a circuit.
pub const FAILURE_THRESHOLD: RangeInclusive<u64> = 1..=1_000;
/// How long a circuit stays open, in milliseconds: 100 ms to one hour.
pub const RESET_INTERVAL_MS: RangeInclusive<u64> = 100..=3_600_000;
/// Probes through a half-open circuit at once.
pub const HALF_OPEN_REQUESTS: RangeInclusive<u64> = 1..=100;
/// For how long a client's idempotency key stands for one call, in milliseconds: one minute
/// to seven days.
pub const IDEMPOTENCY_WINDOW_MS: RangeInclusive<u64> = 60_000..=604_800_000;
/// How long a probe may take, in milliseconds.
pub const PROBE_MS: RangeInclusive<u64> = 10..=20_000;
/// Failing calls of a hundred that open a circuit.
pub const FAILURE_PERCENT: RangeInclusive<u64> = 1..=100;
/// Length of the window failing calls are counted in, in milliseconds: one second to ten
/// minutes.
pub const FAILURE_WINDOW_MS: RangeInclusive<u64> = 1_000..=600_000;
/// Calls without which a share of failures says nothing.
pub const FAILURE_CALLS: RangeInclusive<u64> = 1..=10_000;
/// How often one call is made, the first time among them.
pub const ATTEMPTS: RangeInclusive<u64> = 2..=10;
/// Longest pause before a call is made again, in milliseconds.
pub const RETRY_PAUSE_MS: RangeInclusive<u64> = 1..=60_000;
/// After how long a call is made a second time beside the first, in milliseconds.
pub const HEDGE_AFTER_MS: RangeInclusive<u64> = 10..=60_000;
/// Calls of a hundred that may be made again.
pub const RETRY_PERCENT: RangeInclusive<u64> = 0..=100;
/// Calls that may be made again in a second, however few there are.
pub const RETRIES_PER_SECOND: RangeInclusive<u64> = 0..=100;
/// Calls to one upstream, or requests, that one isolate has under way at once.
pub const AT_ONCE: RangeInclusive<u64> = 1..=10_000;
/// How long a call waits for another to end before it is refused, in milliseconds.
pub const BULKHEAD_WAIT_MS: RangeInclusive<u64> = 0..=10_000;
