"""What the dashboard shows, row by row, from what people see down to what it runs on."""

from __future__ import annotations

from jobs.dashboard_panels import Panel, Query, Row, by_stage, quantiles, stat

_GLANCE = Row(
    "At a glance",
    (
        stat("sessions", "none", 'sum(gamecraft_sessions{OF,state="active"})', "Sessions under way."),
        stat("of them live", "none", "sum(gamecraft_live_sessions{OF})", "Sessions that somebody plays."),
        stat(
            "chunks a minute",
            "none",
            "60 * sum(rate(gamecraft_chunks_stored_total{OF}[$__rate_interval]))",
            "Chunks made durable.",
            "FramelaneNoChunks",
        ),
        stat(
            "real-time factor, live",
            "none",
            "min(framelane:live_realtime_factor:rate5m{OF})",
            "Seconds of live video for each second that somebody waits for it: below 1 play stands.",
            "FramelaneLiveBehindRealTime",
        ),
        stat(
            "decode hidden",
            "percentunit",
            "min(gamecraft_overlap_ratio{OF})",
            "Share of recent decode time in which some denoise lane worked.",
        ),
        stat("job done", "percentunit", "min(framelane:job_progress:ratio{OF})", "Chunks stored or given up, of all."),
        stat(
            "job ETA",
            "dtdurations",
            "max(framelane:job_eta_seconds{OF})",
            "What is left, at the rate of the last 15 minutes.",
            "FramelaneJobVanished",
        ),
        stat(
            "alerts",
            "none",
            'count(ALERTS{alertname=~"Framelane.*",alertstate="firing"}) or vector(0)',
            "Alerts of Framelane that fire.",
        ),
    ),
)

_PATH = Row(
    "Critical path: from an action to its frame",
    (
        Panel(
            "Action to frame, live",
            "s",
            quantiles("gamecraft_action_to_frame_seconds"),
            "From an accepted control, or the chunk before it if that came later, to its chunk shown.",
            ("FramelaneChunkLatencyBurn",),
        ),
        Panel(
            "Where a chunk's time goes",
            "s",
            (
                Query(
                    "sum by (stage) (rate(gamecraft_chunk_stage_seconds_sum{OF}[$__rate_interval]))"
                    " / sum by (stage) (rate(gamecraft_chunk_stage_seconds_count{OF}[$__rate_interval]))",
                    "{{stage}}",
                ),
            ),
            "Mean of each stage, and of each wait for a lane (queue). The stage that grows is the cause.",
            ("FramelaneChunkLatencyBurn",),
            stacked=True,
        ),
        Panel(
            "Denoise ready to fragment stored",
            "s",
            quantiles("gamecraft_chunk_e2e_seconds"),
            "A chunk's way through denoise, decode and write, with its waits.",
            ("FramelaneNoChunks",),
        ),
        Panel(
            "First chunk of a session",
            "s",
            quantiles("gamecraft_time_to_first_chunk_seconds"),
            "From a session's admission to its first stored chunk.",
        ),
        Panel(
            "Between chunks of a session",
            "s",
            quantiles("gamecraft_chunk_interarrival_seconds"),
            "Between consecutive stored chunks of one session.",
        ),
        Panel(
            "Viewers who stand still",
            "percentunit",
            (
                Query(
                    "sum(rate(gamecraft_stalls_total{OF}[$__rate_interval]))"
                    " / sum(rate(gamecraft_action_to_frame_seconds_count{OF}[$__rate_interval]))",
                    "late chunks",
                ),
                Query("framelane:live_slow_chunks:ratio_rate5m{OF}", "beyond the objective"),
            ),
            "Share of live chunks that came after play had ended, and of those slower than the objective.",
            ("FramelaneLiveBehindRealTime", "FramelaneChunkLatencyBurn"),
        ),
    ),
)

