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

create or replace view preference_conflicts_history as
select
    k.problem, a.dimension as dimension_a, b.dimension as dimension_b, count(*) as pairs,
    count(*) filter ((a.label - 0.5) * (b.label - 0.5) < 0) as disagreements,
    disagreements / pairs as disagreement,
    k.key, k.created_at, k.is_current
from keys_history k
join facts.preference_labels a using (key)
join facts.preference_labels b
    on b.key = a.key and b.pair_id = a.pair_id and a.dimension < b.dimension
where k.stage = 'preference_labels' and a.status = 'ok' and b.status = 'ok'
group by k.problem, dimension_a, dimension_b, k.key, k.created_at, k.is_current;
comment on view preference_conflicts_history is 'Conflicts in every set of labels of a problem';

create or replace view preference_conflicts as
select * exclude (key, created_at, is_current) from preference_conflicts_history where is_current
order by problem, disagreement desc, dimension_a, dimension_b;
comment on view preference_conflicts is 'How often two dimensions prefer different responses';
comment on column preference_conflicts.pairs is 'pairs labelled on both dimensions, ties included';
comment on column preference_conflicts.disagreement is
    'share of those pairs whose labels lie on opposite sides of a tie';

create or replace view label_quality_history as
with labelled as (  -- the named dimensions first: one without a single label is the worst quality
    select k.problem, k.key, d.dimension from keys_history k
    join facts.dimensions d on d.key = k.prompts_key where k.stage = 'preference_labels'
    union
    select k.problem, k.key, l.dimension from keys_history k
    join facts.preference_labels l using (key) where k.stage = 'preference_labels'
),
all_pairs as (select key as pairs_key, count(*) as pairs from facts.pairs group by key)
select
    k.problem, labelled.dimension, all_pairs.pairs, count(*) filter (l.status = 'ok') as labels,
    labels / all_pairs.pairs as coverage, count(*) filter (l.label = 0.5) as ties,
    count(*) filter (l.status = 'failed') as failed, avg(l.label) as mean_label,
    coalesce(histogram(l.source), map {}) as sources,
    k.key, k.created_at, k.is_current
from keys_history k
join labelled on labelled.problem = k.problem and labelled.key = k.key
left join all_pairs using (pairs_key)
left join facts.preference_labels l on l.key = k.key and l.dimension = labelled.dimension
where k.stage = 'preference_labels'
group by k.problem, labelled.dimension, all_pairs.pairs, k.key, k.created_at, k.is_current;
comment on view label_quality_history is 'The quality of every set of labels of a problem';

create or replace view label_quality as
select * exclude (key, created_at, is_current) from label_quality_history where is_current
order by problem, dimension;
comment on view label_quality is 'How well each dimension is labelled';
comment on column label_quality.pairs is 'pairs of the problem';
comment on column label_quality.labels is 'pairs with a label on this dimension';
comment on column label_quality.coverage is 'labels / pairs';
comment on column label_quality.ties is 'labels of exactly 0.5';
comment on column label_quality.failed is 'labels that could not be had; never guessed';
comment on column label_quality.mean_label is 'far from 0.5: the order of a and b leaks into labels';
comment on column label_quality.sources is 'source -> rows';

create or replace view label_sources_history as
with all_pairs as (select key as pairs_key, count(*) as pairs from facts.pairs group by key)
select
    k.problem, a.dimension, a.source, a.annotator,
    count(distinct a.pair_id) as pairs, count(distinct a.pair_id) / all_pairs.pairs as coverage,
    count(distinct a.pair_id) filter (a.status = 'failed') as failed,
    count(distinct a.pair_id) filter (a.label = 0.5) as ties, avg(a.label) as mean_label,
    mode(a.reason) as commonest_failure,
    k.key, k.created_at, k.is_current
from keys_history k
join facts.annotations a using (key)
left join all_pairs using (pairs_key)
where k.stage = 'annotations'
group by k.problem, a.dimension, a.source, a.annotator, all_pairs.pairs, k.key, k.created_at,
    k.is_current;
comment on view label_sources_history is 'What every annotator of every set of labels said';

