-- Views of evaluations: figures, fronts, answers and sliders.

create or replace view leaderboard_history as
with metrics as (
    select
        key, method, judge,
        max(value) filter (metric = 'value_ratio') as value_ratio,
        max(low) filter (metric = 'value_ratio') as value_ratio_low,
        max(high) filter (metric = 'value_ratio') as value_ratio_high,
        max(value) filter (metric = 'charged_hypervolume') as charged_hypervolume,
        max(value) filter (metric = 'igd_plus') as igd_plus,
        max(value) filter (metric = 'expected_utility') as expected_utility,
        max(value) filter (metric = 'max_utility_loss') as max_utility_loss,
        max(value) filter (metric = 'steerability') as steerability,
        max(value) filter (metric = 'charged_regret') as charged_regret,
        max(value) filter (metric = 'evenness') as evenness,
        max(value) filter (metric = 'hypervolume') as hypervolume,
        max(value) filter (metric = 'inner_product') as inner_product,
        max(value) filter (metric = 'sparsity') as sparsity,
        max(value) filter (metric = 'spacing') as spacing,
        max(value) filter (metric = 'kl') as kl,
        coalesce(max(n) filter (metric = 'value_ratio'), max(n)) as n
    from facts.front_metrics
    group by key, method, judge
    -- 'gold' sorts before 'proxy': the best judge a front has is the smaller word.
    qualify judge = min(judge) over (partition by key)
),
policies as (
    select a.problem, a.since, p.* from facts.adoptions a join facts.policies p using (key)
    where a.stage in ('panacea_policy', 'baseline_policies')
)
select
    k.problem, metrics.* exclude (key),
    policies.steps, policies.tokens, policies.seconds, policies.stored_parameters,
    costs.forwards_per_token, costs.adapters,
    k.key, k.created_at, k.is_current
from keys_history k
join metrics using (key)
left join facts.answering_costs costs on costs.key = k.key and costs.method = metrics.method
asof left join policies
    on policies.problem = k.problem and policies.method = metrics.method
    and k.since >= policies.since
where k.stage = 'pareto_front'
order by k.problem, k.created_at, metrics.value_ratio desc nulls last;
comment on view leaderboard_history is 'The leaderboard of every evaluation a problem has had';

create or replace view leaderboard as
select * exclude (key, created_at, is_current) from leaderboard_history where is_current
order by problem, value_ratio desc nulls last, method;
comment on view leaderboard is
    'Methods of each problem, best first, by its best judge (gold where there is one, else proxy)';
comment on column leaderboard.value_ratio is
    'share of the attainable improvement: 0 the reference policy, 1 the optimum; the claim';
comment on column leaderboard.value_ratio_low is 'bootstrap interval over prompts, lower end';
comment on column leaderboard.value_ratio_high is 'bootstrap interval over prompts, upper end';
comment on column leaderboard.hypervolume is 'raw, for comparison with papers; pays for drift';
comment on column leaderboard.charged_hypervolume is 'of the rewards minus β·KL';
comment on column leaderboard.inner_product is 'mean λ·r over the grid, raw';
comment on column leaderboard.kl is 'mean KL to the reference policy, nats';
comment on column leaderboard.n is 'what the interval rests on';
comment on column leaderboard.seconds is 'training time; null for the reference policy';
comment on column leaderboard.stored_parameters is 'what must be kept to serve every λ';

create or replace view comparisons_history as
select
    k.problem, c.method, c.other, c.judge, c.metric, c.difference, c.low, c.high,
    case when c.low > 0 then 'better' when c.high < 0 then 'worse' else 'no difference shown' end
        as verdict,
    k.key, k.created_at, k.is_current
from keys_history k join facts.front_comparisons c using (key)
where k.stage = 'pareto_front';
comment on view comparisons_history is 'Every comparison of two methods a problem has had';

create or replace view comparisons as
select * exclude (key, created_at, is_current) from comparisons_history where is_current
order by problem, judge, metric, method, other;
comment on view comparisons is
    'Method less other by a figure of which more is better: who beats whom, and by how much';

create or replace view ruler_history as
select
    k.problem, m.judge,
    min(m.value) filter (m.metric = 'effective_samples') as effective_samples,
    max(m.value) filter (m.metric = 'points_refused')::integer as points_refused,
    max(m.value) filter (m.metric = 'samples_needed')::integer as samples_needed,
    max(m.n) as samples,
    k.key, k.created_at, k.is_current