_SATURATION = Row(
    "Saturation of each stage, and overlap",
    (
        Panel(
            "Lanes busy",
            "percentunit",
            (
                Query(
                    "sum by (stage) (rate(gamecraft_lane_busy_seconds_total{OF}[$__rate_interval]))"
                    " / sum by (stage) (rate(gamecraft_lane_seconds_total{OF}[$__rate_interval]))",
                    "{{stage}}",
                ),
            ),
            "The stage at 100 % is the bottleneck.",
        ),
        Panel(
            "Decode hidden behind denoise",
            "percentunit",
            (Query("gamecraft_overlap_ratio{OF}", "{{run}}"),),
            "Share of recent decode time in which some denoise lane worked.",
        ),
        Panel("Orders that wait for a lane", "short", by_stage("gamecraft_queue_depth"), "Ready, and taken by none."),
        Panel("Orders that lanes hold", "short", by_stage("gamecraft_orders_in_flight"), "Under way."),
        Panel(
            "How full the limits are",
            "percentunit",
            (Query("max by (bound) (framelane:bound:ratio{OF})", "{{bound}}"),),
            "At 100 % what comes before is held back, or who comes is refused.",
            ("FramelaneQueueAtHighWater",),
        ),
        Panel(
            "Lanes",
            "short",
            (
                *by_stage("gamecraft_lanes"),
                Query("sum(gamecraft_lanes_missing{OF})", "missing"),
                Query("sum(gamecraft_lanes_draining{OF})", "draining"),
            ),
            "Lanes that serve; those lost and not replaced; those about to go.",
            ("FramelaneLanesMissing", "FramelaneStageWithoutLanes", "FramelaneDrainStuck"),
        ),
    ),
)

_SESSIONS = Row(
    "Sessions and admission",
    (
        Panel(
            "Sessions",
            "short",
            (
                Query("sum by (state) (gamecraft_sessions{OF})", "{{state}}"),
                Query("sum(gamecraft_live_sessions{OF})", "live"),
                Query('sum(gamecraft_bound_usage{OF,bound="waiting_sessions"})', "waiting"),
            ),
            "By state, since the start; the live ones among the active; those that wait to be let in.",
            ("FramelaneQueueAtHighWater",),
        ),
        Panel(
            "Let in and refused, a minute",
            "short",
            (
                Query("60 * sum(rate(gamecraft_sessions_admitted_total{OF}[$__rate_interval]))", "let in"),
                Query(
                    "60 * sum by (reason) (rate(gamecraft_refusals_total{OF}[$__rate_interval]))", "refused: {{reason}}"
                ),
            ),
            "Refused are requests: the queue is full, a quota is, controls too far ahead, or it starts or stops.",
            ("FramelaneQueueAtHighWater", "FramelaneServiceDown"),
        ),
        Panel(
            "Work without a chunk",
            "s",
            (Query("gamecraft_stalled_seconds{OF}", "{{run}}"),),
            "How long there has been work without a chunk stored.",
            ("FramelaneNoChunks",),
        ),
    ),
)

_JOB = Row(
    "Job: progress, and what a second of video costs",
    (
        Panel(
            "Progress",
            "percentunit",
            (
                Query("framelane:job_progress:ratio{OF}", "chunks, {{run}}"),
                Query("gamecraft_job_rows_settled{OF} / (gamecraft_job_rows{OF} > 0)", "rows, {{run}}"),
            ),
            "Settled in this start or before.",
            ("FramelaneJobVanished",),
            width=6,
        ),
        Panel(
            "ETA",
            "s",
            (Query("framelane:job_eta_seconds{OF}", "{{run}}"),),
            "What is left, at the rate of the last 15 minutes.",
            ("FramelaneJobVanished",),
            width=6,
        ),
        Panel(
            "GPU-seconds for a second of video",
            "s",
            (Query("framelane:gpu_seconds_per_video_second:rate15m{OF}", "{{run}}"),),
            "Seconds of GPUs that lanes reserve; 0 where they reserve none.",
            width=6,
        ),
        Panel(
            "Seconds of video a second",
            "none",
            (
                Query("sum(rate(gamecraft_video_seconds_total{OF}[$__rate_interval]))", "all"),
                Query("sum(rate(gamecraft_live_video_seconds_total{OF}[$__rate_interval]))", "live"),
                Query("sum(gamecraft_realtime_factor{OF})", "since the start"),
            ),
            "Video made over wall time.",
            width=6,
        ),
    ),
)

