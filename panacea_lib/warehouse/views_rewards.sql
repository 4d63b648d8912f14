-- Views of reward models: how good, how calibrated, and what they pay for.

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