from keys_history k join facts.front_metrics m using (key)
where k.stage = 'pareto_front' and m.method = 'optimum'
    and m.metric in ('effective_samples', 'points_refused', 'samples_needed')
group by k.problem, m.judge, k.key, k.created_at, k.is_current;
comment on view ruler_history is 'The quality of every estimated optimum a problem has had';

create or replace view ruler as
select * exclude (key, created_at, is_current) from ruler_history where is_current
order by problem, judge;
comment on view ruler is
    'How far an estimated optimum can be trusted; the exact one of the embedded world has no row';

create or replace view gold_and_proxy_history as
with asked_for as (
    select
        key, method, point,
        sum(weight * reward) filter (judge = 'gold') as gold,
        sum(weight * reward) filter (judge = 'proxy') as proxy
    from facts.front_rewards group by key, method, point
)
select
    k.problem, a.method, a.point, v.kl, a.gold, a.proxy, a.proxy - a.gold as flattery,
    k.key, k.created_at, k.is_current
from keys_history k
join asked_for a using (key)
join facts.front_values v
    on v.key = a.key and v.method = a.method and v.point = a.point and v.judge = 'gold'
where k.stage = 'pareto_front' and a.proxy is not null;
comment on view gold_and_proxy_history is 'What each judge thought of every front of a problem';

create or replace view gold_and_proxy as
select * exclude (key, created_at, is_current) from gold_and_proxy_history where is_current
order by problem, method, point;
comment on view gold_and_proxy is
    'The reward that was asked for, by the true scores and by the learned ones, over KL';

create or replace view front_points_history as
select
    k.problem, f.method, f.judge, f.point, d.position, f.dimension, f.weight, f.reward,
    f.reward_low as low, f.reward_high as high, f.n, k.key, k.created_at, k.is_current
from keys_history k
join facts.front_rewards f using (key)
left join facts.dimensions d on d.key = k.prompts_key and d.dimension = f.dimension
where k.stage = 'pareto_front';
comment on view front_points_history is 'Points of every front a problem has had, tidy';

create or replace view front_points as
select * exclude (key, created_at, is_current) from front_points_history where is_current
order by problem, method, judge, point, position, dimension;
comment on view front_points is 'Points of the fronts of today: one row per point and dimension';
comment on column front_points.position is 'of the dimension in λ';
comment on column front_points.weight is 'λ of this dimension at this point';
comment on column front_points.reward is 'mean normalised reward over the held-out prompts';

create or replace view pareto_front_history as
with points as (
    select
        problem, method, judge, point, key, created_at, is_current, max(n) as n,
        map_from_entries(list((dimension, weight) order by position, dimension)) as preference,
        map_from_entries(list((dimension, reward) order by position, dimension)) as rewards,
        list(reward order by position, dimension) as r
    from front_points_history
    group by problem, method, judge, point, key, created_at, is_current
),
fronts as (
    select *, list(r) over (partition by problem, method, judge, key, created_at, is_current) as front
    from points
)
select
    f.problem, f.method, f.judge, f.point, f.preference, f.rewards,
    v.kl, v.value, v.reference_value, v.optimal_value, f.n,
    -- Dominated: another point is nowhere worse and not the same.
    len(list_filter(f.front, lambda other: other <> f.r and list_bool_and(
        list_transform(list_zip(other, f.r), lambda pair: pair[1] >= pair[2])))) = 0 as on_front,
    f.key, f.created_at, f.is_current
from fronts f
left join facts.front_values v using (key, method, judge, point);
comment on view pareto_front_history is 'Every front a problem has had, a row per point';

create or replace view pareto_front as
select * exclude (key, created_at, is_current) from pareto_front_history where is_current
order by problem, method, judge, point;
comment on view pareto_front is 'The fronts of today: a row per problem, method, judge and point';
comment on column pareto_front.preference is 'the preference vector: dimension -> weight';
comment on column pareto_front.rewards is 'dimension -> mean normalised reward';
comment on column pareto_front.kl is 'KL(π_λ‖π_ref), nats';
comment on column pareto_front.value is 'V(λ) = E[λ·r] − β·KL';
comment on column pareto_front.reference_value is 'V of the reference policy';
comment on column pareto_front.optimal_value is 'V*, the most that can be had at this λ';
comment on column pareto_front.on_front is
    'no other point of the same method and judge has mean rewards at least as high everywhere';

