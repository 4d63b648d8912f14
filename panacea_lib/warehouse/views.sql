-- What people read. Every X_history view shows all keys a problem has ever shown, with columns key,
-- created_at and is_current; X is the same filtered to the keys of today. All filters on
-- keys_history are also group keys, so that DuckDB pushes "is_current" below the aggregates.

create or replace view keys_history as
with latest as (
    select problem, stage, part, key, max(since) as since from facts.adoptions group by all
)
select
    latest.*, products.created_at, current.key is not null as is_current,
    prompts.key as prompts_key, pairs.key as pairs_key, responses.key as responses_key
from latest
join facts.products using (key)
left join facts.current on (current.problem, current.stage, current.part, current.key)
    = (latest.problem, latest.stage, latest.part, latest.key)
asof left join (select * from facts.adoptions where stage = 'prompts') prompts
    on prompts.problem = latest.problem and latest.since >= prompts.since
asof left join (select * from facts.adoptions where stage = 'pairs') pairs
    on pairs.problem = latest.problem and latest.since >= pairs.since
asof left join (select * from facts.adoptions where stage = 'responses') responses
    on responses.problem = latest.problem and latest.since >= responses.since;
comment on view keys_history is
    'Every content key a problem has shown, and the prompts, pairs and responses it was made from';
comment on column keys_history.since is 'when the problem last began to show the key, UTC';

create or replace view runs_history as
select
    k.problem, k.stage, k.part, p.run_id, p.seconds, p.seed,
    list_sum(map_values(p.row_counts::map(varchar, bigint)))::bigint as "rows",
    p.key, p.created_at, k.is_current, o.reason
from keys_history k join facts.products p using (key) left join facts.origins o using (key)
order by p.created_at, k.problem, k.stage, k.part;
comment on view runs_history is 'Every product a problem has shown, oldest first';

create or replace view runs as
select problem, stage, part, key, run_id, created_at, seconds, seed, "rows", reason
from runs_history where is_current order by created_at, problem, stage, part;
comment on view runs is 'The products each problem shows today, in the order they were made';
comment on column runs.run_id is 'the Dagster run that made it; a later run may have reused it';
comment on column runs.part is 'a dimension, a method, or empty for a stage in one piece';
comment on column runs."rows" is 'rows in the warehouse under this key';
comment on column runs.reason is
    'why it was made: what had changed since the product that the problem showed before';

create or replace view training_curves_history as
select
    k.problem, k.stage, k.part, c.method, c.step, c.dimension, c.metric, c.value,
    k.key, k.created_at, k.is_current
from keys_history k join facts.training_curves c using (key);
comment on view training_curves_history is 'The training curves of every model a problem has had';

create or replace view training_curves as
select * exclude (key, created_at, is_current) from training_curves_history where is_current
order by problem, stage, part, method, metric, dimension, step;
comment on view training_curves is 'Metrics by optimiser step of everything trained';
comment on column training_curves.dimension is 'empty for a metric of the whole step';

create or replace view champion_history as
select
    problem, decided_at, action, policy_key, incumbent_key, metric, judge, difference, low, high, reason,
    decided_by, front_key, base_key,
    action <> 'refused' and decided_at = max(decided_at) filter (action <> 'refused')
        over (partition by problem) as is_current
from facts.champion_events order by problem, decided_at;
comment on view champion_history is
    'Every promotion, refusal and rollback of a problem''s champion, oldest first';

create or replace view champions as
with figures as (
    select
        key, judge,
        max(value) filter (metric = 'value_ratio') as value_ratio,
        max(low) filter (metric = 'value_ratio') as value_ratio_low,
        max(high) filter (metric = 'value_ratio') as value_ratio_high,
        max(value) filter (metric = 'expected_utility') as expected_utility,
        max(value) filter (metric = 'charged_hypervolume') as charged_hypervolume,
        max(value) filter (metric = 'kl') as kl
    from facts.front_metrics where method = 'panacea'
    group by key, judge
    qualify judge = min(judge) over (partition by key) -- 'gold' sorts before 'proxy'
)
select
    h.problem, h.policy_key, h.decided_at as since, h.action, h.reason, h.decided_by,
    figures.* exclude (key), h.front_key, h.base_key
from champion_history h left join figures on figures.key = h.front_key
where h.is_current order by h.problem;
comment on view champions is
    'The champion of each problem today, with the figures of the evaluation it was decided on';
comment on column champions.problem is 'the alignment problem';
comment on column champions.policy_key is 'content key of its policy, the artifact to keep';
comment on column champions.since is 'when it became champion, UTC';
comment on column champions.action is 'how: promoted or rolled_back';
comment on column champions.reason is 'why, in words';
comment on column champions.decided_by is
    'run and its id where the gate decided, user and a name where a person did';
comment on column champions.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column champions.value_ratio is
    'share of the attainable improvement: 0 the reference policy, 1 the optimum';
comment on column champions.value_ratio_low is 'bootstrap interval over prompts, lower end';
comment on column champions.value_ratio_high is 'bootstrap interval over prompts, upper end';
comment on column champions.expected_utility is
    'mean over λ of the best λ·J of any point, J = E[r] − β·KL';
comment on column champions.charged_hypervolume is 'of the rewards minus β·KL';
comment on column champions.kl is 'mean KL to the reference policy, nats';
comment on column champions.front_key is 'content key of the evaluation that has its figures';
comment on column champions.base_key is 'content key of the base model it is made of';