create or replace view label_sources as
select * exclude (key, created_at, is_current) from label_sources_history where is_current
order by problem, dimension, source, annotator;
comment on view label_sources is 'How much each annotator labelled, and how';
comment on column label_sources.annotator is 'of people: the person; of a judge: its name';
comment on column label_sources.pairs is 'pairs that this annotator was asked about';
comment on column label_sources.coverage is 'pairs / pairs of the problem';
comment on column label_sources.failed is 'pairs without a usable answer';
comment on column label_sources.ties is 'pairs with an answer of exactly 0.5';
comment on column label_sources.mean_label is 'far from 0.5: the order of a and b leaks into labels';
comment on column label_sources.commonest_failure is 'the reason given most often';

create or replace view position_bias_history as
with orders as (
    select
        k.problem, k.key, k.created_at, k.is_current, a.dimension, a.annotator, a.pair_id,
        max(a.label) filter (a.shown_first = 'a') as shown_a,
        max(a.label) filter (a.shown_first = 'b') as shown_b
    from keys_history k join facts.annotations a using (key)
    where k.stage = 'annotations' and a.shown_first is not null and a.status = 'ok'
    group by all
)
select
    problem, dimension, annotator, count(*) as pairs,
    avg((shown_a + 1 - shown_b) / 2) as first_preferred,
    avg((abs(shown_a - shown_b) < 0.5)::integer) as consistent,
    key, created_at, is_current
from orders where shown_a is not null and shown_b is not null
group by problem, dimension, annotator, key, created_at, is_current;
comment on view position_bias_history is 'The position bias of every judge a problem has asked';

create or replace view position_bias as
select * exclude (key, created_at, is_current) from position_bias_history where is_current
order by problem, dimension, annotator;
comment on view position_bias is 'Whether a judge prefers what it is shown first';
comment on column position_bias.pairs is 'pairs with a usable answer in both orders';
comment on column position_bias.first_preferred is
    'how often the response shown first wins, ties as half; 0.5: no bias';
comment on column position_bias.consistent is 'share of pairs with the same verdict in both orders';

create or replace view label_costs_history as
select
    k.problem, c.* exclude (key), c.input_tokens + c.output_tokens as tokens,
    k.key, k.created_at, k.is_current
from keys_history k join facts.label_costs c using (key)
where k.stage = 'annotations';
comment on view label_costs_history is 'What every judge a problem has asked cost';

create or replace view label_costs as
select * exclude (key, created_at, is_current) from label_costs_history where is_current
order by problem, dimension, annotator;
comment on view label_costs is 'What judges cost';
comment on column label_costs.tokens is 'input and output together';

create or replace view label_agreement_history as
select
    k.problem, g.dimension, g.annotator,
    max(g.value) filter (g.metric = 'alpha') as alpha,
    max(g.value) filter (g.metric = 'majority') as with_majority,
    max(g.n) as pairs,
    k.key, k.created_at, k.is_current
from keys_history k join facts.label_agreement g using (key)
where k.stage = 'preference_labels'
group by k.problem, g.dimension, g.annotator, k.key, k.created_at, k.is_current;
comment on view label_agreement_history is 'Agreement in every set of labels of a problem';

create or replace view label_agreement as
select * exclude (key, created_at, is_current) from label_agreement_history where is_current
order by problem, dimension, annotator;
comment on view label_agreement is 'How far annotators agree, of all sources together';
comment on column label_agreement.annotator is 'source and name; empty for all together';
comment on column label_agreement.alpha is
    'Krippendorff: 1 perfect, 0 chance; of one annotator: with all others';
comment on column label_agreement.with_majority is 'share of pairs on the side of the others';
comment on column label_agreement.pairs is 'pairs that at least two have labelled';

create or replace view source_agreement as
with opinions as (
    select
        k.problem, a.dimension, a.pair_id, a.source || ' ' || a.annotator as annotator,
        avg(a.label) as label
    from keys_history k join facts.annotations a using (key)
    where k.stage = 'annotations' and k.is_current and a.status = 'ok'
    group by all
)
select
    a.problem, a.dimension, a.annotator as annotator_a, b.annotator as annotator_b,
    count(*) as pairs,
    avg(case
        when a.label = 0.5 and b.label = 0.5 then 1.0
        when a.label = 0.5 or b.label = 0.5 then 0.5
        else ((a.label > 0.5) = (b.label > 0.5))::integer
    end) as agreement
