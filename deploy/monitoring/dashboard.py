# SPDX-License-Identifier: Apache-2.0
"""Writes dashboard.json, for Grafana 10 and later: python deploy/monitoring/dashboard.py.

Built with Grafana's own SDK (grafana-foundation-sdk), whose types are those of its schema.
"""

from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_types
from grafana_foundation_sdk.models import dashboard as types

FILE = Path(__file__).with_suffix(".json")
CHOSEN = '{model=~"$model"}'
HEIGHT, WIDTH = 7, 8  # of 24
Line = tuple[str, str]  # an expression and its legend


def rate(name: str, by: str = "", only: str = "") -> str:
    """A sum of rates a second. `by`: labels; `only`: more matchers."""
    chosen = CHOSEN if not only else CHOSEN[:-1] + f", {only}}}"
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({name}{chosen}[$__rate_interval]))"


def quantiles(name: str) -> list[Line]:
    """Median, 95th and 99th percentile of a histogram."""
    buckets = rate(f"{name}_bucket", "le")
    return [(f"histogram_quantile({part}, {buckets})", f"{part:.0%}") for part in (0.5, 0.95, 0.99)]


def panel(title: str, unit: str, *lines: Line, most: float | None = None) -> timeseries.Panel:
    """A chart."""
    legend = common.VizLegendOptions().display_mode(common_types.LegendDisplayMode.LIST)
    made = (
        timeseries.Panel()
        .title(title)
        .unit(unit)
        .min(0)
        .height(HEIGHT)
        .span(WIDTH)
        .fill_opacity(8)
        .show_points(common_types.VisibilityMode.NEVER)
        .legend(legend.placement(common_types.LegendPlacement.BOTTOM).show_legend(True))
        .datasource(types.DataSourceRef(type_val="prometheus", uid="$datasource"))
    )
    if most is not None:
        made = made.max(most)
    for letter, (expression, legend_text) in zip("ABC", lines, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend_text)
        made = made.with_target(query.ref_id(letter))
    return made


def requests() -> list[timeseries.Panel]:
    """What clients see."""
    return [
        panel("Requests", "reqps", (rate("trellis_requests_total", "endpoint, status"),
              "{{endpoint}} {{status}}")),
        panel("Rejections", "reqps", (rate("trellis_rejections_total", "reason"), "{{reason}}"),
              (rate("trellis_disconnects_total"), "disconnected")),
        panel("Why answers ended", "reqps",
              (rate("trellis_requests_total", "finish_reason", 'finish_reason!=""'),
               "{{finish_reason}}")),
        panel("Time to first token", "s", *quantiles("trellis_time_to_first_token_seconds")),
        panel("Time between chunks", "s", *quantiles("trellis_inter_token_latency_seconds")),
        panel("Time to the end", "s", *quantiles("trellis_e2e_request_latency_seconds")),
    ]  # fmt: skip


def tokens() -> list[timeseries.Panel]:
    """What is made, for whom."""
    return [
        panel("Tokens", "short", (rate("trellis_generation_tokens_total"), "made"),
              (rate("trellis_prompt_tokens_total"), "of prompts")),
        panel("Tokens by adapter", "short",
              (rate("trellis_generation_tokens_total", "adapter"), "{{adapter}}")),
        panel("Length of prompts", "short", *quantiles("trellis_request_prompt_tokens")),
    ]  # fmt: skip


def engine() -> list[timeseries.Panel]:
    """What only the engine knows."""
    hits, queries = "trellis_prefix_cache_hits_total", "trellis_prefix_cache_queries_total"
    return [
        panel("In the engine", "short", (f"sum (trellis_num_requests_running{CHOSEN})", "running"),
              (f"sum (trellis_num_requests_waiting{CHOSEN})", "waiting")),
        panel("Time in the queue", "s", *quantiles("trellis_request_queue_time_seconds")),
        panel("Steps", "ops", (rate("trellis_engine_steps_total", "model"), "{{model}}")),
        panel("KV cache in use", "percentunit",
              (f"max by (model) (trellis_kv_cache_usage_perc{CHOSEN})", "{{model}}"), most=1),
        panel("Prefix cache hits", "percentunit", (f"{rate(hits)} / {rate(queries)}", "of tokens"),
              most=1),
        panel("Preemptions", "ops", (rate("trellis_num_preemptions_total", "model"), "{{model}}")),
    ]  # fmt: skip


def gateway() -> list[timeseries.Panel]:
    """What the gateway's own work costs."""
    return [
        panel("Time to make ids of prompts", "s", *quantiles("trellis_tokenize_time_seconds")),
        panel("Of a core, to make text and write it", "percentunit",
              (rate("trellis_detokenize_seconds_total", "model"), "{{model}}")),
        panel("Constraints", "s", *quantiles("trellis_constraint_plan_time_seconds")),
    ]  # fmt: skip


def build() -> str:
    """The dashboard as JSON."""
    made = (
        dashboard.Dashboard("Trellis")
        .uid("trellis")
        .tags(["llm", "triton"])
        .refresh("10s")
        .time("now-30m", "now")
        .tooltip(types.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("model")
            .datasource(types.DataSourceRef(type_val="prometheus", uid="$datasource"))
            .query("label_values(trellis_requests_total, model)")
            .include_all(True)
            .multi(True)
            .refresh(types.VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    )
    rows = {"Requests": requests, "Tokens": tokens, "Engine": engine, "Gateway": gateway}
    for title, panels in rows.items():
        made = made.with_row(dashboard.Row(title))
        for each in panels():
            made = made.with_panel(each)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(build())