create or replace view sample_responses_history as
with grids as (
    select
        k.problem, g.key, g.point,
        map_from_entries(list((g.dimension, g.weight) order by d.position, g.dimension)) as preference
    from keys_history k
    join facts.preference_grid g using (key)
    left join facts.dimensions d on d.key = k.prompts_key and d.dimension = g.dimension
    group by k.problem, g.key, g.point
),
-- An answer's own columns are group keys so that a filter on them reaches its table.
answers as (
    select
        k.problem, g.method, g.point, any_value(grids.preference) as preference,
        any_value(p.text) as prompt, any_value(g.text) as response, min(r.judge) as judge,
        list({judge: r.judge, position: d.position, dimension: r.dimension, reward: r.reward})
            filter (r.judge is not null) as rewards,
        g.sample, g.prompt_id, g.generation_id, k.key, k.created_at, k.is_current
    from keys_history k
    join facts.generations g using (key)
    left join grids on grids.problem = k.problem and grids.key = k.key and grids.point = g.point
    left join facts.prompts p on p.key = k.prompts_key and p.prompt_id = g.prompt_id
    left join facts.generation_rewards r on r.key = g.key and r.generation_id = g.generation_id
    left join facts.dimensions d on d.key = k.prompts_key and d.dimension = r.dimension
    where k.stage = 'generations'
    group by
        k.problem, g.method, g.point, g.sample, g.prompt_id, g.generation_id,
        k.key, k.created_at, k.is_current
)
-- Of one judge, a struct sorts by position, then dimension: the order of λ.
select answers.* replace (
    map_from_entries(list_transform(
        list_sort(list_filter(rewards, lambda one: one.judge = judge), 'asc', 'nulls last'),
        lambda one: (one.dimension, one.reward))) as rewards)
from answers;
comment on view sample_responses_history is 'The answers of every evaluation a problem has had';

create or replace view sample_responses as
select * exclude (key, created_at, is_current) from sample_responses_history where is_current
order by problem, method, prompt_id, point, sample;
comment on view sample_responses is 'What each method answers to a held-out prompt under each λ';
comment on column sample_responses.preference is 'the preference vector: dimension -> weight';
comment on column sample_responses.rewards is 'dimension -> normalised reward by the best judge';

create or replace view sliders_history as
select
    k.problem, s.method, s.judge, s.calibrated, s.position,
    map_from_entries(list((s.dimension, s.weight) order by d.position, s.dimension)) as preference,
    k.key, k.created_at, k.is_current
from keys_history k
join facts.sliders s using (key)
left join facts.dimensions d on d.key = k.prompts_key and d.dimension = s.dimension
where k.stage = 'pareto_front'
group by k.problem, s.method, s.judge, s.calibrated, s.position, k.key, k.created_at, k.is_current;
comment on view sliders_history is 'The sliders of every evaluation of a problem with two dimensions';
comment on column sliders_history.problem is 'the problem''s name';
comment on column sliders_history.method is 'the policy that is asked';
comment on column sliders_history.judge is 'whose rewards it was fitted to: gold, else proxy';
comment on column sliders_history.calibrated is
    'false where all points were equal, and the position is the first weight itself';
comment on column sliders_history.position is
    'share of the way along the front towards the first dimension, from 0 to 1';
comment on column sliders_history.preference is 'λ at that position: dimension -> weight';
comment on column sliders_history.key is 'content key of the evaluation';
comment on column sliders_history.created_at is 'when it was made, UTC';
comment on column sliders_history.is_current is 'whether the problem shows it today';

create or replace view sliders as
select * exclude (key, created_at, is_current) from sliders_history where is_current
order by problem, method, position;
comment on view sliders is
    'Which λ to ask for at equal steps along a front of two dimensions; linear between the rows';
comment on column sliders.problem is 'the problem''s name';
comment on column sliders.method is 'the policy that is asked';
comment on column sliders.judge is 'whose rewards it was fitted to: gold, else proxy';
comment on column sliders.calibrated is
    'false where all points were equal, and the position is the first weight itself';
comment on column sliders.position is
    'share of the way along the front towards the first dimension, from 0 to 1';
comment on column sliders.preference is 'λ at that position: dimension -> weight';