from opinions a
join opinions b on b.problem = a.problem and b.dimension = a.dimension and b.pair_id = a.pair_id
    and a.annotator < b.annotator
group by all
order by a.problem, a.dimension, annotator_a, annotator_b;
comment on view source_agreement is 'How often two annotators prefer the same response';
comment on column source_agreement.annotator_a is 'source and name';
comment on column source_agreement.annotator_b is 'source and name';
comment on column source_agreement.pairs is 'pairs that both have labelled';
comment on column source_agreement.agreement is 'share of those; a tie against a winner is half';

create or replace view reward_model_quality_history as
select
    k.problem, m.dimension,
    max(m.value) filter (m.metric = 'accuracy') as accuracy,
    max(m.low) filter (m.metric = 'accuracy') as accuracy_low,
    max(m.high) filter (m.metric = 'accuracy') as accuracy_high,
    max(m.value) filter (m.metric = 'majority') as majority,
    max(m.value) filter (m.metric = 'best_possible') as best_possible,
    max(m.value) filter (m.metric = 'length_only') as length_only,
    max(m.value) filter (m.metric = 'length_only_difference') as length_only_difference,
    max(m.low) filter (m.metric = 'length_only_difference') as length_only_difference_low,
    max(m.high) filter (m.metric = 'length_only_difference') as length_only_difference_high,
    max(m.value) filter (m.metric = 'temperature') as temperature,
    max(m.value) filter (m.metric = 'ece') as ece,
    max(m.value) filter (m.metric = 'ece_scaled') as ece_scaled,
    max(m.value) filter (m.metric = 'length_correlation') as length_correlation,
    coalesce(max(m.n) filter (m.metric = 'accuracy'), max(m.n)) as n,
    k.key, k.created_at, k.is_current
from keys_history k join facts.reward_model_metrics m using (key)
where k.stage = 'reward_models'
group by k.problem, m.dimension, k.key, k.created_at, k.is_current;
comment on view reward_model_quality_history is 'Every reward model a problem has had';

create or replace view reward_model_quality as
select * exclude (key, created_at, is_current) from reward_model_quality_history where is_current
order by problem, dimension;
comment on view reward_model_quality is 'How often each reward model orders a held-out pair rightly';
comment on column reward_model_quality.majority is 'accuracy of always naming the commoner side';
comment on column reward_model_quality.best_possible is
    'accuracy of a perfect model under this label noise, where it is known';

comment on column reward_model_quality.length_only is
    'accuracy of always naming the longer response, or the shorter, whichever won in training';
comment on column reward_model_quality.length_only_difference is 'accuracy less length_only';
comment on column reward_model_quality.temperature is
    'what reward differences must be divided by to be calibrated: above 1 the model is too sure';
comment on column reward_model_quality.ece is
    'expected calibration error: mean distance of predicted and observed preference';
comment on column reward_model_quality.ece_scaled is
    'the same after division by a temperature that the other half of the prompts gave';
comment on column reward_model_quality.length_correlation is
    'of score and characters within prompts, over the responses of the held-out pairs';

create or replace view reward_model_topics_history as
select
    k.problem, m.dimension, m.metric[len('accuracy/') + 1:] as topic, m.value as accuracy,
    m.low, m.high, m.n, k.key, k.created_at, k.is_current
from keys_history k join facts.reward_model_metrics m using (key)
where k.stage = 'reward_models' and starts_with(m.metric, 'accuracy/');
comment on view reward_model_topics_history is
    'Accuracy by topic of every reward model a problem has had';

create or replace view reward_model_topics as
select * exclude (key, created_at, is_current) from reward_model_topics_history where is_current
order by problem, dimension, accuracy;
comment on view reward_model_topics is
    'How often each reward model orders a held-out pair rightly, by what its prompt is about';
comment on column reward_model_topics.topic is 'what the prompts are about, where that is known';
comment on column reward_model_topics.accuracy is 'share of held-out pairs ordered as their label';