_STORAGE = Row(
    "Storage",
    (
        Panel(
            "Stored",
            "Bps",
            (Query("sum(rate(gamecraft_output_bytes_total{OF}[$__rate_interval]))", "bytes"),),
            "Videos, staged chunks, records and shards.",
        ),
        Panel(
            "Time of a write lane, 95th percentile",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (operation, le) "
                    "(rate(gamecraft_store_seconds_bucket{OF}[$__rate_interval])))",
                    "{{operation}}",
                ),
            ),
            "By what it does.",
            ("FramelaneStoreAway",),
        ),
        Panel(
            "Waiting for the store",
            "short",
            (
                Query("sum(gamecraft_orders_parked{OF})", "orders that wait"),
                Query("60 * sum(rate(gamecraft_store_retries_total{OF}[$__rate_interval]))", "retries a minute"),
            ),
            "Orders that found the store absent.",
            ("FramelaneStoreAway",),
        ),
    ),
)

_FAILURES = Row(
    "Failures by reason",
    (
        Panel(
            "Sessions that failed",
            "short",
            (Query("sum by (reason) (gamecraft_failures_total{OF})", "{{reason}}"),),
            "Since the start, by kind of error.",
            ("FramelaneSessionsFailing",),
        ),
        Panel(
            "Lanes lost in half an hour",
            "short",
            (Query("sum by (stage) (increase(gamecraft_lane_restarts_total{OF}[30m]))", "{{stage}}"),),
            "Died, hung, or out of memory.",
            ("FramelaneLaneFlapping",),
        ),
        Panel(
            "Lanes whose node said that it goes",
            "short",
            (Query("sum by (stage) (increase(gamecraft_node_notices_total{OF}[30m]))", "{{stage}}"),),
            "In half an hour.",
            ("FramelaneLanesMissing",),
        ),
    ),
)

_MEMORY = Row(
    "Memory, and optional panels of NVIDIA's exporter",
    (
        Panel(
            "Memory of the largest lane",
            "bytes",
            (Query("max by (stage) (gamecraft_lane_memory_bytes{OF})", "{{stage}}"),),
            "The GPU's where the lane uses one, else resident.",
            ("FramelaneMemoryNearLimit",),
        ),
        Panel(
            "Share of what it could have",
            "percentunit",
            (Query("max by (stage) (framelane:lane_memory:ratio{OF})", "{{stage}}"),),
            "Its own and what is free, on its GPU or in its container or machine.",
            ("FramelaneMemoryNearLimit",),
        ),
        Panel(
            "Payloads in Ray's object store",
            "bytes",
            (
                Query('sum(gamecraft_bound_usage{OF,bound="payload_bytes"})', "held"),
                Query('sum(gamecraft_bound_limit{OF,bound="payload_bytes"})', "limit"),
            ),
            "Latents, text states and fragments.",
            ("FramelaneQueueAtHighWater",),
        ),
        Panel(
            "GPU busy (optional: DCGM)",
            "percentunit",
            (Query("DCGM_FI_DEV_GPU_UTIL / 100", "{{Hostname}} {{gpu}}"),),
            "Needs NVIDIA's DCGM exporter.",
            optional=True,
        ),
        Panel(
            "Tensor cores busy (optional: DCGM)",
            "percentunit",
            (Query("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "{{Hostname}} {{gpu}}"),),
            "Needs NVIDIA's DCGM exporter with profiling fields.",
            optional=True,
        ),
        Panel(
            "GPU memory (optional: DCGM)",
            "bytes",
            (Query("DCGM_FI_DEV_FB_USED * 1048576", "{{Hostname}} {{gpu}}"),),
            "Needs NVIDIA's DCGM exporter.",
            optional=True,
        ),
    ),
)

ROWS = (_GLANCE, _PATH, _SATURATION, _SESSIONS, _JOB, _STORAGE, _FAILURES, _MEMORY)