create or replace view reward_calibration_history as
select
    k.problem, c.dimension, c.scaled, c.bin, c.n, c.predicted, c.observed, c.low, c.high,
    k.key, k.created_at, k.is_current
from keys_history k join facts.reward_calibration c using (key)
where k.stage = 'reward_models';
comment on view reward_calibration_history is
    'The calibration of every reward model a problem has had';

create or replace view reward_calibration as
select * exclude (key, created_at, is_current) from reward_calibration_history where is_current
order by problem, dimension, scaled, bin;
comment on view reward_calibration is
    'Is a pair preferred as often as the reward difference says? Bins of like numbers of pairs';
comment on column reward_calibration.scaled is
    'whether margins were divided by a temperature, fitted to the other half of the prompts';
comment on column reward_calibration.bin is 'from 0, the least sure pairs';
comment on column reward_calibration.n is 'pairs in the bin, ties included';
comment on column reward_calibration.predicted is
    'mean P(preferred) of the side that the model prefers, by its reward difference';
comment on column reward_calibration.observed is 'mean label of that side';
comment on column reward_calibration.low is '95 % Wilson interval of observed, lower end';
comment on column reward_calibration.high is '95 % Wilson interval of observed, upper end';

-- Rewards of today's reference samples, less their prompt's mean.
create or replace view reward_correlations as
with centred as (
    select
        k.problem, r.dimension, r.response_id, s.prompt_id,
        r.reward - avg(r.reward) over (partition by k.problem, r.dimension, s.prompt_id) as reward
    from keys_history k
    join facts.response_rewards r using (key)
    join facts.responses s on s.key = k.responses_key and s.response_id = r.response_id
    where k.stage = 'response_rewards' and k.is_current and s.source = 'reference'
)
select
    a.problem, a.dimension as dimension_a, b.dimension as dimension_b,
    corr(a.reward, b.reward) as correlation,
    count(distinct a.prompt_id) as prompts, count(*) as responses
from centred a
join centred b
    on b.problem = a.problem and b.response_id = a.response_id and a.dimension < b.dimension
group by all
order by a.problem, abs(correlation) desc, dimension_a, dimension_b;
comment on view reward_correlations is
    'How two dimensions'' rewards go together within prompts, over the base model''s own samples';
comment on column reward_correlations.correlation is
    'of the rewards less their prompt''s mean; 1: one dimension under two names, −1: opposites';
comment on column reward_correlations.prompts is 'prompts that it rests on';
comment on column reward_correlations.responses is 'samples that it rests on';

create or replace view reward_lengths_history as
with centred as (
    select
        k.problem, k.key, k.created_at, k.is_current, r.dimension, s.prompt_id,
        r.reward - avg(r.reward) over same_prompt as reward,
        len(s.text) - avg(len(s.text)) over same_prompt as length
    from keys_history k
    join facts.response_rewards r using (key)
    join facts.responses s on s.key = k.responses_key and s.response_id = r.response_id
    where k.stage = 'response_rewards' and s.source = 'reference'
    window same_prompt as (
        partition by k.problem, k.key, k.created_at, k.is_current, r.dimension, s.prompt_id
    )
)
select
    problem, dimension, corr(reward, length) as correlation,
    100 * regr_slope(reward, length) as per_100_characters,
    count(distinct prompt_id) as prompts, count(*) as responses, key, created_at, is_current
from centred group by problem, dimension, key, created_at, is_current;
comment on view reward_lengths_history is 'Whether rewards paid for length, of every set of rewards';

create or replace view reward_lengths as
select * exclude (key, created_at, is_current) from reward_lengths_history where is_current
order by problem, abs(correlation) desc, dimension;
comment on view reward_lengths is
    'Does a dimension pay for length? Within prompts, over the base model''s own samples';
comment on column reward_lengths.correlation is 'of reward and characters less their prompt''s mean';
comment on column reward_lengths.per_100_characters is 'reward that 100 characters more go with';
comment on column reward_lengths.prompts is 'prompts that it rests on';
comment on column reward_lengths.responses is 'samples that it rests on';

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
